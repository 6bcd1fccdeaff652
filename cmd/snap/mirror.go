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

// errOutOfDate says that a mirror is undamaged but differs from its source.
var errOutOfDate = errors.New("the mirror is not up to date")

func (a *app) mirrorCommand() *cobra.Command {
	var opts mirror.Options
	var check bool
	cmd := &cobra.Command{
		Use:   "mirror TARGET",
		Short: "Keep an exact copy of the repository on another disk",
		Long: `Makes the folder TARGET, on an external drive or a NAS, an exact copy of the
repository, with the same keys and snapshots. Only new files are copied and
verified; files that the repository no longer has are removed at the end. If the
drive is unplugged, the same command continues later, and all snapshots listed in
the copy are complete. The copy is an ordinary repository: "snap -r TARGET
materialize ..." works.

No password is needed or asked for. With a password (flags, environment) a prune
waits for the copy, and snap verifies that every snapshot is complete before it
removes anything. Without one it only checks which files exist.

mirror refuses to run if the repository seems to have lost files, or if the copy has
files of its own. --accept-removals overrides that.

--check reads the complete copy and compares it with its file IDs and with the
repository's files; --check --heal replaces damaged files.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, argv []string) error {
			if check && (opts.DryRun || opts.AcceptRemovals) || opts.Heal && !check {
				return usageError{errors.New("--heal needs --check, and --check allows no other flag")}
			}
			return a.mirror(cmd, argv[0], opts, check)
		},
	}
	cmd.Flags().BoolVar(&opts.AcceptRemovals, "accept-removals", false, "remove from the copy everything that the repository lacks, even if that looks like a loss")
	cmd.Flags().BoolVarP(&opts.DryRun, "dry-run", "n", false, "only show what would be done")
	cmd.Flags().BoolVar(&check, "check", false, "read the copy and compare it with the repository")
	cmd.Flags().BoolVar(&opts.Heal, "heal", false, "with --check: replace damaged files of the copy")
	return cmd
}

// mirror updates or checks the mirror in a folder.
func (a *app) mirror(cmd *cobra.Command, folder string, opts mirror.Options, check bool) error {
	ctx := cmd.Context()
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
	if err := checkApart(dir, folder); err != nil {
		return err
	}
	if opts.VerifySnapshots, err = a.openIfPassword(ctx, source, dir, cmd.CommandPath()); err != nil {
		return err
	}
	defer a.releaseLock() // before the source is closed
	target, done, err := mirrorTarget(ctx, source, folder, opts.DryRun || check)
	if err != nil {
		return err
	}
	defer done()
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
		return a.mirrorChecked(rep)
	}
	rep, err := mirror.Run(ctx, source, target, opts)
	stop()
	if err != nil && !errors.Is(err, mirror.ErrDamaged) {
		return fmt.Errorf("%s: %w", folder, err)
	}
	if perr := a.print(rep, func(w io.Writer) { printMirror(w, rep) }); perr != nil {
		return perr
	}
	return err
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
// and returns a function that verifies all snapshots. Otherwise it returns nil.
func (a *app) openIfPassword(ctx context.Context, be backend.Backend, dir, what string) (verify func(context.Context) error, err error) {
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

// givenSecret returns the secret from the flags or the environment, or nil if there
// is none.
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

// mirrorTarget opens the folder of a mirror or creates it. With readOnly it creates
// nothing.
func mirrorTarget(ctx context.Context, source backend.Backend, dir string, readOnly bool) (backend.Backend, func(), error) {
	nothing := func() {}
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) && readOnly {
		if _, err := os.Stat(filepath.Dir(dir)); err != nil {
			return nil, nothing, fmt.Errorf("%s: %w (connect the disk or the share first)", dir, err)
		}
		return memory.New(), nothing, nil
	}
	created := true
	be, err := local.Open(dir)
	if !readOnly {
		be, err = local.Create(dir)
		if errors.Is(err, backend.ErrExist) {
			created = false
			be, err = local.Open(dir)
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

// namedMissing is the largest number of missing files to print. A mirror that is out
// of date may lack thousands.
const namedMissing = 10

// mirrorChecked prints the report of a check and returns its outcome as an error.
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
			fmt.Fprintln(w, "the mirror is undamaged and equals the repository")
		}
	})
	switch {
	case err != nil:
		return err
	case !r.Clean():
		return fmt.Errorf("%w on the mirror: %d", mirror.ErrDamaged, len(r.Damaged))
	case !r.Same():
		return fmt.Errorf("%w: %s missing, %s only on the mirror", errOutOfDate, plural(len(r.Missing), "file"), plural(len(r.Extra), "file"))
	}
	return nil
}
