package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/mirror"
	"github.com/spf13/cobra"
)

var (
	// errOutOfDate says that a mirror is undamaged but differs from its source.
	errOutOfDate = errors.New("the mirror is not up to date")
	// errUnjudged says that no mirror run has had the password yet.
	errUnjudged = errors.New("everything was copied, but no run has had the password yet, so it is unknown whether the repository is complete and whether anybody can open the mirror")
)

func (a *app) mirrorCommand() *cobra.Command {
	var opts mirror.Options
	var check, ask bool
	cmd := &cobra.Command{
		Use:   "mirror [TARGET]",
		Short: "Keep an exact copy of the repository on another disk",
		Long: `Makes the folder TARGET, on an external drive or a NAS, an exact copy of the
repository, with the same keys and snapshots. Only new files are copied and
verified. If the drive is unplugged, the same command continues later, and all
snapshots listed in the mirror are complete. The mirror is an ordinary
repository: "snap -r TARGET materialize ..." works.

snap does not ask for a password, unless you use --ask-password. If you give a
password (at the prompt, by another flag or by an environment variable), snap
opens every new file before it copies it, copies exactly the snapshots that are
complete, and names the others. A concurrent prune keeps what is still to be
copied. Without a password snap sees only names, so it cannot judge whether the
repository is complete or was tampered with. Give the password at least for the
first run: until a run has had it, mirror exits with 1.

Files that the repository no longer has stay on the mirror for a while, since
they may be the last good ones. The second run with the password removes them,
after it has proven that all snapshots on the mirror stay complete without them.
Without the password, files are removed after 14 more runs; keys that were
removed from the repository stay on the mirror. If a recovery key, several keys,
or all keys but one are gone, mirror refuses to run.

Without TARGET, the mirrors in the configuration file are updated, each if it is
mounted. The first time, name the folder.

mirror refuses to run if the repository seems to have lost files, if it has
other files instead of them, or if snapshots were stored into the mirror. Use
--accept-removals only if you made all of these changes yourself. With the
password, this flag removes from the mirror at once what the repository no
longer has.

--check reads the complete mirror and verifies that no file is damaged and that
the repository has the same files. With the password it also verifies that every
file opens and every snapshot is complete. --check --heal replaces damaged
files.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, argv []string) error {
			if check && (opts.DryRun || opts.AcceptRemovals) || opts.Heal && !check {
				return usageError{errors.New("--heal needs --check; --dry-run and --accept-removals exclude --check")}
			}
			if len(argv) == 1 {
				return a.mirror(cmd, argv[0], opts, check, ask)
			}
			return a.eachTarget("mirrors", "TARGET", func(folder string) error { return a.mirror(cmd, folder, opts, check, ask) })
		},
	}
	cmd.Flags().BoolVar(&opts.AcceptRemovals, "accept-removals", false, "follow the repository even if it seems to have lost files")
	cmd.Flags().BoolVarP(&opts.DryRun, "dry-run", "n", false, "only show what would be done")
	cmd.Flags().BoolVar(&ask, "ask-password", false, "ask for the password if none is given")
	cmd.Flags().BoolVar(&check, "check", false, "read the mirror and compare it with the repository")
	cmd.Flags().BoolVar(&opts.Heal, "heal", false, "with --check: replace damaged files of the mirror")
	return cmd
}

// mirror updates or checks the mirror in a folder.
func (a *app) mirror(cmd *cobra.Command, folder string, opts mirror.Options, check, ask bool) error {
	ctx := cmd.Context()
	dir, err := a.location()
	if err != nil {
		return err
	}
	source, err := a.openFolder(ctx, dir)
	if err != nil {
		return openError(dir, err)
	}
	defer source.Close()
	if err := checkApart(dir, folder); err != nil {
		return err
	}
	if opts.Judge, err = a.openIfPassword(ctx, source, dir, cmd.CommandPath(), ask); err != nil {
		return err
	}
	defer a.releaseLock() // before the source is closed
	if opts.Judge == nil {
		if err := checkUsable(ctx, source); err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
	}
	target, done, err := a.mirrorTarget(ctx, source, folder, opts.DryRun || check)
	if err != nil {
		return err
	}
	defer done()
	if !opts.DryRun && (!check || opts.Heal) && backend.IsAppendOnly(target) {
		return advised{fmt.Errorf("%s: nothing was copied, since a mirror also removes files: %w", folder, backend.ErrAppendOnly),
			"make a repository there and use \"snap copy\"; or run \"snap mirror\" as a user who may remove files"}
	}
	phase := "copying"
	if check {
		phase = "reading the mirror"
	}
	stop := a.showMirror(phase, &opts)
	defer stop()
	if check {
		rep, err := mirror.Check(ctx, source, target, opts)
		stop()
		if err != nil {
			return fmt.Errorf("%s: %w", folder, err)
		}
		return a.mirrorChecked(folder, rep)
	}
	rep, err := mirror.Run(ctx, source, target, opts)
	stop()
	if err != nil && !errors.Is(err, mirror.ErrDamaged) {
		return fmt.Errorf("%s: %w", folder, err)
	}
	needed := rep.DryRun || err != nil || rep.Kept != "" || len(rep.Removed)+len(rep.Leaving)+len(rep.LeavingOther)+len(rep.Better) > 0
	result := struct {
		Target string `json:"target"`
		*mirror.Report
	}{folder, rep}
	if perr := a.conclude(result, needed, func(w io.Writer) { printMirror(w, rep) }); perr != nil {
		return perr
	}
	for _, name := range rep.Foreign {
		a.warn(`%s is no copy of the config of this repository, and was not copied: perhaps another repository has left it; "snap repair config" asks for the password and removes it`, name)
	}
	if rep.OldKeys > 0 && !rep.Judged {
		a.warn("%s that the repository no longer has can still open the mirror; a run with the password removes from the mirror the keys that were removed from the repository", plural(rep.OldKeys, "key"))
	}
	if err == nil && rep.Unjudged {
		return errUnjudged
	}
	return err
}

// checkUsable fails if there is no repository, or if this program is too old for it. It
// accepts a damaged config that has a good copy.
func checkUsable(ctx context.Context, be backend.Backend) error {
	err := repo.CheckConfig(ctx, be)
	if !errors.Is(err, repo.ErrDamaged) {
		return err
	}
	if j, failed := repo.JudgeConfig(ctx, be); failed != nil || j.State != repo.ConfigDamaged {
		return errors.Join(err, failed)
	}
	return nil
}

// warnOfMirror warns whoever stores into a mirror. It may be all that is left of a
// repository, so this is no error.
func (a *app) warnOfMirror(ctx context.Context, be backend.Backend) {
	if is, err := mirror.IsMirror(ctx, be); err == nil && is {
		a.warn(`this is a mirror of another repository. The next "snap mirror" to it will refuse to run until the other repository has the snapshots that you store here, too: run "snap repair --from MIRROR --missing-snapshots" on that repository. To use this mirror as the repository from now on, remove the folder "mirrored" in it, which holds only notes`)
	}
}

// showMirror shows the progress of a mirror.
func (a *app) showMirror(phase string, opts *mirror.Options) (stop func()) {
	var mu sync.Mutex
	var at mirror.Progress
	opts.Progress = func(p mirror.Progress) { mu.Lock(); at = p; mu.Unlock() }
	return a.showProgress(func() meter {
		mu.Lock()
		defer mu.Unlock()
		return meter{phase: phase, files: at.Files, totalFiles: at.TotalFiles, bytes: at.Bytes, totalBytes: at.TotalBytes}
	})
}

// checkApart rejects a target that contains the repository or is in it.
func checkApart(dir, target string) error {
	if isAddress(dir) || isAddress(target) {
		if isAddress(dir) && isAddress(target) && overlapping(dir, target) {
			return usageError{fmt.Errorf("%s and %s overlap: they are the same, or one contains the other; choose another target", dir, target)}
		}
		return nil
	}
	resolve := func(p string) string {
		abs, err := filepath.Abs(p)
		if err != nil {
			return filepath.Clean(p)
		}
		if real, err := filepath.EvalSymlinks(abs); err == nil {
			return real
		}
		if real, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
			return filepath.Join(real, filepath.Base(abs))
		}
		return abs
	}
	from, to := resolve(dir), resolve(target)
	within := func(inner, outer string) bool {
		rel, err := filepath.Rel(outer, inner)
		return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
	}
	a, errA := os.Stat(from)
	b, errB := os.Stat(to)
	if within(to, from) || within(from, to) || errA == nil && errB == nil && os.SameFile(a, b) {
		return usageError{fmt.Errorf("%s and %s overlap: one contains the other; choose a folder on another disk", dir, target)}
	}
	return nil
}

// If a password is given, openIfPassword opens the repository, locks it for reading,
// and returns a judge that has its keys. Otherwise it returns nil. ask says to ask for a
// password if none is given.
func (a *app) openIfPassword(ctx context.Context, be backend.Backend, dir, what string, ask bool) (mirror.Judge, error) {
	secret, err := a.givenSecret(ctx)
	if err == nil && !secret.given() {
		secret, err = a.rememberedSecret(ctx, be)
		if err != nil && ctx.Err() == nil {
			a.warn("%v", err)
			err = nil
		}
	}
	if err != nil || !secret.given() && !ask {
		return nil, err
	}
	given := func(context.Context) (secrets, error) { return secret, nil }
	r, err := a.unlock(ctx, be, opening{dir: dir, ways: repoPassword, given: given})
	if err != nil {
		return nil, err
	}
	if err := a.takeLock(ctx, r, repo.LockRead, what); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return r.MirrorJudge(), nil
}

// mirrorTarget opens the folder of a mirror or creates it. With readOnly it creates
// nothing.
func (a *app) mirrorTarget(ctx context.Context, source backend.Backend, dir string, readOnly bool) (backend.Backend, func(), error) {
	nothing := func() {}
	if _, err := os.Stat(dir); !isAddress(dir) && errors.Is(err, os.ErrNotExist) && readOnly {
		if _, err := os.Stat(filepath.Dir(dir)); err != nil {
			return nil, nothing, fmt.Errorf("%s: %w (connect the disk or the share first)", dir, err)
		}
		return memory.New(), nothing, nil
	}
	created := true
	var be storage
	var err error
	if readOnly {
		be, err = a.openFolder(ctx, dir)
	} else {
		be, err = a.createFolder(ctx, dir)
		if errors.Is(err, backend.ErrExist) {
			created = false
			be, err = a.openFolder(ctx, dir)
		}
	}
	if err != nil {
		return nil, nothing, err
	}
	done := func() { _ = be.Close() }
	if created || readOnly {
		return be, done, nil
	}
	_, err = be.Stat(ctx, "config")
	if errors.Is(err, backend.ErrNotExist) {
		var shares bool
		if shares, err = mirror.Shares(ctx, source, be); err == nil && !shares {
			err = &mirror.RefusedError{Why: dir + " is not empty and not a mirror of this repository", Do: "choose a new or empty folder"}
		}
	}
	if err != nil {
		done()
		return nil, nothing, err
	}
	// Remove files that were still incomplete when the drive was unplugged. It does
	// no harm if this fails.
	_, _ = be.RemoveStale(ctx, staleAfter)
	return be, done, nil
}

func printMirror(w io.Writer, r *mirror.Report) {
	for _, d := range r.Damaged {
		fmt.Fprintf(w, "%s  %s: %s\n", paint(w, bad, "DAMAGED"), d.File, clean(d.Text))
	}
	if r.Aside != "" {
		fmt.Fprintf(w, "MOVED    a folder, a link or something else had the name of a file on the mirror: it is now %s\n", r.Aside)
	}
	copied, removed := "copied", "removed"
	if r.DryRun {
		copied, removed = "would copy", "would remove"
	}
	switch {
	case r.CopiedFiles+r.RemovedFiles == 0 && len(r.Damaged) == 0:
		fmt.Fprint(w, "nothing to do")
	default:
		fmt.Fprintf(w, "%s %s, %s", copied, plural(r.CopiedFiles, "file"), bytesText(r.CopiedBytes))
		if r.RemovedFiles > 0 {
			fmt.Fprintf(w, "; %s %s, %s", removed, plural(r.RemovedFiles, "file"), bytesText(r.RemovedBytes))
		}
	}
	fmt.Fprintf(w, "\n%s in %s, %s\n", plural(r.Snapshots, "snapshot"), plural(r.Files, "file"), bytesText(r.Bytes))
	printKept(w, r)
}

// printKept says what a mirror has beyond its repository.
func printKept(w io.Writer, r *mirror.Report) {
	left := "it has left the mirror"
	if r.DryRun {
		left = "it would leave the mirror now"
	}
	for _, text := range r.Removed {
		fmt.Fprintf(w, "REMOVED  %s: the repository has it no longer; %s\n", clean(text), left)
	}
	for _, text := range r.Leaving {
		fmt.Fprintf(w, "REMOVED  snapshot %s: the repository has it no longer; it leaves the mirror in the next run with the password\n", clean(text))
	}
	for _, text := range r.LeavingOther {
		fmt.Fprintf(w, "REMOVED  %s: the repository has it no longer; it leaves the mirror in the next run with the password\n", clean(text))
	}
	if len(r.Leaving) > 0 {
		fmt.Fprintln(w, `if you have not forgotten these snapshots, get them back now: "snap repair --from TARGET --missing-snapshots"`)
	}
	for _, text := range r.Better {
		fmt.Fprintf(w, "KEPT     snapshot %s; \"snap repair --from TARGET\" gets them back\n", clean(text))
	}
	switch {
	case r.KeptFiles > 0 && len(r.Better) > 0:
		fmt.Fprintf(w, "no longer in the repository: %s, %s; the mirror keeps them until the repository has these snapshots again\n", plural(r.KeptFiles, "file"), bytesText(r.KeptBytes))
	case r.KeptFiles > 0 && r.Judged:
		fmt.Fprintf(w, "no longer in the repository: %s, %s; the mirror keeps them until the next run with the password\n", plural(r.KeptFiles, "file"), bytesText(r.KeptBytes))
	case r.KeptFiles > 0:
		fmt.Fprintf(w, "no longer in the repository: %s, %s; the mirror keeps them, and removes the first of them after %s, or as soon as a run has the password\n", plural(r.KeptFiles, "file"), bytesText(r.KeptBytes), plural(int64(r.KeptRuns), "more run"))
	}
	if r.Kept != "" {
		fmt.Fprintln(w, r.Kept)
	}
	if !r.Judged {
		fmt.Fprintln(w, "not judged, since no password was given: snap cannot tell whether the repository is complete and whether anybody can open it")
	}
}

// namedMissing is the largest number of missing files to print. A mirror that is out
// of date may lack thousands.
const namedMissing = 10

// mirrorChecked prints the report of a check and returns its outcome as an error.
func (a *app) mirrorChecked(folder string, r *mirror.CheckReport) error {
	result := struct {
		Target string `json:"target"`
		*mirror.CheckReport
		Clean bool `json:"clean"`
		Same  bool `json:"same"`
	}{folder, r, r.Clean(), r.Same()}
	err := a.conclude(result, !r.Clean() || !r.Same() || len(r.SourceDamaged) > 0, func(w io.Writer) {
		for _, d := range r.Damaged {
			fmt.Fprintf(w, "%s  %s: %s\n", paint(w, bad, "DAMAGED"), d.File, clean(d.Text))
		}
		for _, name := range r.Healed {
			fmt.Fprintf(w, "HEALED   %s\n", name)
		}
		for i, name := range r.Missing {
			if i == namedMissing {
				fmt.Fprintf(w, "MISSING  %d more\n", len(r.Missing)-i)
				break
			}
			fmt.Fprintf(w, "%s  %s\n", paint(w, bad, "MISSING"), name)
		}
		for i, name := range r.Extra {
			if i == namedMissing {
				fmt.Fprintf(w, "EXTRA    %d more\n", len(r.Extra)-i)
				break
			}
			fmt.Fprintf(w, "EXTRA    %s\n", name)
		}
		for _, d := range r.SourceDamaged {
			fmt.Fprintf(w, "SOURCE   %s: damaged in the repository: %s\n", d.File, clean(d.Text))
		}
		fmt.Fprintf(w, "%s read, %s; damaged: %d, missing: %d, only on the mirror: %d\n", plural(r.Files, "file"), bytesText(r.Bytes), len(r.Damaged), len(r.Missing), len(r.Extra))
		if r.Kept+r.OldKeys > 0 {
			fmt.Fprintf(w, "no longer in the repository: %s and %s; the mirror keeps them for now\n", plural(r.Kept, "file"), plural(r.OldKeys, "key"))
		}
		switch {
		case r.Judged && r.Clean():
			fmt.Fprintln(w, paint(w, good, "the mirror is sound")+": every file opens, and every snapshot is complete")
		case r.Clean() && r.Same():
			fmt.Fprintln(w, "the mirror has all files of the repository, and each has the hash that is its name; whether anybody can open them is not known, since no password was given")
		}
	})
	switch {
	case err != nil:
		return err
	case !r.Clean():
		return fmt.Errorf("%w on the mirror: %d", mirror.ErrDamaged, len(r.Damaged))
	case len(r.SourceDamaged) > 0:
		return fmt.Errorf("%w in the repository, not on the mirror: %d", mirror.ErrDamaged, len(r.SourceDamaged))
	case len(r.Extra) > 0:
		err := fmt.Errorf("%w: %s missing, %s only on the mirror", errOutOfDate, plural(len(r.Missing), "file"), plural(len(r.Extra), "file"))
		return advised{err, `either the repository has removed these files, or it has lost them and the mirror has the last good copy; "snap check" of the repository says whether it lacks anything: if so, "snap repair --from TARGET" gets it back; if not, "snap mirror TARGET" updates the mirror`}
	case !r.Same():
		return fmt.Errorf("%w: %s missing", errOutOfDate, plural(len(r.Missing), "file"))
	}
	return nil
}
