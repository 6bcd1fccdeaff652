package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/snap-backup/snap/repo"
	"github.com/spf13/cobra"
)

// copyTarget names the repository to copy to, and says where its secret comes from.
type copyTarget struct {
	dir, passwordFile, passwordCommand, keyFile string
}

func (t *copyTarget) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&t.dir, "to", "", "repository `folder` to copy to (or $SNAP_TO_REPOSITORY)")
	f.StringVar(&t.passwordFile, "to-password-file", "", "read that repository's password from the first line of this `file`")
	f.StringVar(&t.passwordCommand, "to-password-command", "", "read that repository's password from the output of this shell `command`")
	f.StringVar(&t.keyFile, "to-key-file", "", "open that repository with a key `file` instead of a password")
	cmd.MarkFlagsMutuallyExclusive("to-password-file", "to-password-command", "to-key-file")
}

// secret returns the secrets that may open the target, from flags, SNAP_TO_PASSWORD or
// a prompt.
func (t *copyTarget) secret(ctx context.Context, a *app) (secrets, error) {
	var pw *typed
	var err error
	switch {
	case t.keyFile != "":
		return a.keyFileSecret(t.keyFile)
	case t.passwordFile != "":
		pw, err = a.readPasswordFile(t.passwordFile)
	case t.passwordCommand != "":
		pw, err = a.runCommand(ctx, t.passwordCommand)
	default:
		pw, err = fromVariable("SNAP_TO_PASSWORD")
	}
	if err != nil || pw == nil {
		return secrets{}, err
	}
	defer pw.clear()
	return pw.secrets()
}

// advise names --to if there is no repository.
func (t *copyTarget) advise(err error) error {
	if errors.Is(err, repo.ErrNotFound) && !isA[advised](err) {
		return advised{err, fmt.Sprintf("check --to, or create that repository with \"snap init -r %s\"", t.dir)}
	}
	return err
}

// open opens the target and locks it for writing.
func (t *copyTarget) open(ctx context.Context, a *app) (r *repo.Repo, release func(), err error) {
	be, err := a.openFolder(ctx, t.dir)
	if err != nil {
		return nil, nil, t.advise(openError(t.dir, err))
	}
	if err := checkUsable(ctx, be); err != nil {
		return nil, nil, t.advise(openError(t.dir, err)) // before a prompt for the password
	}
	given := func(ctx context.Context) (secrets, error) { return t.secret(ctx, a) }
	if r, err = a.unlock(ctx, be, opening{dir: t.dir, ways: targetPassword, given: given}); err != nil {
		return nil, nil, err
	}
	if damage := r.ConfigDamage(); damage != nil {
		a.warn("%s: %v; a good copy of it was used; \"snap repair config -r %s\" puts the copy in place", t.dir, damage, t.dir)
	}
	l, err := a.acquire(ctx, r, repo.LockWrite, "snap copy")
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", t.dir, err)
	}
	if err := r.CanEnter(ctx); err != nil {
		_ = l.Release()
		return nil, nil, fmt.Errorf("%s: %w", t.dir, err)
	}
	_, _ = be.RemoveStale(ctx, staleAfter) // left by killed runs
	a.warnOfMirror(ctx, be)
	return r, func() { _ = l.Release() }, nil
}

func (a *app) copyCommand() *cobra.Command {
	var target copyTarget
	var filter snapshotFilter
	var opts repo.CopyOptions
	cmd := &cobra.Command{
		Use:   "copy [SNAPSHOT...] [--to REPOSITORY]",
		Short: "Copy snapshots to another repository",
		Long: `Copies snapshots, by default all of them, to another repository, which has its
own passwords and settings ("snap init" creates it). Only missing content is
stored, and all content is verified. Snapshots that were copied before are
skipped if they are complete there. If the other repository has lost files of
them, these are copied again.

The password of the other repository comes from --to-password-file,
--to-password-command, --to-key-file, SNAP_TO_PASSWORD, or a prompt.

Without --to, the copies in the configuration file are updated, each if it is
mounted.

Backup passwords of devices are not copied unless --passwords is given, because
other people may have access to the other repository.

For a copy with the same passwords, "snap mirror" is simpler and needs no
password.`,
		RunE: func(cmd *cobra.Command, argv []string) error {
			if target.dir == "" {
				target.dir = a.env("SNAP_TO_REPOSITORY")
			}
			if target.dir != "" {
				return a.copyTo(cmd, &target, &filter, opts, argv)
			}
			return a.eachTarget("copies", "--to FOLDER or SNAP_TO_REPOSITORY", func(folder string) error {
				one := target
				one.dir = folder
				return a.copyTo(cmd, &one, &filter, opts, argv)
			})
		},
	}
	target.register(cmd)
	filter.register(cmd)
	cmd.Flags().BoolVar(&opts.Passwords, "passwords", false, "also copy the kept backup passwords of the copied devices")
	cmd.Flags().BoolVarP(&opts.DryRun, "dry-run", "n", false, "only show what would be copied")
	return cmd
}

