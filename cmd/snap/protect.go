package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/protect"
	"github.com/spf13/cobra"
)

// protectFlags say how long a store is to protect files.
type protectFlags struct{ lock, mode string }

func (p *protectFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&p.lock, "lock", "", "let the object store protect each file for this `time`, such as 30d")
	f.StringVar(&p.mode, "lock-mode", "", "with --lock: `mode` of the protection, governance or compliance (default: that of the store, or else governance)")
}

// protection returns what the flags say; zero if they say nothing.
func (p *protectFlags) protection() (backend.Protection, error) {
	var out backend.Protection
	if p.lock == "" {
		if p.mode != "" {
			return out, usageError{errors.New("--lock-mode needs --lock")}
		}
		return out, nil
	}
	var err error
	if out.Period, err = parsePeriod(p.lock); err != nil {
		return out, usageError{fmt.Errorf("--lock: %w", err)}
	}
	switch p.mode {
	case "", "governance":
	case "compliance":
		out.Compliance = true
	default:
		return out, usageError{fmt.Errorf("--lock-mode: want governance or compliance, not %q", p.mode)}
	}
	return out, nil
}

// parsePeriod parses a number of days, such as 30d, or of hours, such as 36h.
func parsePeriod(s string) (time.Duration, error) {
	unit := 24 * time.Hour
	number, ok := strings.CutSuffix(s, "d")
	if !ok {
		unit = time.Hour
		number, ok = strings.CutSuffix(s, "h")
	}
	n, err := strconv.ParseUint(number, 10, 32)
	// Stores refuse more than a hundred years.
	if !ok || err != nil || n == 0 || n > uint64(math.Floor(36500*24*float64(time.Hour)/float64(unit))) {
		return 0, fmt.Errorf("%q is not a time such as 30d or 36h", s)
	}
	return time.Duration(n) * unit, nil
}

// periodText is a period for people.
func periodText(d time.Duration) string {
	if d%(24*time.Hour) == 0 {
		return plural(int64(d/(24*time.Hour)), "day")
	}
	if d%time.Hour == 0 {
		return plural(int64(d/time.Hour), "hour")
	}
	return d.String()
}

// errNoProtection says that a store cannot protect files.
var errNoProtection = errors.New("only an object store (s3:) can protect files")

// protectorOf returns a store as one that can protect files.
func protectorOf(be backend.Backend) (backend.Protector, error) {
	p, ok := be.(backend.Protector)
	if !ok {
		return nil, errNoProtection
	}
	return p, nil
}

// setProtection lets the store of a new repository protect its files.
func setProtection(ctx context.Context, be backend.Backend, p backend.Protection) error {
	if p.Period == 0 {
		return nil
	}
	s, err := protectorOf(be)
	if err == nil {
		err = s.SetProtection(ctx, p)
	}
	return orNoProtection(err)
}

// protectedDays returns for how long the store of the repository protects files; 0 if it does
// not, or does not tell.
func (a *app) protectedDays(ctx context.Context) float64 {
	s, err := protectorOf(a.store)
	if err != nil {
		return 0
	}
	p, err := s.Protection(ctx)
	if err != nil {
		return 0 // a note for people; the prune itself has succeeded
	}
	return p.Period.Hours() / 24
}

func orNoProtection(err error) error {
	if errors.Is(err, errors.ErrUnsupported) {
		return errNoProtection
	}
	return err
}

// protectRequests is the number of requests that wait for their turn. The connections of the
// store limit how many are sent.
const protectRequests = 64

func (a *app) protectCommand() *cobra.Command {
	var flags protectFlags
	var restore string
	opts := protect.Options{Parallel: protectRequests}
	cmd := &cobra.Command{
		Use:   "protect",
		Short: "Keep anybody from removing the past in an object store",
		Long: `Extends the protection of all files in an object store with Object Lock to the
time from now that "snap init --lock 30d" has set. Until it ends, nobody can
remove them for good. Run "snap protect --lock 30d" daily on a second computer.
It needs no password, but more rights in the store than computers that back up.
--lock sets the time, also for a repository that had none, and if somebody has
removed the note of it.

Whoever may put or delete files can hide them and put others in their place. The
good ones are then hidden versions, which stay until their protection ends.
"snap protect" shows when files were hidden. --restore-hidden TIME brings back
all files as they were at that time, and removes nothing. Then run "snap check".

What prune removes is hidden, too, and takes room until its protection has ended
and a lifecycle rule of the bucket has removed it.

Protected are keys, config, packs, index, snapshots, kept backup passwords,
certificates and the ledger. With the mode "governance", an access key with a
special right can end the protection; with "compliance" nobody can, until the
time is over.`,
		Example: "  snap protect --lock 30d\n  snap protect --dry-run\n  snap protect --restore-hidden \"2026-01-31 15:04\"",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if opts.Protection, err = flags.protection(); err != nil {
				return err
			}
			opts.KeepMode = flags.mode == ""
			var at time.Time
			if cmd.Flags().Changed("restore-hidden") {
				if at, err = parseMoment(restore); err != nil {
					return err
				}
			}
			return a.protect(cmd.Context(), at, opts)
		},
	}
	flags.register(cmd)
	cmd.Flags().StringVar(&restore, "restore-hidden", "", "bring back all files as they were at this `time`")
	cmd.Flags().BoolVarP(&opts.DryRun, "dry-run", "n", false, "only show what would be done")
	return cmd
}

