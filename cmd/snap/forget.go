package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/snap-backup/snap/config"
	"github.com/snap-backup/snap/internal/words"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/keep"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// policyFlags are the flags for rules that say which snapshots to keep.
type policyFlags struct {
	keep.Policy
	tags []string
}

// keepCount is a flag that takes a number or "unlimited".
type keepCount struct{ n *int }

func (c keepCount) Type() string { return "n" }
func (c keepCount) String() string {
	if c.n == nil || *c.n == 0 {
		return ""
	}
	return fmt.Sprint(*c.n)
}
func (c keepCount) Set(s string) error {
	n, err := strconv.Atoi(s)
	if s == "unlimited" {
		n, err = keep.Unlimited, nil
	}
	if err != nil || n < keep.Unlimited || n == 0 {
		return errors.New(`use a number of at least 1, or "unlimited"`)
	}
	*c.n = n
	return nil
}

// keepDuration is a flag that takes a calendar duration.
type keepDuration struct{ d *keep.Duration }

func (c keepDuration) Type() string { return "duration" }
func (c keepDuration) String() string {
	if c.d == nil || *c.d == (keep.Duration{}) {
		return ""
	}
	return c.d.String()
}
func (c keepDuration) Set(s string) (err error) {
	*c.d, err = keep.ParseDuration(s)
	return err
}

func (p *policyFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.VarP(keepCount{&p.Last}, "keep-last", "l", "keep the last `n` snapshots")
	for _, r := range []struct {
		name, short, period string
		n                   *int
		within              *keep.Duration
	}{
		{"hourly", "H", "hours", &p.Hourly, &p.WithinHourly},
		{"daily", "d", "days", &p.Daily, &p.WithinDaily},
		{"weekly", "w", "weeks", &p.Weekly, &p.WithinWeekly},
		{"monthly", "m", "months", &p.Monthly, &p.WithinMonthly},
		{"yearly", "y", "years", &p.Yearly, &p.WithinYearly},
	} {
		f.VarP(keepCount{r.n}, "keep-"+r.name, r.short, "keep the newest snapshot of each of the last `n` "+r.period+" that have one")
		f.Var(keepDuration{r.within}, "keep-within-"+r.name, "keep the newest snapshot of each of the "+r.period+" within this `duration`")
	}
	f.Var(keepDuration{&p.Within}, "keep-within", "keep snapshots made within this `duration` (1y6m, 30d, 12h) before the newest")
	f.Var(keepCount{&p.Verified}, "keep-verified", "keep the newest `n` snapshots that passed a drill or a full verify")
	f.BoolVar(&p.Arrival, "arrival", false, "believe when snapshots arrived, not what they say of themselves")
	f.StringArrayVar(&p.tags, "keep-tag", nil, "keep snapshots with this `tag` (a,b means both; can be repeated)")
}

func (p *policyFlags) policy() *keep.Policy {
	for _, tags := range p.tags {
		p.Tags = append(p.Tags, strings.Split(tags, ","))
		if strings.Contains(tags, ",") {
			p.Tags = append(p.Tags, []string{tags}) // earlier versions made tags with a comma
		}
	}
	return &p.Policy
}

// forgetResult is the output of forget.
type forgetResult struct {
	DryRun  bool           `json:"dry_run"`
	Devices []forgetDevice `json:"devices"`
	Kept    int            `json:"kept"`
	Removed []repo.FileID  `json:"removed"`         // snapshots that were removed, or would be in a dry run
	Rules   []string       `json:"rules,omitempty"` // of the configuration file, as flags, if it decided
	Prune   *pruneResult   `json:"prune,omitempty"`
}

type forgetDevice struct {
	UDID      string           `json:"udid"`
	Name      string           `json:"device_name"`
	Snapshots []forgetSnapshot `json:"snapshots"`
}

type forgetSnapshot struct {
	ID       repo.FileID `json:"id"`
	ShortID  string      `json:"short_id"`
	Time     time.Time   `json:"time"`
	Complete bool        `json:"complete"`
	Tags     []string    `json:"tags,omitempty"`
	Keep     bool        `json:"keep"`
	Reasons  []string    `json:"reasons"`

	marks string
}

