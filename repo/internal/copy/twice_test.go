package copy_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/repotest"
)

// putHook calls hook before and after a file is stored.
type putHook struct {
	backend.Backend
	before, after func(name string)
}

func (b *putHook) Put(ctx context.Context, name string, data []byte) error {
	b.before(name)
	err := b.Backend.Put(ctx, name, data)
	b.after(name)
	return err
}

// copyBeside copies all snapshots as another process would: its files have other
// bytes, and so other names.
func copyBeside(ctx context.Context, source, target backend.Backend, seed byte) (*repo.CopyReport, error) {
	from, err := repo.Open(ctx, source, repotest.Secret, repotest.SmallPacks(seed))
	if err != nil {
		return nil, err
	}
	opts := repotest.SmallPacks(seed)
	opts.Refresh = -1
	to, err := repo.Open(ctx, target, repotest.Secret, opts)
	if err != nil {
		return nil, err
	}
	l, err := to.Lock(ctx, repo.LockWrite, "copy")
	if err != nil {
		return nil, err
	}
	rep, err := copyLocked(ctx, from, to, repo.CopyOptions{}, nil)
	return rep, errors.Join(err, l.Release())
}

// If two processes copy the same snapshots at the same time, one copy of each
// stays, no matter when the second process begins.
func TestCopyAtTheSameTime(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	source := repotest.New(t, 1, 2, 3)
	for _, after := range []bool{false, true} {
		run := repotest.Run{Base: repotest.NewOther(t), Do: func(be backend.Backend) error {
			_, err := copyAll(ctx, source, be, repo.CopyOptions{})
			return err
		}}
		sizes, err := repotest.PutSizes(run.Base, run.Do)
		if err != nil || len(sizes) < 10 {
			t.Fatalf("%d files were stored: %v", len(sizes), err)
		}
		for _, i := range faultpoint.Choose(t, len(sizes), 6) {
			at := i + 1
			target := repotest.NewOther(t)
			puts, done := 0, false
			other := func(string) {
				if done {
					return
				}
				if puts++; puts != at {
					return
				}
				done = true
				if rep, err := copyBeside(ctx, source, target, 60); err != nil || rep.Damaged > 0 {
					t.Errorf("%+v, %v", rep, err)
				}
			}
			nothing := func(string) {}
			h := &putHook{target, other, nothing}
			if after {
				h = &putHook{target, nothing, other}
			}
			rep, err := copyAll(ctx, source, h, repo.CopyOptions{})
			if err != nil || rep.Copied+rep.Present != 3 || rep.Damaged > 0 {
				t.Fatalf("put %d: %+v, %v", at, rep, err)
			}
			if err := repotest.Verify(target, 1, 2, 3); err != nil {
				t.Errorf("after %v, put %d: %v", after, at, err)
			}
			for _, s := range rep.Snapshots {
				if done && s.Copy == nil {
					t.Errorf("put %d: %+v", at, s)
				}
			}
			if !done {
				t.Errorf("put %d: the other process did not run", at)
			}
		}
	}
}

// If two processes look for a copy before either has stored its record, exactly one
// copy stays, no matter which process is first.
func TestCopyStoresBothRecords(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	source := repotest.New(t, 1)
	for seed := range byte(8) { // so that the lesser ID is sometimes one copy's, sometimes the other's
		target := repotest.NewOther(t)
		done := false
		rep, err := copyAll(ctx, source, &putHook{target, func(name string) {
			if done || !strings.HasPrefix(name, repotest.SnapshotsDir) {
				return
			}
			done = true
			if rep, err := copyBeside(ctx, source, target, 60+seed); err != nil || rep.Copied != 1 {
				t.Errorf("%+v, %v", rep, err)
			}
		}, func(string) {}}, repo.CopyOptions{})
		if err != nil || !done {
			t.Fatal(err)
		}
		if err := repotest.Verify(target, 1); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		names := repotest.FilesIn(t, target, repotest.SnapshotsDir)
		if len(names) != 1 || rep.Snapshots[0].Copy == nil || names[0] != repotest.SnapshotsDir+rep.Snapshots[0].Copy.String() {
			t.Errorf("seed %d: %v, %+v", seed, names, rep.Snapshots)
		}
	}
}

// If two processes copy the same certificates at the same time, each shows once, and the
// next forget removes the other.
func TestCopyCertificatesAtTheSameTime(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	source, target := repotest.New(t, 1, 2), repotest.NewOther(t)
	if err := repotest.CertifyAll(ctx, source, repotest.Secret, 70); err != nil {
		t.Fatal(err)
	}
	done := false
	other := func(name string) {
		if !done && strings.HasPrefix(name, repotest.CertificatesDir) {
			done = true
			if _, err := copyBeside(ctx, source, target, 60); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := copyAll(ctx, source, &putHook{target, other, func(string) {}}, repo.CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	if files := repotest.FilesIn(t, target, repotest.CertificatesDir); !done || len(files) <= 2 {
		t.Fatalf("%d files", len(files))
	}
	r := repotest.MustOpen(t, target)
	list, _, err := r.Certificates(ctx)
	if err != nil || len(list) != 2 {
		t.Fatalf("%d certificates, %v", len(list), err)
	}
	gone, err := repotest.FindDay(ctx, r, 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Forget(ctx, gone.ID); err != nil {
		t.Fatal(err)
	}
	again, _, err := r.Certificates(ctx)
	if files := repotest.FilesIn(t, target, repotest.CertificatesDir); err != nil || len(files) != 1 || len(again) != 1 {
		t.Errorf("%q, %+v, %v", files, again, err)
	}
}

// A record of the target that cannot be read does not stop a copy. Its snapshot is copied
// again; when the record can be read again, one of both is removed.
func TestCopyBesideAnUnreadableRecord(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	source, target := repotest.New(t, 1, 2, 3), repotest.NewOther(t)
	if _, err := copyAll(ctx, source, target, repo.CopyOptions{}, 1, 2); err != nil {
		t.Fatal(err)
	}
	s, err := repotest.FindDay(ctx, repotest.MustOpen(t, target), 1)
	if err != nil {
		t.Fatal(err)
	}
	name := repotest.SnapshotsDir + s.ID.String()
	size := repotest.Size(t, target, repotest.PacksDir)
	broken := fault.New(target, fault.Unreadable(name, syscall.EIO))
	rep, err := copyAll(ctx, source, broken, repo.CopyOptions{}, 1, 2)
	if err != nil || rep.Copied != 1 || rep.Present != 1 || !slices.Equal(rep.TargetDamaged, []string{name}) {
		t.Fatalf("%+v, %v", rep, err)
	}
	if more := repotest.Size(t, target, repotest.PacksDir) - size; more > 0 {
		t.Errorf("a second record took %d bytes of packs", more)
	}
	if err := repotest.Verify(target, 1, 1, 2); err != nil {
		t.Fatal(err)
	}
	if rep, err = copyAll(ctx, source, target, repo.CopyOptions{DryRun: true}); err != nil || rep.Copied != 1 || rep.Present != 2 {
		t.Fatalf("%+v, %v", rep, err)
	}
	if err := repotest.Verify(target, 1, 1, 2); err != nil {
		t.Fatalf("after a dry run: %v", err)
	}
	if rep, err = copyAll(ctx, source, target, repo.CopyOptions{}); err != nil || rep.Copied != 1 || rep.Present != 2 || len(rep.TargetDamaged) > 0 {
		t.Fatalf("%+v, %v", rep, err)
	}
	if err := repotest.Verify(target, 1, 2, 3); err != nil {
		t.Error(err)
	}
}