// parseMoment parses a local time. A day, minute or second means its beginning.
func parseMoment(s string) (time.Time, error) {
	from, _, err := parseTime(s)
	if err == nil && from.IsZero() {
		err = usageError{errors.New("--restore-hidden needs a time such as \"2026-01-31 15:04\"")}
	}
	return from, err
}

// protectResult is the output of protect.
type protectResult struct {
	DryRun   bool                   `json:"dry_run"`
	Days     float64                `json:"days"`
	Mode     string                 `json:"mode"`
	Restored *protect.RestoreReport `json:"restored,omitempty"`
	*protect.Report
}

func (a *app) protect(ctx context.Context, at time.Time, opts protect.Options) error {
	dir, err := a.location()
	if err != nil {
		return err
	}
	be, err := a.openFolder(ctx, dir)
	if err != nil {
		return openError(dir, err)
	}
	defer be.Close()
	s, err := protectorOf(be)
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	res := &protectResult{DryRun: opts.DryRun}
	if !at.IsZero() {
		stop := a.showProtect("bringing files back", &opts)
		res.Restored, err = protect.Restore(ctx, s, at, opts)
		stop()
		if err != nil {
			return fmt.Errorf("%s: %w", dir, orNoProtection(err))
		}
	}
	stop := a.showProtect("protecting files", &opts)
	res.Report, err = protect.Run(ctx, s, opts)
	stop()
	if err != nil {
		return fmt.Errorf("%s: %w", dir, orNoProtection(err))
	}
	res.Set = res.Set || res.Restored != nil && res.Restored.Set
	res.Days = res.Protection.Period.Hours() / 24
	if res.Mode = "governance"; res.Protection.Compliance {
		res.Mode = "compliance"
	}
	tampered := res.Tampered()
	if res.Restored != nil && len(res.Restored.Lost) > 0 {
		tampered = advised{fmt.Errorf("%w: of %s no good version is left (%d such files in all)", protect.ErrTampered, res.Restored.Lost[0], len(res.Restored.Lost)),
			`"snap check" shows what is affected; "snap repair --from COPY" takes the files from a copy`}
	}
	needed := opts.DryRun || res.Restored != nil || tampered != nil || res.Set || res.Unprotected.Files > 0
	return errors.Join(a.conclude(res, needed, func(w io.Writer) { res.print(w) }), tampered)
}

// showProtect shows the progress of a run with these options.
func (a *app) showProtect(phase string, opts *protect.Options) (stop func()) {
	var done, total atomic.Int64
	opts.Progress = func(d, t int) { done.Store(int64(d)); total.Store(int64(t)) }
	return a.showProgress(func() meter { return meter{phase: phase, files: done.Load(), totalFiles: total.Load()} })
}

func countText(c protect.Count) string {
	return plural(c.Files, "file") + ", " + bytesText(c.Bytes)
}

func (res *protectResult) print(w io.Writer) {
	would := func(did, would string) string {
		if res.DryRun {
			return would
		}
		return did
	}
	if r := res.Restored; r != nil {
		fmt.Fprintf(w, "%s %s\n", would("brought back", "would bring back"), countText(r.BroughtBack))
		for _, name := range r.Lost {
			fmt.Fprintf(w, "%s  %s: no good version of it is left\n", paint(w, bad, "LOST"), name)
		}
		if r.BroughtBack.Files > 0 && !res.DryRun {
			fmt.Fprintln(w, `run "snap check --read-data" now`)
		}
	}
	if res.Set {
		fmt.Fprintf(w, "files that are put from now on %s protected for %s (%s)\n", would("are", "would be"), periodText(res.Protection.Period), res.Mode)
	}
	fmt.Fprintf(w, "%s %s protected for %s from now\n", countText(res.Protected), would("are", "would be"), periodText(res.Protection.Period))
	fmt.Fprintf(w, "%s extended for %s\n", would("the protection was", "the protection would be"), countText(res.Extended))
	if res.Unprotected.Files > 0 {
		fmt.Fprintf(w, "%s had none\n", countText(res.Unprotected))
	}
	if !res.First.IsZero() && res.Extended.Files > 0 {
		fmt.Fprintf(w, "the first one %s ended on %s\n", would("would have", "would have"), timeText(res.First))
	}
	if res.Hidden.Files > 0 {
		fmt.Fprintf(w, "the store also keeps hidden versions: %s\n", countText(res.Hidden))
	}
	for _, name := range res.Replaced {
		fmt.Fprintf(w, "%s  %s\n", paint(w, bad, "REPLACED"), name)
	}
	for _, name := range res.Missing {
		fmt.Fprintf(w, "%s  %s\n", paint(w, bad, "HIDDEN"), name)
	}
	if len(res.Removals) > 0 {
		fmt.Fprintln(w, "files were hidden, by forget, prune and merges, or by somebody else:")
		var rows []string
		for _, r := range res.Removals[max(0, len(res.Removals)-20):] {
			rows = append(rows, strings.Join([]string{
				r.From.Local().Format(time.DateTime), r.To.Local().Format(time.DateTime),
				strconv.Itoa(r.Files), bytesText(r.Bytes), strconv.Itoa(r.Snapshots),
			}, "\t"))
		}
		table(w, "FROM\tTO\tFILES\tSIZE\tSNAPSHOTS", rows)
	}
}