func (a *app) forgetCommand() *cobra.Command {
	f := forget{a: a}
	cmd := &cobra.Command{
		Use:   "forget [SNAPSHOT...]",
		Short: "Remove snapshots, by ID or by a retention policy",
		Long: `Removes the named snapshots or, with --keep-… rules, all snapshots of each
device that no rule keeps. With --device, --since, --until, --tag or --host, the
rules apply to the snapshots that fit, and the others stay. With --keep-none,
--since, --until and --tag remove all snapshots that fit, except pinned ones and
those whose date is wrong. Try it with --dry-run first.

The rules are those of restic: --keep-daily 7 keeps the newest snapshot of each
of the last seven days that have one, in this computer's time zone. If there are
fewer days than that, the oldest snapshot is kept, too. Pinned snapshots (snap
pin) always stay.

Rules with numbers do not count incomplete snapshots. These are removed unless
they are newer than the last complete one, or the device has no complete one. A
snapshot that was complete until the repository lost a part of it is kept if the
rules would keep it as a complete one, and displaces no other snapshot. Complete
snapshots with the same date and size are the same backup, and count as one.

No rule removes the last stored snapshot of a device, or a snapshot whose date
is wrong because a computer's clock was wrong. The latter displaces no other
snapshot.

The last complete snapshot of a device is only removed with --allow-last. So is
the last one that passed a drill or, if there is none, the last one that passed
a full verify.

--arrival is for a repository to which computers may only add, and where one of
them may be in wrong hands. A snapshot counts by the time at which it arrived,
by the store's clock, and of each period the first one stays. So none displaces
one that arrived before it. Snapshots that arrived more than a day before or
after their date stay: imported archives, copies, those whose labels were
changed. Remove them by name. A rule for days, weeks, months, years or a
duration is needed: those for --keep-last and --keep-hourly are soon filled.

Without names, rules and --keep-none, the rules of the configuration file apply,
also to snapshots that --since, --until or --tag choose (snap config show).

"snap prune" frees the space; --prune does this at once.

--unfinished DEVICE removes no snapshot. It drops what the repository keeps of
an interrupted backup of this device, so that the next backup does not continue
it.`,
		Example: "  snap forget 1a2b3c4d\n  snap forget --keep-daily 7 --keep-weekly 5 --keep-monthly 12 --dry-run\n  snap forget --device \"Anna's iPhone\" --keep-within 1y --prune",
		RunE:    func(cmd *cobra.Command, argv []string) error { return f.run(cmd, argv) },
	}
	f.policy.register(cmd)
	f.pruning.register(cmd)
	fl := cmd.Flags()
	f.filter.register(cmd)
	registerDryRun(cmd, &f.dryRun, "only show what would be removed")
	fl.BoolVar(&f.prune, "prune", false, "also free the space, as \"snap prune\" does")
	fl.StringVar(&f.unfinished, "unfinished", "", "instead drop what is kept of an interrupted backup of this `device`")
	fl.BoolVar(&f.keepNone, "keep-none", false, "remove all snapshots that --since, --until and --tag choose")
	fl.BoolVar(&f.allowLast, "allow-last", false, "also remove the last complete snapshot of a device, and the last one that passed a drill or a full verify")
	return cmd
}

// forget is one run of the command.
type forget struct {
	a                        *app
	policy                   policyFlags
	filter                   snapshotFilter
	pruning                  pruneFlags
	dryRun, prune, allowLast bool
	keepNone                 bool     // a person says that no rule applies
	unfinished               string   // a device
	rules                    []string // of the configuration file
}

