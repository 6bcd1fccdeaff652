package ingest

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/folder"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/repo"
)

// Import stores the backup in a folder as a snapshot. The repository's index
// must have been loaded. If Import fails, no snapshot was made, but the next
// run reuses the content that was stored.
func Import(ctx context.Context, r *repo.Repo, b *mobilesync.Backup, opts Options) (*Result, error) {
	j := newJob(r, b, &folderSource{r: r, b: b, rescan: opts.Rescan}, opts)
	if err := j.begin(ctx); err != nil {
		return nil, err
	}
	same, err := j.sameAsParent(ctx)
	if err != nil {
		return nil, err
	}
	if same {
		return j.commit(ctx, func(context.Context, *repo.Writer) (chunk.ID, error) { return j.parent.Root, nil })
	}
	if err := j.list(ctx); err != nil {
		return nil, err
	}
	return j.commit(ctx, j.store)
}

// Publish is like Import, but for a backup that a device has just sent. Most of
// its content is already in the repository. Publish refuses a backup that lacks
// a file of its manifest: a folder may have lost the file long ago, but here it
// was not received.
func Publish(ctx context.Context, r *repo.Repo, b *mobilesync.Backup, src Source, opts Options) (*Result, error) {
	j := newJob(r, b, src, opts)
	if err := j.begin(ctx); err != nil {
		return nil, err
	}
	if err := j.list(ctx); err != nil {
		return nil, err
	}
	if rep := j.res.Report; rep != nil && rep.Faults() > 0 {
		return nil, &IncompleteError{b.Dir(), []string{first(rep.Missing.Count, "a file in the manifest was not received",
			"files in the manifest were not received", rep.Missing.Names[0])}}
	}
	return j.commit(ctx, j.store)
}

// job ingests one backup.
type job struct {
	r       *repo.Repo
	b       *mobilesync.Backup
	src     Source
	opts    Options
	res     *Result
	items   []item // sorted by key
	records *manifest.Records
	parent  *repo.Snapshot

	mu       sync.Mutex // guards the fields below, and counters of res, while files are read
	problems []string   // for the snapshot's record
	complete bool
}

func newJob(r *repo.Repo, b *mobilesync.Backup, src Source, opts Options) *job {
	if opts.Progress == nil {
		opts.Progress = &blob.Progress{}
	}
	return &job{r: r, b: b, src: src, opts: opts, res: &Result{Skipped: []string{}, Problems: []Problem{}}}
}

// begin finds the parent. It refuses an incomplete backup unless
// AllowIncomplete is set.
func (j *job) begin(ctx context.Context) error {
	problems, err := j.b.Problems(ctx)
	if err != nil {
		return err
	}
	var reasons []string
	j.complete = true
	for _, p := range problems {
		j.res.Problems = append(j.res.Problems, Problem(p))
		if p.Fatal {
			reasons = append(reasons, p.Text)
			j.complete = false
		}
		j.problems = append(j.problems, p.Text)
	}
	if len(reasons) > 0 && !j.opts.AllowIncomplete {
		return &IncompleteError{j.b.Dir(), reasons}
	}
	j.parent, err = j.src.Parent(ctx)
	return err
}

// mark records why the backup is incomplete.
func (j *job) mark(why string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.complete = false
	j.problems = append(j.problems, why)
}

// commit calls store and writes the snapshot. store stores the tree and returns
// its root.
func (j *job) commit(ctx context.Context, store func(context.Context, *repo.Writer) (chunk.ID, error)) (*Result, error) {
	w := j.r.NewWriter(ctx)
	defer w.Close()
	w.Continue(j.src.Written())
	root, err := store(ctx, w)
	if err != nil {
		return nil, err
	}
	j.opts.Progress.Enter("finishing")
	if err := j.b.CheckStable(ctx); err != nil {
		if !j.opts.AllowIncomplete || !errors.Is(err, folder.ErrChanged) {
			return nil, err
		}
		j.mark(err.Error())
	}
	// If the tree is the parent's and chunks were stored nevertheless, the
	// repository had lost them, and they must be committed.
	if j.opts.SkipIfUnchanged && j.parent != nil && j.parent.Root == root && w.Stats().Chunks == 0 {
		j.res.Snapshot, j.res.Unchanged = j.parent, true
		if err := w.Close(); err != nil {
			return nil, err
		}
		return j.res, nil
	}
	s := j.snapshot()
	s.Root = root
	if err := w.Commit(ctx, s); err != nil {
		return nil, err
	}
	j.res.Snapshot = s
	return j.res, nil
}

// snapshot returns the snapshot's record, without what the writer adds.
func (j *job) snapshot() *repo.Snapshot {
	d := j.b.Device()
	s := &repo.Snapshot{
		Time: j.b.Date().UTC(),
		Host: j.opts.Host, Program: j.opts.Program,
		Device: repo.Device{
			UDID: d.UDID, Name: d.Name, ProductType: d.ProductType,
			ProductVersion: d.ProductVersion, BuildVersion: d.BuildVersion, SerialNumber: d.SerialNumber,
		},
		Source:    j.src.Origin(),
		Encrypted: j.b.Encrypted(), Unlocked: j.b.Unlocked(), Complete: j.complete,
		Tags:  j.opts.Tags,
		Files: j.res.Files, Bytes: j.res.Bytes,
	}
	if rep := j.res.Report; rep != nil && rep.Faults() > 0 {
		j.problems = append(j.problems, first(rep.Missing.Count, "a file in the manifest is missing", "files in the manifest are missing", rep.Missing.Names[0]))
	}
	if n := len(j.res.Skipped); n > 0 {
		j.problems = append(j.problems, first(n, "an entry of the folder was left out", "entries of the folder were left out", j.res.Skipped[0]))
	}
	s.Problems = j.problems
	if j.parent != nil {
		s.Parent = &j.parent.ID
	}
	return s
}

// first describes n things of a kind and names the first.
func first(n int, one, many, name string) string {
	if n == 1 {
		return fmt.Sprintf("%s: %s", one, name)
	}
	return fmt.Sprintf("%d %s, the first is %s", n, many, name)
}
