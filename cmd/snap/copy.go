package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/local"
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

// secret returns the secret that opens the target, from flags, SNAP_TO_PASSWORD or
// a prompt.
func (t *copyTarget) secret(ctx context.Context, a *app) ([]byte, error) {
	var typed []byte
	var err error
	switch {
	case t.keyFile != "":
		return readKeyFile(t.keyFile)
	case t.passwordFile != "":
		typed, err = readPasswordFile(t.passwordFile)
	case t.passwordCommand != "":
		typed, err = a.runCommand(ctx, t.passwordCommand)
	case os.Getenv("SNAP_TO_PASSWORD") != "":
		typed = []byte(os.Getenv("SNAP_TO_PASSWORD"))
	default:
		typed, err = a.ask(ctx, fmt.Sprintf("password for repository %s: ", t.dir), targetPassword)
	}
	if err != nil {
		return nil, err
	}
	defer clear(typed)
	return crypto.Secret(string(typed))
}

// open opens the target and locks it for writing.
func (t *copyTarget) open(ctx context.Context, a *app) (r *repo.Repo, release func(), err error) {
	be, err := local.Open(t.dir)
	if err != nil {
		return nil, nil, openError(t.dir, err)
	}
	if err := repo.CheckConfig(ctx, be); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", t.dir, err) // before a prompt for the password
	}
	secret, err := t.secret(ctx, a)
	if err != nil {
		return nil, nil, err
	}
	defer clear(secret)
	if r, err = repo.Open(ctx, be, secret, a.options); err != nil {
		return nil, nil, openError(t.dir, err)
	}
	l, err := a.acquire(ctx, r, repo.LockWrite, "snap copy")
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", t.dir, err)
	}
	_, _ = be.RemoveStale(ctx, time.Now().Add(-staleAfter)) // left by killed runs
	return r, func() { _ = l.Release() }, nil
}

func (a *app) copyCommand() *cobra.Command {
	var target copyTarget
	var filter snapshotFilter
	var opts repo.CopyOptions
	cmd := &cobra.Command{
		Use:   "copy [SNAPSHOT...] --to REPOSITORY",
		Short: "Copy snapshots to another repository",
		Long: `Copies snapshots, by default all of them, to another repository, which has its own
passwords and settings ("snap init" creates it). Only missing content is stored,
and all content is verified. Snapshots that were copied before are skipped.

The password of the other repository comes from --to-password-file,
--to-password-command, --to-key-file, SNAP_TO_PASSWORD, or a prompt.

Backup passwords of devices are not copied unless --passwords is given, because
other people may have access to the other repository.

For a copy with the same passwords "snap mirror" is simpler and needs no password.`,
		RunE: func(cmd *cobra.Command, argv []string) error {
			ctx := cmd.Context()
			if target.dir == "" {
				target.dir = os.Getenv("SNAP_TO_REPOSITORY")
			}
			if target.dir == "" {
				return usageError{errors.New("no target is given: use --to FOLDER or set SNAP_TO_REPOSITORY")}
			}
			from, err := a.openLocked(cmd, repo.LockRead)
			if err != nil {
				return err
			}
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
			list, err := a.chosen(ctx, from, &filter, argv)
			if err != nil {
				return err
			}
			for _, r := range []*repo.Repo{from, to} {
				if err := r.LoadIndex(ctx); err != nil {
					return err
				}
				a.warnOfIndex(r)
			}
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
			if err != nil && rep.Damaged == 0 {
				return err
			}
			if perr := a.print(rep, func(w io.Writer) { printCopy(w, rep) }); perr != nil {
				return perr
			}
			return err
		},
	}
	target.register(cmd)
	filter.register(cmd)
	cmd.Flags().BoolVar(&opts.Passwords, "passwords", false, "also copy the stored backup passwords of the copied devices")
	cmd.Flags().BoolVarP(&opts.DryRun, "dry-run", "n", false, "only show what would be copied")
	return cmd
}

// chosen returns the snapshots that match the filter: of those that the arguments
// name, or of all if there are no arguments.
func (a *app) chosen(ctx context.Context, r *repo.Repo, filter *snapshotFilter, argv []string) ([]*repo.Snapshot, error) {
	if len(argv) == 0 {
		list, damaged, err := r.Snapshots(ctx)
		if err != nil {
			return nil, err
		}
		for _, err := range damaged {
			a.warn("%v", err)
		}
		return filter.apply(list)
	}
	var list []*repo.Snapshot
	for _, spec := range argv {
		s, err := r.FindSnapshot(ctx, spec)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return filter.apply(list)
}

func printCopy(w io.Writer, r *repo.CopyReport) {
	var rows []string
	for _, s := range r.Snapshots {
		as := ""
		switch {
		case s.Copy != nil:
			as = "as " + s.Copy.Short()
		case s.Text != "":
			as = clean(s.Text)
		}
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s", s.Snapshot.Short(), clean(s.Device), timeText(s.Time), s.Outcome, bytesText(s.NewBytes), as))
	}
	if len(rows) > 0 {
		table(w, "ID\tDEVICE\tDATE\tOUTCOME\t>NEW\tCOPY", rows)
		fmt.Fprintln(w)
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