// copyTo copies snapshots to one repository.
func (a *app) copyTo(cmd *cobra.Command, target *copyTarget, filter *snapshotFilter, opts repo.CopyOptions, argv []string) error {
	ctx := cmd.Context()
	from, err := a.openLocked(cmd, repo.LockRead)
	if err != nil {
		return err
	}
	defer a.releaseLock()
	to, release, err := target.open(ctx, a)
	if err != nil {
		return err
	}
	defer release()
	defer a.updateParity(cmd, to)
	if to.Config().ID == from.Config().ID {
		return repo.ErrSameRepository
	}
	// Read the snapshots before the indexes: then the indexes list all chunks
	// of these snapshots.
	list, damaged, err := a.chosen(ctx, from, filter, argv)
	if err != nil {
		return err
	}
	for _, r := range []*repo.Repo{from, to} {
		if err := r.LoadIndex(ctx); err != nil {
			return err
		}
	}
	a.warnOfIndex(from, list...)
	a.warnOfIndex(to)
	var done, total atomic.Int64
	opts.Progress = func(d, t int64) { done.Store(d); total.Store(t) }
	stop := a.showProgress(func() meter {
		if total.Load() == 0 {
			return meter{phase: "reading snapshots"}
		}
		return meter{phase: "copying", bytes: done.Load(), totalBytes: total.Load()}
	})
	rep, err := from.CopyTo(ctx, to, list, opts)
	stop()
	for _, text := range rep.Unread {
		a.warn("%s; it was not copied", text)
	}
	for _, name := range rep.TargetDamaged {
		a.warn("%s: %s cannot be read. If it is a copy of one of these snapshots, that snapshot is copied again now; if the old copy can be read later, the next \"snap copy\" removes one of the two", target.dir, name)
	}
	if err != nil && rep.Damaged+rep.Incomplete == 0 {
		return err
	}
	result := struct {
		Target string `json:"target"`
		*repo.CopyReport
	}{target.dir, rep}
	if perr := a.conclude(result, rep.DryRun || err != nil, func(w io.Writer) { printCopy(w, rep, target.dir) }); perr != nil {
		return perr
	}
	if err != nil && rep.Damaged == 0 {
		err = advised{err, fmt.Sprintf("\"snap check --read-data -r %s\" shows what is damaged there; if another repository has these files, copy from it, too; otherwise run \"snap repair snapshots\" on both repositories: it marks what is lost", target.dir)}
	}
	if err == nil && len(damaged) > 0 {
		return fmt.Errorf("%s cannot be copied: %w", plural(len(damaged), "snapshot"), damaged[0])
	}
	return err
}

// chosen returns the snapshots that argv names, or all if argv is empty, without those
// that the filter excludes. damaged has an error for each record that cannot be read, if
// all are chosen.
func (a *app) chosen(ctx context.Context, r *repo.Repo, filter *snapshotFilter, argv []string) (list []*repo.Snapshot, damaged []error, err error) {
	if len(argv) == 0 {
		if list, damaged, err = r.Snapshots(ctx); err != nil {
			return nil, nil, err
		}
		for _, err := range damaged {
			a.warn("%v", err)
		}
	}
	for _, spec := range argv {
		s, err := r.FindSnapshot(ctx, a.spec(spec))
		if err != nil {
			return nil, nil, err
		}
		list = append(list, s)
	}
	list, err = filter.apply(list)
	return list, damaged, err
}

func printCopy(w io.Writer, r *repo.CopyReport, target string) {
	var rows []string
	for _, s := range r.Snapshots {
		as := ""
		switch {
		case s.Text != "":
			as = clean(s.Text)
		case s.Copy != nil:
			as = "as " + s.Copy.Short()
		}
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s", s.Snapshot.Short(), clean(s.Device), timeText(s.Time), s.Outcome, bytesText(s.NewBytes), as))
	}
	if len(rows) > 0 {
		table(w, "ID\t<DEVICE\tDATE\tOUTCOME\t>NEW\t+COPY", rows)
		fmt.Fprintln(w)
	}
	if n := r.Incomplete; n > 0 {
		fmt.Fprintf(w, "%s %s incomplete in %s, and this repository lacks the same files\n", plural(n, "snapshot"), verbFor(n, "is", "are"), clean(target))
	}
	if n := r.Healed; n > 0 && r.DryRun {
		fmt.Fprintf(w, "%s %s incomplete in %s and would be whole again\n", plural(n, "snapshot"), verbFor(n, "is", "are"), clean(target))
	} else if n > 0 {
		fmt.Fprintf(w, "%s %s incomplete in %s and %s whole again; \"snap repair packs -r %[3]s\" removes what is left of damaged files there\n",
			plural(n, "snapshot"), verbFor(n, "was", "were"), clean(target), verbFor(n, "is", "are"))
	}
	if r.DryRun {
		fmt.Fprintf(w, "would copy %s, at most %s of content; %d already copied\n", plural(r.Copied, "snapshot"), bytesText(r.NewBytes), r.Present)
		return
	}
	fmt.Fprintf(w, "copied %s, %s of content in %s; %d already copied\n", plural(r.Copied, "snapshot"), bytesText(r.NewBytes), bytesText(r.StoredBytes), r.Present)
	if r.Passwords > 0 {
		fmt.Fprintf(w, "copied %s of devices\n", plural(r.Passwords, "backup password"))
	}
}

// verbFor returns the form of a verb for n things.
func verbFor(n int, one, several string) string {
	if n == 1 {
		return one
	}
	return several
}
