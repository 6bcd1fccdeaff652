// Package protect keeps the files of a repository from being removed, in a store that can do
// that, and brings back what somebody has hidden there. It needs no key.
//
// # What is protected
//
// The files that a snapshot needs, and those that say which snapshots there are; see
// [Includes]. Each gets its protection when it is put. [Run] extends it for all files that the
// store shows. What a prune has removed is not shown any more, so its protection ends.
//
// # Hidden files
//
// A store that protects files keeps old versions of them. To delete a file, or to put other
// bytes in its place, then hides a version and does not remove it. Whoever may put or delete
// can hide everything. [Restore] brings back the state of an earlier time.
//
// # What it never does
//
// It removes no bytes, and shortens no protection. It does not know which files a snapshot
// needs: it takes all that the store shows.
package protect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
	"golang.org/x/sync/errgroup"
)

var (
	// ErrOff says that the store protects no files of this repository.
	ErrOff = errors.New("this repository is not protected")
	// ErrTampered says that files are hidden or replaced as no command does it.
	ErrTampered = errors.New("somebody has removed or replaced files")
)

// folders are those whose files are protected. Files of the others are removed by ordinary
// runs, or can be made again: locks, unfinished backups, notes of checks, prune lists, parity,
// notes of mirrors, files that are being replaced, and the reserve.
var folders = []string{
	layout.KeysDir, layout.ConfigsDir, layout.PacksDir, layout.IndexDir, layout.SnapshotsDir,
	layout.SecretsDir, layout.CertificatesDir, layout.LedgerDir,
}

// Includes reports whether a file of a repository is protected.
func Includes(name string) bool {
	return name == layout.ConfigName || slices.ContainsFunc(folders, func(dir string) bool { return strings.HasPrefix(name, dir) })
}

// Options are the settings of [Run] and [Restore].
type Options struct {
	// Protection is set for the store if it has another one. The zero value keeps what the
	// store has.
	Protection backend.Protection
	// KeepMode keeps the mode that the store has, if it has a protection already.
	KeepMode bool
	// DryRun changes nothing.
	DryRun bool
	// Parallel is the number of requests at a time; 0 means one.
	Parallel int
	// Now returns the time; nil means time.Now.
	Now func() time.Time
	// Progress is told how many files of all are done, by one goroutine at a time.
	Progress func(done, total int)
}

func (o Options) now() time.Time {
	if o.Now != nil {
		return o.Now()
	}
	return time.Now()
}

// Count is a number of files, and their bytes.
type Count struct {
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
}

func (c *Count) add(v backend.Version) {
	c.Files++
	c.Bytes += v.Size
}

// Report is what [Run] found and did.
type Report struct {
	Protection backend.Protection `json:"-"`
	// Set says that the protection of the store was set or changed.
	Set       bool  `json:"set"`
	Protected Count `json:"protected"` // files that the store shows and that are to be protected
	Extended  Count `json:"extended"`  // those whose protection was extended, or would be
	// Unprotected is those of them that had no protection, or whose protection had ended.
	Unprotected Count `json:"unprotected"`
	// First is when the first protection would have ended; zero if there was none.
	First time.Time `json:"first_end,omitzero"`
	// Hidden is the versions that the store keeps and does not show.
	Hidden Count `json:"hidden"`
	// Removals are the times at which protected files were hidden, oldest first.
	Removals []Removal `json:"removals"`
	// Replaced are files in whose place somebody has put other bytes.
	Replaced []string `json:"replaced"`
	// Missing is config, a key or a snapshot, if the store shows none and hides one. No
	// repository can do without, and forgetting the last snapshot is an exception.
	Missing []string `json:"missing"`
}

// Tampered returns ErrTampered with the reason, or nil.
func (r *Report) Tampered() error {
	switch {
	case len(r.Missing) > 0:
		return fmt.Errorf("%w: %s is hidden, and there is no other", ErrTampered, r.Missing[0])
	case len(r.Replaced) > 0:
		return fmt.Errorf("%w: %s has other bytes (%d such files in all)", ErrTampered, r.Replaced[0], len(r.Replaced))
	}
	return nil
}

