package mirror_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/local"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/mirror"
	"github.com/snap-backup/snap/repo/replace"
	"github.com/snap-backup/snap/repo/repotest"
)

// failingFolders is a folder of a disk in which operation at fails, also if it moves
// something aside.
type failingFolders struct {
	*local.Backend
	n, at int
	how   asideFault
}

// asideFault is how an operation fails.
type asideFault struct {
	name  string
	after bool // it is done, but reported as failed
	dies  bool // all later ones fail, too: the process was killed
}

var asideFaults = []asideFault{{"refused", false, false}, {"done but reported as failed", true, false}, {"killed before", false, true}, {"killed after", true, true}}

func (b *failingFolders) do(call func() error) error {
	b.n++
	fails := b.n == b.at
	if fails && !b.how.after || b.how.dies && b.at > 0 && b.n > b.at {
		return fault.ErrInjected
	}
	err := call()
	if fails && err == nil {
		err = fault.ErrInjected
	}
	return err
}

func (b *failingFolders) Put(ctx context.Context, name string, data []byte) error {
	return b.do(func() error { return b.Backend.Put(ctx, name, data) })
}

func (b *failingFolders) ReadAt(ctx context.Context, name string, p []byte, off int64) (n int, err error) {
	err = b.do(func() (err error) { n, err = b.Backend.ReadAt(ctx, name, p, off); return err })
	return n, err
}

func (b *failingFolders) Stat(ctx context.Context, name string) (info backend.Info, err error) {
	err = b.do(func() (err error) { info, err = b.Backend.Stat(ctx, name); return err })
	return info, err
}

func (b *failingFolders) List(ctx context.Context, dir string, fn func(backend.Info) error) error {
	return b.do(func() error { return b.Backend.List(ctx, dir, fn) })
}

func (b *failingFolders) Delete(ctx context.Context, name string) error {
	return b.do(func() error { return b.Backend.Delete(ctx, name) })
}

func (b *failingFolders) MoveAside(ctx context.Context, name string) (aside string, err error) {
	err = b.do(func() (err error) { aside, err = b.Backend.MoveAside(ctx, name); return err })
	return aside, err
}

// Whatever happens while what has the name of a file is moved away, it still exists
// afterwards, and the next run ends the work.
func TestMirrorMovesAsideDespiteEveryFault(t *testing.T) {
	t.Parallel()
	source, base := repotest.New(t, 1), filepath.Join(t.TempDir(), "base")
	be, err := local.Create(base)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(mirrorTo(source, be, oneAtATime), be.Close()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"config", repotest.FilesIn(t, source, repotest.PacksDir)[0]} {
		g := &asideRig{t: t, source: source, base: base, name: name}
		steps, err := g.run(g.begin(), 0, asideFaults[0])
		if err != nil || steps < 10 {
			t.Fatalf("%s: without a fault: %d steps, %v", name, steps, err)
		}
		for _, i := range faultpoint.Choose(t, steps*len(asideFaults), 10) {
			at, how, dir := 1+i/len(asideFaults), asideFaults[i%len(asideFaults)], g.begin()
			_, err := g.run(dir, at, how)
			if err != nil && !errors.Is(err, fault.ErrInjected) {
				t.Errorf("%s: %s at %d: the error hides its cause: %v", name, how.name, at, err)
			}
			if _, err := g.run(dir, 0, how); err != nil {
				t.Errorf("%s: %s at %d: next run: %v", name, how.name, at, err)
			}
			if err := g.judge(dir); err != nil {
				t.Errorf("%s: %s at %d: %v", name, how.name, at, err)
			}
		}
	}
}

// asideRig has a mirror in which a folder has the name of a file.
type asideRig struct {
	t      *testing.T
	source *memory.Backend
	base   string // a mirror without it
	name   string
}

const note = "mine"

// begin returns the folder of the mirror.
func (g *asideRig) begin() (dir string) {
	g.t.Helper()
	dir = filepath.Join(g.t.TempDir(), "mirror")
	path := filepath.Join(dir, filepath.FromSlash(g.name))
	if err := errors.Join(os.CopyFS(dir, os.DirFS(g.base)), os.Remove(path), os.Mkdir(path, 0o700), os.WriteFile(filepath.Join(path, "note"), []byte(note), 0o600)); err != nil {
		g.t.Fatal(err)
	}
	return dir
}

// run mirrors and heals the mirror, and returns how many operations that took.
func (g *asideRig) run(dir string, at int, how asideFault) (steps int, err error) {
	be, err := local.Open(dir)
	if err != nil {
		return 0, err
	}
	defer be.Close()
	store := &failingFolders{Backend: be, at: at, how: how}
	if err := mirrorTo(g.source, store, oneAtATime); err != nil {
		return store.n, err
	}
	rep, err := mirror.Check(context.Background(), g.source, store, mirror.Options{Heal: true, Workers: 1})
	if err == nil && at == 0 && !rep.Clean() {
		err = fmt.Errorf("not healed: %+v", rep.Damaged)
	}
	return store.n, err
}

// judge returns an error unless the mirror is complete, and what stood in the place of the
// file is beside it.
func (g *asideRig) judge(dir string) error {
	be, err := local.Open(dir)
	if err != nil {
		return err
	}
	defer be.Close()
	found, err := filepath.Glob(filepath.Join(dir, filepath.FromSlash(g.name)) + ".aside-*")
	if err != nil || len(found) != 1 {
		return fmt.Errorf("aside: %v, %w", found, err)
	}
	b, err := os.ReadFile(filepath.Join(found[0], "note"))
	if err != nil || string(b) != note {
		return fmt.Errorf("the note is %q: %w", b, err)
	}
	if err := os.RemoveAll(found[0]); err != nil {
		return err
	}
	return sameRepository(g.t, g.source, be)
}

// A disk that fails while a damaged config is replaced is named: nobody should look for a
// foreign repository.
func TestMirrorReplacesConfigDespiteEveryFault(t *testing.T) {
	t.Parallel()
	source, target := repotest.New(t, 1), memory.New()
	if err := mirrorTo(source, target, oneAtATime); err != nil {
		t.Fatal(err)
	}
	config := repotest.Content(t, source)["config"]
	target.Set("config", config[:len(config)/2])
	run := repotest.Run{Base: target, Least: 10, Want: 15, Do: func(be backend.Backend) error { return mirrorTo(source, be, oneAtATime) }}
	repotest.EveryFault(t, run, func(be *memory.Backend, _ error) error {
		if err := mirrorTo(source, be, oneAtATime); err != nil {
			return err
		}
		if left, ok := repotest.Content(t, be)[replace.Dir+"config"]; ok { // it does no harm
			if !bytes.Equal(left, config) {
				return errors.New("another config is waiting")
			}
			repotest.Remove(t, be, replace.Dir+"config")
		}
		return sameRepository(t, source, be)
	})
}
