package repotest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/tree"
)

// A Job is an operation that changes a repository with days 1 to 3, each with a
// certificate. A job that has failed can be run again, and then ends as if it had not
// failed.
type Job struct {
	Name      string
	run       func(be backend.Backend) error
	mayRemove []int // days that it may remove
	adds      int   // a day that it stores, 0 for none
	// prepare, if not nil, prepares the repository. verify then returns an error if
	// anything that prepare stored is lost.
	prepare func(be backend.Backend) error
	verify  func(be backend.Backend) error
	// after, if not nil, returns an error if something is wrong after a run that did
	// not fail.
	after func(be backend.Backend) error
}

// jobRunner opens a repository, locks it and does a job. Every time it uses another
// seed, as different processes would, so that it stores other files.
type jobRunner struct{ processes atomic.Uint32 }

func (j *jobRunner) with(kind repo.LockKind, do func(ctx context.Context, r *repo.Repo) error) func(be backend.Backend) error {
	ctx := context.Background()
	return func(be backend.Backend) error {
		opts := SmallPacks(byte(j.processes.Add(1)))
		opts.Refresh = -1
		r, err := repo.Open(ctx, be, Secret, opts)
		if err != nil {
			return err
		}
		l, err := r.Lock(ctx, kind, "job")
		if err != nil {
			return err
		}
		err = r.LoadIndex(ctx)
		if err == nil {
			err = do(ctx, r)
		}
		return errors.Join(err, l.Release())
	}
}

func (j *jobRunner) label(labels repo.Labels) func(be backend.Backend) error {
	return j.with(repo.LockWrite, func(ctx context.Context, r *repo.Repo) error {
		s, err := FindDay(ctx, r, 1)
		if err == nil {
			_, err = r.ChangeSnapshot(ctx, s, labels)
		}
		return err
	})
}

// Jobs returns all operations that change a repository.
func Jobs(t testing.TB) []Job {
	t.Helper()
	j := &jobRunner{}
	source := NewForeign(t, 3, 4)
	if err := CertifyAll(context.Background(), source, OtherSecret, 97); err != nil {
		t.Fatal(err)
	}
	return append(j.backupJobs(), j.maintenanceJobs(source)...)
}

// backupJobs returns the jobs that store and describe backups.
func (j *jobRunner) backupJobs() []Job {
	type action = func(ctx context.Context, r *repo.Repo) error
	write := func(do action) func(backend.Backend) error { return j.with(repo.LockWrite, do) }
	return []Job{
		{Name: "store", adds: 4, run: write(func(ctx context.Context, r *repo.Repo) error {
			s, err := FindDay(ctx, r, 3)
			if err == nil {
				_, err = StoreAfter(ctx, r, Day(4), 4, s)
			}
			return err
		})},
		{Name: "continue", adds: 4, run: write(continueBackup), verify: verifyArrived,
			prepare: write(func(ctx context.Context, r *repo.Repo) error {
				u, err := r.NewUnfinished(repo.UnfinishedBackup, JobUDID)
				if err != nil {
					return err
				}
				return Receive(ctx, r, u, arrived[0], Day(4)[arrived[0]])
			})},
		{Name: "forget", mayRemove: []int{1, 2}, run: write(func(ctx context.Context, r *repo.Repo) error {
			return ForgetDays(ctx, r, 1, 2)
		})},
		{Name: "tag", run: j.label(repo.Labels{Tags: []string{"weekly"}})},
		{Name: "pin", run: j.label(repo.Labels{Pin: &repo.Pin{Reason: "why"}})},
		{Name: "note", run: j.label(repo.Labels{Note: "note"})},
		{Name: "certify", run: j.with(repo.LockRead, func(ctx context.Context, r *repo.Repo) error {
			s, err := FindDay(ctx, r, 1)
			if err == nil {
				_, err = Certify(ctx, r, s)
			}
			return err
		})},
		{Name: "add-key", run: write(func(ctx context.Context, r *repo.Repo) error {
			_, err := r.AddKey(ctx, OtherSecret, SlotInfo)
			if errors.Is(err, repo.ErrKeyExists) {
				return nil // added by the run that was killed
			}
			return err
		})},
		{Name: "keep-password", run: write(func(ctx context.Context, r *repo.Repo) error {
			return r.KeepDevicePassword(ctx, JobUDID, []byte("password"))
		})},
		{Name: "interrupt", run: write(func(ctx context.Context, r *repo.Repo) error {
			u, err := r.NewUnfinished(repo.UnfinishedBackup, JobUDID)
			if err != nil {
				return err
			}
			return Receive(ctx, r, u, "bb/arrived", Noise(9, 50<<10))
		})},
	}
}