// fillRules takes the rules of the configuration file if neither rules nor snapshots are
// given, and says so.
func (f *forget) fillRules(cmd *cobra.Command, specs []string) error {
	if _, err := f.a.fill(cmd, "arrival"); err != nil { // also for rules that are given
		return err
	}
	given := len(specs) > 0 || cmd.Flags().Changed("unfinished")
	cmd.Flags().Visit(func(fl *pflag.Flag) { given = given || strings.HasPrefix(fl.Name, "keep-") })
	if given {
		return nil
	}
	for _, key := range config.Keys() {
		if !strings.HasPrefix(key, "keep-") {
			continue
		}
		filled, err := f.a.fill(cmd, key)
		if err != nil {
			return err
		}
		if v, _ := f.a.fromFile(key); filled {
			items := v.List
			if items == nil {
				items = []string{v.Text}
			}
			for _, item := range items {
				f.rules = append(f.rules, "--"+key+" "+item)
			}
		}
	}
	if len(f.rules) > 0 {
		if f.policy.Arrival {
			f.rules = append(f.rules, "--arrival")
		}
		f.a.remark("rules of %s: %s", f.a.settings.profileFile(), strings.Join(f.rules, " "))
	}
	return nil
}

func (f *forget) run(cmd *cobra.Command, specs []string) error {
	ctx, a := cmd.Context(), f.a
	if err := f.fillRules(cmd, specs); err != nil {
		return err
	}
	policy := f.policy.policy()
	if cmd.Flags().Changed("unfinished") {
		if len(specs) > 0 || !policy.Empty() || f.filter.given() || f.prune || f.allowLast {
			return usageError{errors.New("--unfinished DEVICE takes only --dry-run: it removes no snapshots")}
		}
		return a.dropUnfinished(cmd, f.unfinished, f.dryRun)
	}
	switch {
	case len(specs) == 0 && policy.Empty() && !f.filter.given():
		return usageError{errors.New("no snapshots and no rules are given: name snapshots, or say what to keep, as in --keep-daily 7 --keep-monthly 12; the configuration file has no rules for this repository")}
	case len(specs) == 0 && policy.Empty() && !f.filter.narrow():
		return usageError{errors.New("this would be all snapshots of a device or computer: add --since, --until or --tag, or say what to keep, as in --keep-daily 7")}
	case len(specs) == 0 && policy.Empty() && !f.keepNone:
		return usageError{errors.New("no rule says which of these snapshots to keep: add one, such as --keep-last 1, or --keep-none to remove all that fit")}
	case f.keepNone && (!policy.Empty() || len(specs) > 0):
		return usageError{errors.New("--keep-none cannot be combined with rules or names")}
	case len(specs) > 0 && (!policy.Empty() || f.filter.given()):
		return usageError{errors.New("name snapshots, or choose them with rules, --device, --since, --until, --tag or --host, not both")}
	}
	if err := f.checkArrival(cmd, policy); err != nil {
		return err
	}
	if err := f.filter.check(); err != nil {
		return err
	}
	opts, err := f.pruning.options()
	if err != nil {
		return err
	}
	r, err := a.open(ctx)
	if err != nil {
		return err
	}
	kind := repo.LockWrite
	switch {
	case f.dryRun:
		kind = repo.LockRead
	case f.prune:
		kind = repo.LockPrune
	}
	if !f.dryRun {
		if err := a.mayRemove(); err != nil {
			return err
		}
	}
	r.UseReserve()
	if err := a.takeLock(ctx, r, kind, cmd.CommandPath()); err != nil {
		return err
	}
	decided, err := f.decide(ctx, r, specs, policy)
	if err != nil {
		return err
	}
	res := newForgetResult(decided)
	res.DryRun, res.Rules = f.dryRun, f.rules
	if !f.dryRun {
		if err := r.Forget(ctx, res.Removed...); err != nil {
			return err
		}
	}
	if f.prune {
		opts.DryRun, opts.Forget = f.dryRun, res.Removed
		opts.AllowEmpty = len(res.Removed) > 0 // nothing was lost if this has removed the last one
		pruned, err := a.prune(ctx, r, opts)
		if err != nil {
			if !f.dryRun {
				err = fmt.Errorf("%s forgotten; %w", plural(len(res.Removed), "snapshot"), err)
			}
			return err
		}
		res.Prune = pruned
	}
	return errors.Join(a.conclude(res, res.DryRun, func(w io.Writer) { f.print(w, res) }), res.Prune.blocked())
}

