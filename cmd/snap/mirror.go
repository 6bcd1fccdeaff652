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
	"time"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/local"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/mirror"
	"github.com/spf13/cobra"
)

// errOutOfDate says that a mirror is sound but not the same as its source.
var errOutOfDate = errors.New("the mirror is not up to date")

func (a *app) mirrorCommand() *cobra.Command {
	var opts mirror.Options
	var check bool
	cmd := &cobra.Command{
		Use:   "mirror TARGET",
		Short: "Keep an exact copy of the repository on another disk",
		Long: `Makes the folder TARGET, on an external drive or a NAS, an exact copy of the
repository: same keys, same snapshots. Only new files are copied, each verified on
the way; what was removed from the repository is removed from the copy at the end.
The drive may be pulled at any time: the same command goes on where it stopped, and
every snapshot that the copy lists is whole. The copy is a repository like any
other: "snap -r TARGET materialize ..." works.

No password is needed, and none is asked for. If one is given (flags, environment),
a prune waits for the copy, and before anything is removed it is made sure that all
snapshots are whole; without it, that is judged by what files there are.

It refuses where the repository looks as if it had lost files, and where somebody
has stored into the copy. --accept-removals overrides that.

--check reads the whole copy back and compares it with the hashes in its names, and
its files with those of the repository; --check --heal replaces damaged ones.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, argv []string) error {
			ctx := cmd.Context()
			if check && (opts.DryRun || opts.AcceptRemovals) || opts.Heal && !check {
				return usageError{errors.New("--check goes with --heal alone, and --heal with --check")}
			}
			dir, err := a.location()
			if err != nil {
				return err
			}
			source, err := local.Open(dir)
			if err != nil {
				return openError(dir, err)
			}
			defer source.Close()
			if err := repo.CheckConfig(ctx, source); err != nil {
				return fmt.Errorf("%s: %w", dir, err)
			}
			if err := apart(dir, argv[0]); err != nil {
				return err
			}
			whole, err := a.openIfPassword(ctx, source, dir, cmd.CommandPath())
			if err != nil {
				return err
			}
			defer a.releaseLock() // before the source is closed
			opts.VerifySnapshots = whole
			target, done, err := mirrorTarget(ctx, source, argv[0], opts.DryRun || check)
			if err != nil {
				return err
			}
			defer done()
			var mu sync.Mutex
			var at mirror.Progress
			opts.Progress = func(p mirror.Progress) { mu.Lock(); at = p; mu.Unlock() }
			phase := "copying"
			if check {
				phase = "reading the mirror"
			}
			stop := a.showProgress(func() meter {
				mu.Lock()
				defer mu.Unlock()
				return meter{phase: phase, files: at.Files, totalFiles: at.TotalFiles, bytes: at.Bytes, totalBytes: at.TotalBytes}
			})
			defer stop()
			if check {
				rep, err := mirror.Check(ctx, source, target, opts)
				stop()
				if err != nil {
					return fmt.Errorf("%s: %w", argv[0], err)
				}
				return a.mirrorChecked(rep)
			}
			rep, err := mirror.Run(ctx, source, target, opts)
			stop()
			if err != nil && !errors.Is(err, mirror.ErrDamaged) {
				return fmt.Errorf("%s: %w", argv[0], err)
			}
			if perr := a.print(rep, func(w io.Writer) { printMirror(w, rep) }); perr != nil {
				return perr
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&opts.AcceptRemovals, "accept-removals", false, "remove from the copy whatever the repository does not have, even if that looks like a loss")
	cmd.Flags().BoolVarP(&opts.DryRun, "dry-run", "n", false, "only say what would be done")
	cmd.Flags().BoolVar(&check, "check", false, "read the copy back and compare it with the repository")
	cmd.Flags().BoolVar(&opts.Heal, "heal", false, "with --check: replace damaged files of the copy")
	return cmd
}

// apart refuses a target that is the repository itself or inside of it.
func apart(dir, target string) error {
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
		return usageError{fmt.Errorf("%s and %s lie one in the other; a copy belongs on another disk", dir, target)}
	}
	return nil
}

// openIfPassword opens the repository and locks it for reading if a password is
// given. Without one, whole is nil.
func (a *app) openIfPassword(ctx context.Context, be backend.Backend, dir, what string) (whole func(context.Context) error, err error) {
	secret, err := a.givenSecret(ctx)
	if err != nil || secret == nil {
		return nil, err
	}
	defer clear(secret)
	r, err := repo.Open(ctx, be, secret, a.options)
	if err != nil {
		return nil, openError(dir, err)
	}
	if err := a.takeLock(ctx, r, repo.LockRead, what); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return r.CheckComplete, nil
}

// givenSecret returns the secret from flags or environment, nil if there is none.
func (a *app) givenSecret(ctx context.Context) ([]byte, error) {
	if a.keyFile != "" {
		return readKeyFile(a.keyFile)
	}
	typed, err := a.given(ctx, a.passwordFile, a.passwordCommand)
	if err != nil || typed == nil {
		return nil, err
	}
	defer clear(typed)
	return crypto.Secret(string(typed))
}

// mirrorTarget opens the folder of a mirror, or makes it. With look it makes
// nothing.
func mirrorTarget(ctx context.Context, source backend.Backend, dir string, look bool) (backend.Backend, func(), error) {
	nothing := func() {}
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) && look {
		if _, err := os.Stat(filepath.Dir(dir)); err != nil {
			return nil, nothing, fmt.Errorf("%s: %w (if it is on an external disk or a share, connect it)", dir, err)
		}
		return memory.New(), nothing, nil
	}
	fresh := true
	be, err := local.Open(dir)
	if !look {
		be, err = local.Create(dir)
		if errors.Is(err, backend.ErrExist) {
			fresh = false
			be, err = local.Open(dir)
		}
	}
	if err != nil {
		return nil, nothing, err
	}
	done := func() { _ = be.Close() }
	if fresh || look {
		return be, done, nil
	}
	_, err = be.Stat(ctx, "config")
	if errors.Is(err, backend.ErrNotExist) {
		var shares bool
		if shares, err = mirror.Shares(ctx, source, be); err == nil && !shares {
			err = &mirror.RefusedError{Why: dir + " is not empty, and no mirror of this repository", Do: "choose a folder that is new or empty"}
		}
	}
	if err != nil {
		done()
		return nil, nothing, err
	}
	// What was being written when the drive was pulled. That it cannot be
	// removed is no reason not to copy.
	_, _ = be.RemoveStale(ctx, time.Now().Add(-staleAfter))
	return be, done, nil
}

func printMirror(w io.Writer, r *mirror.Report) {
	for _, d := range r.Damaged {
		fmt.Fprintf(w, "DAMAGED  %s: %s\n", d.File, clean(d.Text))
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
	if r.Kept != "" {
		fmt.Fprintln(w, r.Kept)
	}
}

// namedMissing is how many of the files are named that a mirror lacks. One that
// was not brought up to date for a while lacks thousands.
const namedMissing = 10

// mirrorChecked prints the report of a check and turns it into an exit code.
func (a *app) mirrorChecked(r *mirror.CheckReport) error {
	result := struct {
		*mirror.CheckReport
		Clean bool `json:"clean"`
		Same  bool `json:"same"`
	}{r, r.Clean(), r.Same()}
	err := a.print(result, func(w io.Writer) {
		for _, d := range r.Damaged {
			fmt.Fprintf(w, "DAMAGED  %s: %s\n", d.File, clean(d.Text))
		}
		for _, name := range r.Healed {
			fmt.Fprintf(w, "HEALED   %s\n", name)
		}
		for i, name := range r.Missing {
			if i == namedMissing {
				fmt.Fprintf(w, "MISSING  %d more\n", len(r.Missing)-i)
				break
			}
			fmt.Fprintf(w, "MISSING  %s\n", name)
		}
		fmt.Fprintf(w, "%s read, %s; damaged: %d, missing: %d, only on the mirror: %d\n", plural(r.Files, "file"), bytesText(r.Bytes), len(r.Damaged), len(r.Missing), len(r.Extra))
		if r.Clean() && r.Same() {
			fmt.Fprintln(w, "the mirror is sound and the same as the repository")
		}
	})
	switch {
	case err != nil:
		return err
	case !r.Clean():
		return fmt.Errorf("%w on the mirror: %d", mirror.ErrDamaged, len(r.Damaged))
	case !r.Same():
		return fmt.Errorf("%w: %s missing, %s only there", errOutOfDate, plural(len(r.Missing), "file"), plural(len(r.Extra), "file"))
	}
	return nil
}