// maintenanceJobs returns all other jobs. The job "copy" copies from source.
func (j *jobRunner) maintenanceJobs(source backend.Backend) []Job {
	return []Job{
		{Name: "prune", mayRemove: []int{1, 2}, after: noOrphans, run: j.with(repo.LockPrune, func(ctx context.Context, r *repo.Repo) error {
			err := ForgetDays(ctx, r, 1, 2)
			if err == nil {
				_, err = r.Prune(ctx, NoWaste)
			}
			return err
		})},
		{Name: "parity", run: j.with(repo.LockWrite, func(ctx context.Context, r *repo.Repo) error {
			_, err := r.RefreshParity(ctx, 50_00, nil)
			return err
		})},
		{Name: "check", run: j.with(repo.LockRead, func(ctx context.Context, r *repo.Repo) error {
			_, err := r.Check(ctx, repo.CheckOptions{ReadData: 1})
			return err
		})},
		{Name: "reserve", run: j.with(repo.LockWrite, func(ctx context.Context, r *repo.Repo) error {
			return r.MakeReserve(ctx)
		})},
		{Name: "copy", adds: 4, after: verifyCopied, run: j.with(repo.LockWrite, func(ctx context.Context, r *repo.Repo) error {
			from, err := Open(ctx, source, OtherSecret, SmallPacks(98))
			if err != nil {
				return err
			}
			list, _, err := from.Snapshots(ctx)
			if err == nil {
				_, err = from.CopyTo(ctx, r, list, repo.CopyOptions{})
			}
			return err
		})},
		{Name: "repair-index", run: j.with(repo.LockExclusive, func(ctx context.Context, r *repo.Repo) error {
			_, err := r.RepairIndex(ctx, repo.RepairOptions{})
			return err
		})},
		{Name: "repair-packs", run: j.with(repo.LockExclusive, func(ctx context.Context, r *repo.Repo) error {
			_, err := r.RepairPacks(ctx, repo.RepairOptions{})
			return err
		})},
		{Name: "repair-snapshots", run: j.with(repo.LockExclusive, func(ctx context.Context, r *repo.Repo) error {
			_, err := r.RepairSnapshots(ctx, repo.SnapshotRepairOptions{})
			return err
		})},
	}
}

// Survives makes the job fail at want steps, and kills it at want steps, with and without
// torn files. Nothing may be lost, check must report the torn files and no others, and
// the next run must succeed.
func (j Job) Survives(t *testing.T, want int) {
	t.Helper()
	run := Run{Base: New(t, 1, 2, 3), Do: j.run, Want: want}
	if err := CertifyAll(context.Background(), run.Base, Secret, 96); err != nil {
		t.Fatal(err)
	}
	if j.prepare != nil {
		if err := j.prepare(run.Base); err != nil {
			t.Fatal(err)
		}
	}
	judge := func(be *memory.Backend) error {
		bad := DamagedFiles(t, be)
		if err := j.judge(be, false, bad); err != nil {
			return err
		}
		if j.verify != nil {
			if err := j.verify(be); err != nil {
				return err
			}
		}
		if err := j.rerun(be); err != nil {
			return err
		}
		if err := j.judge(be, true, bad); err != nil || j.after == nil {
			return err
		}
		return j.after(be)
	}
	EveryFault(t, run, func(be *memory.Backend, _ error) error { return judge(be) })
	EveryCrash(t, run, judge)
	EveryTear(t, run, judge)
}

// judge returns an error unless every listed snapshot can be restored, check reports no
// files except those in bad, and all days that the job may not remove exist. If done is
// true, the day that the job stores must exist, too.
func (j Job) judge(be *memory.Backend, done bool, bad []string) error {
	v, err := Examine(be, Secret)
	if err != nil {
		return err
	}
	for _, day := range []int{1, 2, 3} {
		if !slices.Contains(v.Days, day) && !slices.Contains(j.mayRemove, day) {
			return fmt.Errorf("day %d is gone: %v", day, v.Days)
		}
	}
	if done && j.adds != 0 && !slices.Contains(v.Days, j.adds) {
		return fmt.Errorf("day %d was not stored: %v", j.adds, v.Days)
	}
	if len(v.Report.Affected) > 0 {
		return fmt.Errorf("check: %+v", v.Report)
	}
	if err := certified(be); err != nil {
		return err
	}
	for _, p := range v.Report.Problems {
		if !slices.Contains(bad, p.File) {
			return fmt.Errorf("check reports %+v, but only %v are torn", p, bad)
		}
	}
	return nil
}

// rerun runs the job once more. If that fails with ErrDamaged, it repairs the
// repository and tries again.
func (j Job) rerun(be *memory.Backend) error {
	RemoveAllLocks(be)
	err := j.run(be)
	if errors.Is(err, repo.ErrDamaged) {
		if err := RepairAll(be); err != nil {
			return fmt.Errorf("repair: %w", err)
		}
		err = j.run(be)
	}
	if err != nil {
		return fmt.Errorf("next run: %w", err)
	}
	return nil
}