// checkArrival returns an error if --arrival would protect nothing.
func (f *forget) checkArrival(cmd *cobra.Command, policy *keep.Policy) error {
	switch {
	case !policy.Arrival || policy.Lasting():
		return nil
	case policy.Empty():
		if !cmd.Flags().Changed("arrival") {
			return nil // the configuration file says so, and a person names snapshots
		}
		return usageError{errors.New("--arrival needs rules, such as --keep-daily 7")}
	}
	return usageError{errors.New("with --arrival, add a rule for days, weeks, months, years or a duration, such as --keep-within 30d: whoever may add snapshots can fill the rules that are given in a few hours")}
}

// arrived returns the snapshots of a repository for --arrival.
func (f *forget) arrived(ctx context.Context, r *repo.Repo) (list []*repo.Snapshot, damaged []error, err error) {
	list, damaged, err = r.ArrivedSnapshots(ctx)
	if err == nil && len(list) > 0 && !slices.ContainsFunc(list, func(s *repo.Snapshot) bool { return !s.Put.IsZero() }) {
		err = advised{errors.New("this store does not tell when files arrived, so --arrival is impossible"),
			"nothing was removed; run this command on the computer that has the files, with -r and their folder"}
	}
	return list, damaged, err
}

// decide returns the snapshots to keep and those to remove. It fails if one of them
// may not be removed.
func (f *forget) decide(ctx context.Context, r *repo.Repo, specs []string, policy *keep.Policy) ([]repo.Retention, error) {
	read := r.Snapshots
	if policy.Arrival && !policy.Empty() {
		read = func(ctx context.Context) ([]*repo.Snapshot, []error, error) { return f.arrived(ctx, r) }
	}
	all, damaged, err := read(ctx)
	if err != nil {
		return nil, err
	}
	for _, err := range damaged {
		f.a.warn("%v", err)
	}
	f.a.warnOfFuture(all)
	certificates, damaged, err := r.Certificates(ctx)
	if err != nil {
		return nil, err
	}
	for _, err := range damaged {
		f.a.warn("%v", err)
	}
	var decided []repo.Retention
	if len(specs) > 0 {
		chosen, err := f.named(ctx, r, all, specs)
		if err != nil {
			return nil, err
		}
		for _, s := range chosen {
			if !slices.Contains(all, s) {
				all = append(all, s) // a device must not lose its last snapshot by this, either
			}
		}
		slices.SortStableFunc(chosen, func(x, y *repo.Snapshot) int { return x.Time.Compare(y.Time) })
		decided = repo.RetainNone(chosen)
	} else {
		chosen, err := f.filter.apply(all)
		if err != nil {
			return nil, err
		}
		if policy.Empty() {
			decided = unlessPinned(chosen)
			return decided, f.mayForget(all, certificates, decided)
		}
		policy.ForgetProven = f.allowLast
		decided = repo.Retain(all, chosen, certificates, policy, f.a.now(), time.Local)
	}
	return decided, f.mayForget(all, certificates, decided)
}

// mayForget returns an error if a snapshot may not be removed.
func (f *forget) mayForget(all []*repo.Snapshot, certificates []*repo.Certificate, decided []repo.Retention) error {
	err := repo.CheckRetention(all, certificates, decided)
	if err != nil && f.allowLast && !errors.Is(err, repo.ErrPinned) {
		return nil
	}
	return err
}

// unlessPinned decides to forget the snapshots, except those that are pinned, and those of
// which nobody knows when they were made.
func unlessPinned(list []*repo.Snapshot) []repo.Retention {
	decided := repo.RetainNone(list)
	for _, r := range decided {
		for i, d := range r.Snapshots {
			switch {
			case d.Snapshot.Pin != nil:
				r.Snapshots[i].Keep, r.Snapshots[i].Reasons = true, []string{"pinned"}
			case d.Snapshot.Misdated:
				r.Snapshots[i].Keep, r.Snapshots[i].Reasons = true, []string{"wrong date"}
			}
		}
	}
	return decided
}

