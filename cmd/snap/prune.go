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
}

func (a *app) pruneCommand() *cobra.Command {
	var flags pruneFlags
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove data that no snapshot needs",
		Long: `Removes what no snapshot and no unfinished backup needs. First it removes packs that
are not in use at all, so that a full disk has room again. Then it repacks packs
with many unused bytes until at most --max-unused of them remain.

Backups can run at the same time. A prune keeps what running commands may need; a
later prune removes it. A prune can be interrupted at any time.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			opts, err := flags.options()
			if err != nil {
				return err
			}
			opts.DryRun = dryRun
			kind := repo.LockPrune
			if dryRun {
				kind = repo.LockRead
			}
			r, err := a.open(ctx)
			if err != nil {
				return err
			}
			r.UseReserve()
			if err := a.takeLock(ctx, r, kind, cmd.CommandPath()); err != nil {
				return err
			}
			res, err := a.prune(ctx, r, opts)
			if err != nil {
				return err
			}
			return a.print(res, func(w io.Writer) { res.print(w) })
		},
	}
	flags.register(cmd)
	cmd.Flags().BoolVarP(&dryRun, "dry-run", "n", false, "only show what would be freed")
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
	res := &pruneResult{DryRun: opts.DryRun, PruneReport: report, Waiting: []lockJSON{}}
	for _, l := range report.Waiting {
		res.Waiting = append(res.Waiting, lockToPrint(l))
	}
	return res, nil
}

func (res *pruneResult) print(w io.Writer) {
	fmt.Fprintf(w, "%s are needed by %s", bytesText(res.UsedBytes), plural(res.Snapshots, "snapshot"))
	if res.BaseBytes > 0 {
		fmt.Fprintf(w, ", %s of this only as bases of deltas", bytesText(res.BaseBytes))
	}
	fmt.Fprintln(w)
	if res.DryRun {
		fmt.Fprintf(w, "%s are unused\n", bytesText(res.UnusedBytes))
		fmt.Fprintf(w, "would remove %s, %s\n", plural(res.RemovePacks, "pack"), bytesText(res.RemoveBytes))
		if res.RepackPacks > 0 {
			fmt.Fprintf(w, "would repack %s, %s\n", plural(res.RepackPacks, "pack"), bytesText(res.RepackBytes))
		}
		fmt.Fprintf(w, "would free about %s\n", bytesText(res.FreeBytes))
	} else {
		fmt.Fprintf(w, "removed %s, %s", plural(res.RemovedPacks, "pack"), bytesText(res.FreedBytes))
		if res.WrittenBytes > 0 {
			fmt.Fprintf(w, "; repacked what is in use, %s", bytesText(res.WrittenBytes))
		}
		fmt.Fprintf(w, "\nfreed %s\n", bytesText(res.FreedBytes-res.WrittenBytes))
	}
	if res.KeptUnused > 0 && len(res.Waiting) == 0 {
		fmt.Fprintf(w, "%s of unused bytes may remain\n", bytesText(res.KeptUnused))
	}
	if res.AbandonedRuns > 0 {
		fmt.Fprintf(w, "dropped %s that no backup continued\n", plural(res.AbandonedRuns, "unfinished backup"))
	}
	if res.PendingPacks > 0 {
		fmt.Fprintf(w, "%s, %s, will be removed by the next prune", plural(res.PendingPacks, "pack"), bytesText(res.PendingBytes))
		if len(res.Waiting) > 0 {
			fmt.Fprint(w, ", once these commands have ended")
		}
		fmt.Fprintln(w)
	}
	if len(res.Waiting) > 0 {
		printLocks(w, res.Waiting)
	}
}