// Run extends the protection of all files that the store shows to the store's period from
// now. If a file was replaced, it also protects all other versions of it: nobody has looked
// yet which of them is good. It can be interrupted at any time.
func Run(ctx context.Context, s backend.Protector, opts Options) (*Report, error) {
	r := &Report{Removals: []Removal{}, Replaced: []string{}, Missing: []string{}}
	var err error
	if r.Protection, r.Set, err = rule(ctx, s, opts); err != nil {
		return nil, err
	}
	all, err := collect(ctx, s)
	if err != nil {
		return nil, err
	}
	todo, doubtful := r.survey(all)
	var unread error
	for _, f := range doubtful {
		good, err := f.proven(ctx, s, f.versions[0])
		if err == nil && !good {
			r.Replaced = append(r.Replaced, f.name)
		}
		if !good {
			todo = append(todo, f.others()...)
			unread = cmp.Or(err, unread)
		}
	}
	until := opts.now().Add(r.Protection.Period)
	return r, cmp.Or(r.extend(ctx, s, todo, until, opts), unread)
}

// rule returns the protection that files are to have. It sets it, so that whoever hides the
// note of it in the store ends it only until the next run.
func rule(ctx context.Context, s backend.Protector, opts Options) (p backend.Protection, set bool, err error) {
	p, err = s.Protection(ctx)
	want := opts.Protection
	switch {
	case want.Period == 0 && err != nil:
		return p, false, err
	case want.Period == 0 && p.Period == 0:
		return p, false, ErrOff
	case want.Period == 0:
		want = p
	case errors.Is(err, errors.ErrUnsupported), err != nil && ctx.Err() != nil:
		return p, false, err
	}
	if opts.KeepMode && err == nil && p.Period > 0 {
		want.Compliance = p.Compliance
	}
	set = err != nil || want != p
	if !opts.DryRun {
		// Even if it is the same: this protects the note, too.
		err = s.SetProtection(ctx, want)
	} else {
		err = nil
	}
	return want, set, err
}

// survey fills in what the versions tell, and returns those that are to be protected, and the
// files of which there are versions with other bytes.
func (r *Report) survey(all []file) (todo []backend.Version, doubtful []file) {
	shown, hidden := map[string]bool{}, map[string]string{} // by folder
	for _, f := range all {
		for _, v := range f.versions {
			if !v.Hides && !v.Latest {
				r.Hidden.add(v)
			}
		}
		if !Includes(f.name) {
			continue
		}
		dir := f.name[:strings.IndexByte(f.name, '/')+1]
		if f.hidden() {
			hidden[dir] = f.name
			continue
		}
		shown[dir] = true
		r.Protected.add(f.versions[0])
		todo = append(todo, f.versions[0])
		if len(f.others()) > 0 {
			doubtful = append(doubtful, f)
		}
	}
	for _, dir := range []string{"", layout.KeysDir, layout.SnapshotsDir} { // config is in no folder
		if name := hidden[dir]; name != "" && !shown[dir] {
			r.Missing = append(r.Missing, name)
		}
	}
	r.Removals = removals(all)
	return todo, doubtful
}

// extend protects versions until a time.
func (r *Report) extend(ctx context.Context, s backend.Protector, todo []backend.Version, until time.Time, opts Options) error {
	var mu sync.Mutex
	now := opts.now()
	return each(ctx, todo, opts, func(ctx context.Context, v backend.Version) error {
		had, err := s.ProtectedUntil(ctx, v)
		if err != nil {
			return err
		}
		// Stores keep whole seconds.
		short := had.Before(until.Add(-time.Second))
		if short && !opts.DryRun {
			if err := s.Protect(ctx, v, until, r.Protection.Compliance); err != nil {
				return err
			}
		}
		mu.Lock()
		defer mu.Unlock()
		r.note(v, had, now, short)
		return nil
	})
}

// each calls do for everything in a list, several at a time. What fails does not keep the
// others from being done, unless the store is out of reach.
func each[T any](ctx context.Context, list []T, opts Options, do func(context.Context, T) error) error {
	var mu sync.Mutex
	var failed error
	var failures, done int
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, opts.Parallel))
	for _, x := range list {
		g.Go(func() error {
			err := do(gctx, x)
			if err != nil && (gctx.Err() != nil || errors.Is(err, backend.ErrOutOfReach)) {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			if done++; opts.Progress != nil {
				opts.Progress(done, len(list))
			}
			if err != nil {
				failures++
				failed = err
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if failures > 1 {
		return fmt.Errorf("%w; %d files failed, and the other %d are done", failed, failures, len(list)-failures)
	}
	return failed
}

func (r *Report) note(v backend.Version, had, now time.Time, short bool) {
	if short {
		r.Extended.add(v)
	}
	switch {
	case !had.After(now):
		r.Unprotected.add(v)
	case r.First.IsZero() || had.Before(r.First):
		r.First = had
	}
}