// named finds the snapshots that are named, also those whose records are missing.
func (f *forget) named(ctx context.Context, r *repo.Repo, all []*repo.Snapshot, specs []string) (chosen []*repo.Snapshot, _ error) {
	for _, spec := range f.a.specs(specs) {
		s, err := repo.FindIn(all, spec)
		if errors.Is(err, repo.ErrNoSnapshot) && !strings.HasPrefix(spec, "latest") {
			missing, merr := r.MissingSnapshots(ctx)
			if merr != nil {
				return nil, merr
			}
			if m, merr := repo.FindIn(missing, spec); !errors.Is(merr, repo.ErrNoSnapshot) {
				s, err = m, merr
				if err == nil && m.Pin != nil {
					return nil, advised{fmt.Errorf("snapshot %s of %q: %w; the record of this one is missing", m.ID.Short(), m.Device.Name, repo.ErrPinned),
						fmt.Sprintf(`nothing was forgotten; "snap repair snapshots" stores the record again; then "snap unpin %s" removes the pin, and "snap forget %s" forgets the snapshot`, m.ID.Short(), m.ID.Short())}
				}
			}
		}
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(chosen, func(o *repo.Snapshot) bool { return o.ID == s.ID }) {
			chosen = append(chosen, s)
		}
	}
	return chosen, nil
}

func newForgetResult(decided []repo.Retention) *forgetResult {
	res := &forgetResult{Devices: []forgetDevice{}, Removed: []repo.FileID{}}
	for _, s := range repo.Forgotten(decided) {
		res.Removed = append(res.Removed, s.ID)
	}
	for _, d := range decided {
		out := forgetDevice{UDID: d.UDID, Name: d.Device}
		for _, x := range d.Snapshots {
			s := x.Snapshot
			out.Snapshots = append(out.Snapshots, forgetSnapshot{
				ID: s.ID, ShortID: s.ID.Short(), Time: s.Time, Complete: s.Complete, Tags: s.Tags,
				Keep: x.Keep, Reasons: append([]string{}, x.Reasons...), marks: marks(s),
			})
			if x.Keep {
				res.Kept++
			}
		}
		res.Devices = append(res.Devices, out)
	}
	slices.SortStableFunc(res.Devices, func(a, b forgetDevice) int { return words.Compare(a.Name, b.Name) })
	return res
}

func (f *forget) print(w io.Writer, res *forgetResult) {
	for _, d := range res.Devices {
		fmt.Fprintf(w, "%s (%s)\n", clean(d.Name), clean(d.UDID))
		var rows []string
		for _, s := range d.Snapshots {
			what := "remove"
			if s.Keep {
				what = "keep"
			}
			rows = append(rows, fmt.Sprintf("  %s\t%s\t%s\t%s\t%s\t%s", s.ShortID, timeText(s.Time), s.marks,
				clean(strings.Join(s.Tags, ",")), what, clean(strings.Join(s.Reasons, "; "))))
		}
		table(w, "  ID\tDATE\tFLAGS\t+TAGS\tACTION\t+WHY", rows)
		fmt.Fprintln(w)
	}
	verb, kept, snapshots := "removed", "kept", plural(len(res.Removed), "snapshot")
	if res.DryRun {
		verb, kept = "would remove", "keep"
	}
	fmt.Fprintf(w, "%s %s", verb, snapshots)
	if !f.policy.Empty() || res.Kept > 0 {
		fmt.Fprintf(w, ", %s %s", kept, count(int64(res.Kept)))
	}
	fmt.Fprintln(w)
	switch {
	case res.Prune != nil:
		res.Prune.print(w)
	case !res.DryRun && len(res.Removed) > 0:
		f.a.remark("\"snap prune\" frees their space")
	}
}
