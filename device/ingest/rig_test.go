package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/materialize"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/foldertest"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/repotest"
	"github.com/snap-backup/snap/repo/tree"
)

// options returns repository options that make a process repeatable. A larger
// seed stands for a later process. Packs are small, so that there are several.
// seed is the seed of a process's randomness, and the number of days by which its
// clock is ahead of 2027-01-01. Each process of a test has another one.
type seed byte

func options(n seed) repo.Options {
	opts := repotest.Options(byte(n))
	opts.PackSize = 16 << 10
	opts.Now = repotest.Clock(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, int(n)), time.Minute)
	return opts
}

func createRepo(t testing.TB, be backend.Backend) *repo.Repo {
	t.Helper()
	r, err := repo.Create(context.Background(), be, repotest.Secret, repotest.SlotInfo, options(seed(1)))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func openRepo(be backend.Backend, n seed) (*repo.Repo, error) {
	return repotest.Open(context.Background(), be, repotest.Secret, options(n))
}

func mustOpen(t testing.TB, be backend.Backend, n seed) *repo.Repo {
	t.Helper()
	return repotest.MustOpenWith(t, be, repotest.Secret, options(n))
}

func importDir(r *repo.Repo, dir string, opts Options) (*Result, error) {
	ctx := context.Background()
	b, err := mobilesync.Open(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	return Import(ctx, r, b, opts)
}

func mustImport(t testing.TB, r *repo.Repo, dir string, opts Options) *Result {
	t.Helper()
	res, err := importDir(r, dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// materializeSame materializes a snapshot and compares it with the wanted contents.
func materializeSame(r *repo.Repo, s *repo.Snapshot, target string, want foldertest.Contents) error {
	res, err := materialize.Write(context.Background(), r, s, target, materialize.Options{Workers: 1})
	if err != nil {
		return err
	}
	got, err := foldertest.Read(res.Dir)
	if err != nil {
		return err
	}
	if err := want.Diff(got); err != nil {
		return fmt.Errorf("snapshot %s: %w", s.ID.Short(), err)
	}
	left, err := os.ReadDir(target)
	if err == nil && len(left) != 1 {
		err = fmt.Errorf("%d entries are left in %s", len(left), target)
	}
	return err
}

// readBack returns the contents of a snapshot without materializing it.
func readBack(r *repo.Repo, s *repo.Snapshot) (foldertest.Contents, error) {
	ctx := context.Background()
	p := foldertest.Contents{}
	err := r.Walk(ctx, s, "", func(e *tree.Entry) error {
		mode := fs.FileMode(e.Mode)
		var content bytes.Buffer
		if e.Kind == tree.Dir {
			mode |= fs.ModeDir
		} else if err := blob.Write(ctx, r, &content, e); err != nil {
			return err
		}
		p[e.Path] = foldertest.Describe(mode, e.ModTime.Time().UnixNano(), content.Bytes())
		return nil
	})
	return p, err
}

// wantSame compares a snapshot with the wanted contents without materializing it.
func wantSame(r *repo.Repo, s *repo.Snapshot, want foldertest.Contents) error {
	got, err := readBack(r, s)
	if err != nil {
		return err
	}
	return want.Diff(got)
}

// checkDays opens a repository, reads every snapshot and checks everything.
// contents has the wanted content of each snapshot, by the day of the
// snapshot's time. checkDays returns the days. Check may complain only about the
// files in torn.
func checkDays(be backend.Backend, contents map[int]foldertest.Contents, torn ...string) ([]int, error) {
	ctx := context.Background()
	r, err := openRepo(be, seed(99))
	if err != nil {
		return nil, err
	}
	list, damaged, err := r.Snapshots(ctx)
	damaged = slices.DeleteFunc(damaged, func(err error) bool {
		var d *repo.DamageError
		return errors.As(err, &d) && slices.Contains(torn, d.File)
	})
	if err != nil || len(damaged) > 0 {
		return nil, fmt.Errorf("snapshots: %v, damaged %v", err, damaged)
	}
	days := []int{}
	for _, s := range list {
		got, err := readBack(r, s)
		if err == nil {
			err = contents[s.Time.Day()].Diff(got)
		}
		if err != nil {
			return nil, fmt.Errorf("day %d: %w", s.Time.Day(), err)
		}
		days = append(days, s.Time.Day())
	}
	report, err := r.Check(ctx, repo.CheckOptions{ReadData: 1})
	if err != nil {
		return nil, err
	}
	if len(report.Affected) > 0 || slices.ContainsFunc(report.Problems, func(p repo.Problem) bool { return !slices.Contains(torn, p.File) }) {
		return nil, fmt.Errorf("check: %+v, torn are %v", report, torn)
	}
	return days, nil
}

// count reads the tree of a snapshot and returns the number of its files and
// their bytes.
func count(t testing.TB, r *repo.Repo, s *repo.Snapshot) (files, bytes int64) {
	t.Helper()
	err := r.Walk(context.Background(), s, "", func(e *tree.Entry) error {
		if e.Kind == tree.File {
			files++
			bytes += e.Content.Size
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files, bytes
}
