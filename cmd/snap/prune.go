package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"sync"

	"github.com/snap-backup/snap/repo"
	"github.com/spf13/cobra"
)

// pruneFlags limit what a prune does.
type pruneFlags struct{ maxUnused, maxRepack string }

func (p *pruneFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&p.maxUnused, "max-unused", "5%", "`limit` of unused bytes that may remain: 5%, 100M, 0, or unlimited to repack nothing")
	f.StringVar(&p.maxRepack, "max-repack-size", "", "repack at most this `size`, such as 10G")
}

func (p *pruneFlags) options() (repo.PruneOptions, error) {
	opts := repo.PruneOptions{MaxRepack: -1, Reserve: true}
	var err error
	if opts.MaxUnused, err = parseMaxUnused(p.maxUnused); err != nil {
		return opts, usageError{fmt.Errorf("--max-unused: %w", err)}
	}
	if p.maxUnused == "unlimited" {
		opts.MaxRepack = 0
	} else if p.maxRepack != "" {
		if opts.MaxRepack, err = parseSize(p.maxRepack); err != nil {
			return opts, usageError{fmt.Errorf("--max-repack-size: %w", err)}
		}
	}
	return opts, nil
}

// parseMaxUnused parses a limit of unused bytes: a percentage of all bytes, a size, or
// "unlimited".
func parseMaxUnused(s string) (func(used int64) int64, error) {
	if s == "unlimited" {
		return func(int64) int64 { return math.MaxInt64 }, nil
	}
	if number, ok := strings.CutSuffix(s, "%"); ok {
		p, err := strconv.ParseFloat(number, 64)
		if err != nil || !(p >= 0 && p < 100) {
			return nil, fmt.Errorf("%q is not a percentage below 100%%", s)
		}
		// The limit is p percent of used and unused bytes together.
		return func(used int64) int64 { return int64(p / (100 - p) * float64(used)) }, nil
	}
	n, err := parseSize(s)
	return func(int64) int64 { return n }, err
}

// parseSize parses a number of bytes in units of 1024: 100, 100K, 5M, 1.5G, 2T. "B" or
// "iB" may follow.
func parseSize(s string) (int64, error) {
	text := strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(s), "B"), "I")
	unit := 1.0
	for i, c := range "KMGT" {
		if number, ok := strings.CutSuffix(text, string(c)); ok {
			text, unit = number, math.Pow(1024, float64(i+1))
			break
		}
	}
	v, err := strconv.ParseFloat(text, 64)
	if v *= unit; err != nil || !(v >= 0 && v < 1<<62) {
		return 0, fmt.Errorf("%q is not a size such as 500M or 2G", s)
	}
	return int64(v), nil
}

// pruneResult is the output of prune.
type pruneResult struct {
	DryRun bool `json:"dry_run"`
	*repo.PruneReport
	Waiting []lockJSON `json:"waiting"`
	// ProtectedDays is how long the store protects files; 0 for stores that do not.
	ProtectedDays float64 `json:"protected_days,omitempty"`
}