// JobUDID is the device of unfinished backups and kept passwords.
const JobUDID = "00008110-0011223344556677"

// arrived are the files of day 4 that a device sends: the first before its backup is
// interrupted, the others when it continues.
var arrived = []string{"bb/new0", "bb/new1", "ee/settings0"}

// Receive stores one more file of an unfinished backup.
func Receive(ctx context.Context, r *repo.Repo, u *repo.Unfinished, path string, data []byte) error {
	return ReceiveAll(ctx, r, u, map[string][]byte{path: data})
}

// ReceiveAll is like Receive, for several files in one part.
func ReceiveAll(ctx context.Context, r *repo.Repo, u *repo.Unfinished, files map[string][]byte) error {
	w := r.NewWriter(ctx)
	defer w.Close()
	content := w.NewContentWriter()
	b := tree.NewBuilder(w.SaveNode, nil)
	for _, path := range slices.Sorted(maps.Keys(files)) {
		c, err := content.Store(ctx, bytes.NewReader(files[path]), nil)
		if err != nil {
			return err
		}
		if err := b.Add(ctx, &tree.Entry{Path: path, Content: c}); err != nil {
			return err
		}
	}
	root, err := b.Finish(ctx)
	if err != nil {
		return err
	}
	if err := content.Flush(ctx); err != nil {
		return err
	}
	if err := w.Finish(ctx); err != nil {
		return err
	}
	u.Parts = append(u.Parts, root)
	u.SetStats(u.Stats().Add(w.Stats()))
	return r.SaveUnfinished(ctx, u)
}

// Received returns the files of an unfinished backup.
func Received(ctx context.Context, r *repo.Repo, u *repo.Unfinished) (map[string]string, error) {
	got := map[string]string{}
	err := r.WalkUnfinished(ctx, u, func(e *tree.Entry) error {
		var b bytes.Buffer
		err := r.WriteContent(ctx, &b, &e.Content)
		got[e.Path] = b.String()
		return err
	})
	return got, err
}

// continueBackup continues the unfinished backup of day 4, or starts one. It receives
// two more files and saves the record after each. Then it makes a snapshot of all files
// of the day.
func continueBackup(ctx context.Context, r *repo.Repo) error {
	list, _, err := r.Unfinished(ctx)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		u, err := r.NewUnfinished(repo.UnfinishedBackup, JobUDID)
		if err != nil {
			return err
		}
		list = append(list, u)
	}
	u := list[0]
	all := Day(4)
	for _, path := range arrived[1:] {
		if err := Receive(ctx, r, u, path, all[path]); err != nil {
			return err
		}
	}
	has := map[string]tree.Content{}
	if err := r.WalkUnfinished(ctx, u, func(e *tree.Entry) error { has[e.Path] = e.Content; return nil }); err != nil {
		return err
	}
	w := r.NewWriter(ctx)
	defer w.Close()
	w.Continue(u.Stats())
	content := w.NewContentWriter()
	b := tree.NewBuilder(w.SaveNode, nil)
	s := &repo.Snapshot{Time: time.Date(2026, 1, 4, 8, 0, 0, 0, time.UTC), Device: repo.Device{UDID: JobUDID}, Complete: true}
	for _, path := range slices.Sorted(maps.Keys(all)) {
		c, ok := has[path]
		if !ok {
			if c, err = content.Store(ctx, bytes.NewReader(all[path]), nil); err != nil {
				return err
			}
		}
		if err := b.Add(ctx, &tree.Entry{Path: path, Mode: 0o644, Content: c}); err != nil {
			return err
		}
		s.Files++
		s.Bytes += c.Size
	}
	if err := content.Flush(ctx); err != nil {
		return err
	}
	if s.Root, err = b.Finish(ctx); err != nil {
		return err
	}
	if err := w.Commit(ctx, s); err != nil {
		return err
	}
	return r.RemoveUnfinished(ctx, u)
}

// verifyArrived returns an error unless there is a snapshot of day 4 or a record of the
// unfinished backup. The record must have the first file, and all its files must be
// readable.
func verifyArrived(be backend.Backend) error {
	ctx := context.Background()
	r, err := Open(ctx, be, Secret, SmallPacks(3))
	if err != nil {
		return err
	}
	if _, err := FindDay(ctx, r, 4); err == nil {
		return nil
	}
	list, _, err := r.Unfinished(ctx)
	if err != nil || len(list) != 1 {
		return fmt.Errorf("unfinished backups: %d, %w", len(list), err)
	}
	got, err := Received(ctx, r, list[0])
	if err != nil {
		return fmt.Errorf("read the arrived files: %w", err)
	}
	if _, ok := got[arrived[0]]; !ok {
		return fmt.Errorf("%s had arrived and is gone", arrived[0])
	}
	for path, b := range got {
		if b != string(Day(4)[path]) {
			return fmt.Errorf("%s has other bytes than those that arrived", path)
		}
	}
	return nil
}