func (a *app) pruneCommand() *cobra.Command {
	var flags pruneFlags
	var dryRun, allowEmpty bool
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove data that no snapshot needs",
		Long: `Removes what no snapshot and no unfinished backup needs. First it removes packs
that are not in use at all, so that a full disk has room again. Then it repacks
packs with many unused bytes until at most --max-unused of them remain.

Backups can run at the same time. A prune keeps what running commands may need;
a later prune removes it. With --retry-lock it waits for these commands. If it
can free nothing because of a lock whose process may have ended, or if locks
have prevented it from freeing anything for more than a day, it says so and
exits with 11. A prune can be interrupted at any time.

If no snapshot is left at all, somebody has forgotten them all, or their records
were lost. Only --allow-empty then removes the data, unless "snap forget
--prune" has just removed the last snapshot.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			opts, err := flags.options()
			if err != nil {
				return err
			}
			opts.DryRun, opts.AllowEmpty = dryRun, allowEmpty
			kind := repo.LockPrune
			if dryRun {
				kind = repo.LockRead
			}
			r, err := a.open(ctx)
			if err != nil {
				return err
			}
			if !dryRun {
				if err := a.mayRemove(); err != nil {
					return err
				}
			}
			r.UseReserve()
			if err := a.takeLock(ctx, r, kind, cmd.CommandPath()); err != nil {
				return err
			}
			res, err := a.prune(ctx, r, opts)
			if err != nil {
				return err
			}
			return errors.Join(a.conclude(res, dryRun, func(w io.Writer) { res.print(w) }), res.blocked())
		},
	}
	flags.register(cmd)
	cmd.Flags().BoolVarP(&dryRun, "dry-run", "n", false, "only show what would be freed")
	cmd.Flags().BoolVar(&allowEmpty, "allow-empty", false, "remove all data if no snapshot is left")
	return cmd
}

// prune runs a prune or a dry run and shows progress.
func (a *app) prune(ctx context.Context, r *repo.Repo, opts repo.PruneOptions) (*pruneResult, error) {
	var mu sync.Mutex
	var now meter
	opts.Progress = func(phase string, done, total int64) {
		mu.Lock()
		defer mu.Unlock()
		now = meter{phase: phase, bytes: done, totalBytes: total}
	}
	stop := a.showProgress(func() meter {
		mu.Lock()
		defer mu.Unlock()
		return now
	})
	report, err := r.Prune(ctx, opts)
	stop()
	if err == nil && len(report.Waiting) > 0 && !opts.DryRun {
		report, err = a.pruneLater(ctx, r, opts, report)
	}
	if err != nil {
		if report != nil && report.FreedBytes > 0 {
			err = fmt.Errorf("%w\n%s in %s were freed before that; the next prune continues", err,
				bytesText(report.FreedBytes), plural(report.RemovedPacks, "pack"))
		}
		if errors.Is(err, repo.ErrDamaged) {
			err = fmt.Errorf("%w\na prune removes nothing from a damaged repository, because a repair may need it", err)
		}
		return nil, err
	}
	res := &pruneResult{DryRun: opts.DryRun, PruneReport: report, Waiting: []lockJSON{}, ProtectedDays: a.protectedDays(ctx)}
	for _, l := range report.Waiting {
		res.Waiting = append(res.Waiting, lockToPrint(l))
	}
	return res, nil
}

// pruneLater waits for the locks that a prune has to wait for, as long as --retry-lock
// says. Then it prunes again.
func (a *app) pruneLater(ctx context.Context, r *repo.Repo, opts repo.PruneOptions, first *repo.PruneReport) (*repo.PruneReport, error) {
	gone, err := a.waitForLocks(ctx, r, first.Waiting)
	if err != nil || !gone {
		return first, err
	}
	report, err := r.Prune(ctx, opts)
	if report != nil {
		report.RemovedPacks += first.RemovedPacks
		report.FreedBytes += first.FreedBytes
		report.WrittenBytes += first.WrittenBytes
		report.AbandonedRuns += first.AbandonedRuns
	}
	return report, err
}

// errBlocked says that a prune could free nothing because of a lock.
var errBlocked = errors.New("nothing was freed")

// blocked returns an error if the prune could free nothing because of locks, and may
// never be able to.
func (res *pruneResult) blocked() error {
	if res == nil || !res.Blocked {
		return nil
	}
	l := res.PruneReport.Waiting[0]
	hint := `let the commands that "snap unlock" shows end, then prune again`
	for _, w := range res.PruneReport.Waiting {
		if w.State == repo.LockUnknown || w.State == repo.LockBad {
			l, hint = w, w.Advice()+"; then prune again"
			break
		}
	}
	if res.Snapshots == 0 {
		hint += "; if all snapshots were forgotten, \"snap prune --allow-empty\" then removes the data"
	}
	what := "a damaged lock"
	if l.Kind != "" {
		what = fmt.Sprintf("the lock of %q, process %d on %s", l.What, l.Owner.PID, l.Owner.Host)
	}
	return advised{fmt.Errorf("%w: %s, %s, can be removed only when %s (%s) is gone; the repository is unchanged",
		errBlocked, plural(res.PendingPacks, "pack"), bytesText(res.PendingBytes), what, l.ID.Short()), hint}
}

func (res *pruneResult) print(w io.Writer) {
	fmt.Fprintf(w, "%s are needed by %s", bytesText(res.UsedBytes), plural(res.Snapshots, "snapshot"))
	if res.BaseBytes > 0 {
		fmt.Fprintf(w, ", %s of this only as bases of deltas", bytesText(res.BaseBytes))
	}
	fmt.Fprintln(w)
	if res.DryRun {
		fmt.Fprintf(w, "%s are unused\n", bytesText(res.UnusedBytes))
		fmt.Fprintf(w, "would remove %s, %s\n", plural(res.PacksToRemove, "pack"), bytesText(res.BytesToRemove))
		if res.PacksToRepack > 0 {
			fmt.Fprintf(w, "would repack %s, %s\n", plural(res.PacksToRepack, "pack"), bytesText(res.BytesToRepack))
		}
		fmt.Fprintf(w, "would free about %s\n", bytesText(res.BytesToFree))
		if res.Snapshots == 0 && res.PacksToRemove > 0 {
			fmt.Fprintln(w, "no snapshot is left: only --allow-empty removes all data")
		}
	} else {
		fmt.Fprintf(w, "removed %s, %s", plural(res.RemovedPacks, "pack"), bytesText(res.FreedBytes))
		if res.WrittenBytes > 0 {
			fmt.Fprintf(w, "; repacked what is in use, %s", bytesText(res.WrittenBytes))
		}
		fmt.Fprintln(w)
		switch freed := res.FreedBytes - res.WrittenBytes; {
		case freed >= 0:
			fmt.Fprintf(w, "freed %s\n", bytesText(freed))
		case res.PendingPacks > 0:
			fmt.Fprintf(w, "the repository grew by %s until old packs can be removed\n", bytesText(-freed))
		default:
			fmt.Fprintf(w, "the repository grew by %s, since what is in use compresses less without what was removed\n", bytesText(-freed))
		}
	}
	if res.ProtectedDays > 0 && (res.FreedBytes > 0 || res.DryRun && res.BytesToFree > 0) {
		fmt.Fprintln(w, "the store keeps what is removed, hidden, until its protection ends; \"snap protect\" shows how much that is")
	}
	if res.KeptUnused > 0 && len(res.Waiting) == 0 {
		fmt.Fprintf(w, "%s of unused bytes may remain\n", bytesText(res.KeptUnused))
	}
	if res.AbandonedRuns > 0 {
		fmt.Fprintf(w, "dropped %s that no backup continued\n", plural(res.AbandonedRuns, "unfinished backup"))
	}
	pending := fmt.Sprintf("%s, %s,", plural(res.PendingPacks, "pack"), bytesText(res.PendingBytes))
	switch {
	case res.PendingPacks == 0:
	case len(res.Waiting) > 0 && res.Snapshots == 0:
		fmt.Fprintf(w, "%s stay, since no snapshot is left and these commands may need them; once they have ended, run \"snap prune\", which removes what no snapshot needs; if there is still no snapshot then, run \"snap prune --allow-empty\"\n", pending)
	case len(res.Waiting) > 0:
		fmt.Fprintf(w, "%s will be removed by the next prune, once these commands have ended\n", pending)
	default:
		fmt.Fprintf(w, "%s will be removed by the next prune\n", pending)
	}
	if len(res.Waiting) > 0 {
		printLocks(w, res.Waiting)
	}
}
