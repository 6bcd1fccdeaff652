package transfer

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/folder"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
	"golang.org/x/sync/errgroup"
)

// ImportOptions say how to import.
type ImportOptions struct {
	// AllowIncomplete stores a backup that is unfinished, damaged or changing,
	// and marks the snapshot as incomplete.
	AllowIncomplete bool
	// Rescan reads every file, also those that look unchanged.
	Rescan bool
	// SkipIfUnchanged makes no snapshot of a backup that has the same files as
	// its parent.
	SkipIfUnchanged bool
	Tags            []string
	Host            string
	Program         string // name and version, for the record
	Workers         int    // goroutines that read, at least 1
	Progress        *Progress
	// Received is for a backup that a device has just sent; nil for a folder.
	Received *Received
}

// ImportResult says what Import did.
type ImportResult struct {
	Snapshot  *repo.Snapshot `json:"snapshot"`
	Unchanged bool           `json:"unchanged"` // SkipIfUnchanged applied: Snapshot is the parent
	Files     int64          `json:"files"`
	Bytes     int64          `json:"bytes"`
	ReadFiles int64          `json:"read_files"` // not recognised as unchanged
	ReadBytes int64          `json:"read_bytes"`
	// Of an unlocked backup: files that are stored as what they hold, and
	// those that had to be stored sealed.
	Unsealed int64               `json:"unsealed_files"`
	Raw      map[RawReason]int64 `json:"raw_files,omitempty"`
	Skipped  []string            `json:"skipped"`  // entries left out, with the reason
	Problems []Problem           `json:"problems"` // of the folder
	// Report is null if the manifest is unreadable, or nothing has changed
	// since the last import, so that it was not read.
	Report    *mobilesync.Report  `json:"report"` // files against manifest
	Anomalies *manifest.Anomalies `json:"anomalies"`
}

// Problem is one reason to doubt a backup; see mobilesync.Problem.
type Problem struct {
	Kind  mobilesync.ProblemKind `json:"kind"`
	Fatal bool                   `json:"fatal"`
	Text  string                 `json:"text"`
}

// IncompleteError says why a backup was refused. It is ErrIncomplete.
type IncompleteError struct {
	Dir     string
	Reasons []string
}

func (e *IncompleteError) Error() string {
	return fmt.Sprintf("%s: the backup is incomplete: %s", e.Dir, strings.Join(e.Reasons, "; "))
}

// Is makes errors.Is(err, ErrIncomplete) true.
func (e *IncompleteError) Is(target error) bool { return target == ErrIncomplete }

// Import stores one backup folder as a snapshot. The repository's index must
// have been loaded. After an error no snapshot was made; content that had been
// stored by then is found again by the next run.
func Import(ctx context.Context, r *repo.Repo, b *mobilesync.Backup, opts ImportOptions) (*ImportResult, error) {
	im := newImporter(r, b, opts)
	same, err := im.look(ctx)
	if err == nil {
		err = im.store(ctx, same)
	}
	if err != nil {
		return nil, err
	}
	return im.res, nil
}

func newImporter(r *repo.Repo, b *mobilesync.Backup, opts ImportOptions) *importer {
	if opts.Progress == nil {
		opts.Progress = &Progress{}
	}
	return &importer{r: r, b: b, opts: opts, res: &ImportResult{Skipped: []string{}, Problems: []Problem{}}}
}

// look finds out what there is to store. It reports whether that is just what
// the parent has.
func (im *importer) look(ctx context.Context) (same bool, err error) {
	if err := im.judge(ctx); err != nil {
		return false, err
	}
	if err := im.findParent(ctx); err != nil {
		return false, err
	}
	if same, err = im.same(ctx); err != nil || same {
		return same, err
	}
	im.opts.Progress.enter("reading manifest")
	if err := im.list(ctx); err != nil {
		return false, err
	}
	return false, im.lacking()
}

// importer is one run of Import.
type importer struct {
	r       *repo.Repo
	b       *mobilesync.Backup
	opts    ImportOptions
	res     *ImportResult
	items   []item // sorted by key
	records *manifest.Records
	parent  *repo.Snapshot

	// For the record; goroutines that read files note what they meet.
	mu       sync.Mutex
	problems []string
	complete bool
}

// mark notes why the snapshot is not of a complete backup.
func (im *importer) mark(why string) {
	im.mu.Lock()
	defer im.mu.Unlock()
	im.complete = false
	im.problems = append(im.problems, why)
}

// judge refuses a backup that is not whole, unless told to take it.
func (im *importer) judge(ctx context.Context) error {
	problems, err := im.b.Problems(ctx)
	if err != nil {
		return err
	}
	var reasons []string
	im.complete = true
	for _, p := range problems {
		im.res.Problems = append(im.res.Problems, Problem(p))
		if p.Fatal {
			reasons = append(reasons, p.Text)
			im.complete = false
		}
		im.problems = append(im.problems, p.Text)
	}
	if len(reasons) > 0 && !im.opts.AllowIncomplete {
		return &IncompleteError{im.b.Dir(), reasons}
	}
	return nil
}

// findParent looks for the snapshot that this backup most likely continues: of
// the same device, preferably from the same folder, the one stored last.
func (im *importer) findParent(ctx context.Context) error {
	if im.opts.Received != nil {
		im.parent = im.opts.Received.Parent
		return nil
	}
	list, _, err := im.r.Snapshots(ctx)
	if err != nil {
		return err
	}
	udid, source := im.b.Device().UDID, im.source()
	better := func(a, b *repo.Snapshot) bool { // a than b
		if b == nil {
			return true
		}
		sameA, sameB := a.Source.Path == source.Path, b.Source.Path == source.Path
		if sameA != sameB {
			return sameA
		}
		return a.StoredAt.After(b.StoredAt)
	}
	for _, s := range list {
		// One that was stored since the index was loaded cannot be read.
		if repo.SameDevice(s.Device.UDID, udid) && im.r.Index().Has(s.Root) && better(s, im.parent) {
			im.parent = s
		}
	}
	return nil
}

func (im *importer) source() repo.Source {
	if im.opts.Received != nil {
		return im.opts.Received.Source
	}
	dir := im.b.Dir()
	return repo.Source{
		Kind: repo.FromFolder, Path: dir, Folder: filepath.Base(dir),
		RunID: im.b.StatusUUID(), Full: im.b.FullBackup(), Archived: im.b.Archived(),
	}
}

// store reads what is new, unless all is the same as in the parent, and writes
// the snapshot.
func (im *importer) store(ctx context.Context, same bool) (err error) {
	w := im.r.NewWriter(ctx)
	defer w.Close()
	if im.opts.Received != nil {
		w.Continue(im.opts.Received.Before)
	}
	var root rootID
	if same {
		root = im.parent.Root
	} else {
		im.opts.Progress.enter("reading files")
		if root, err = im.content(ctx, w); err != nil {
			return err
		}
	}
	im.opts.Progress.enter("finishing")
	if err := im.b.CheckStable(ctx); err != nil {
		if !im.opts.AllowIncomplete || !errors.Is(err, folder.ErrChanged) {
			return err
		}
		im.mark(err.Error())
	}
	// Where the repository had lost something that is in this backup, it has
	// been stored anew and wants to be committed.
	if im.opts.SkipIfUnchanged && im.parent != nil && im.parent.Root == root && w.Stats().Chunks == 0 {
		im.res.Snapshot, im.res.Unchanged = im.parent, true
		return w.Close()
	}
	s := im.record()
	s.Root = root
	if err := w.Commit(ctx, s); err != nil {
		return err
	}
	im.res.Snapshot = s
	return nil
}

// record makes the snapshot record, but for what the writer knows.
func (im *importer) record() *repo.Snapshot {
	d := im.b.Device()
	s := &repo.Snapshot{
		Time: im.b.Date().UTC(),
		Host: im.opts.Host, Program: im.opts.Program,
		Device: repo.Device{
			UDID: d.UDID, Name: d.Name, ProductType: d.ProductType,
			ProductVersion: d.ProductVersion, BuildVersion: d.BuildVersion, SerialNumber: d.SerialNumber,
		},
		Source:    im.source(),
		Encrypted: im.b.Encrypted(), Unlocked: im.b.Unlocked(), Complete: im.complete,
		Tags:  im.opts.Tags,
		Files: im.res.Files, Bytes: im.res.Bytes,
	}
	if rep := im.res.Report; rep != nil && rep.Faults() > 0 {
		im.problems = append(im.problems, first(rep.Missing.Count, "a file that the manifest lists is missing", "files that the manifest lists are missing", rep.Missing.Names[0]))
	}
	if n := len(im.res.Skipped); n > 0 {
		im.problems = append(im.problems, first(n, "an entry of the folder was left out", "entries of the folder were left out", im.res.Skipped[0]))
	}
	s.Problems = im.problems
	if im.parent != nil {
		s.Parent = &im.parent.ID
	}
	return s
}

// first words a number of like things, of which it names the first.
func first(n int, one, many, name string) string {
	if n == 1 {
		return fmt.Sprintf("%s: %s", one, name)
	}
	return fmt.Sprintf("%d %s, the first is %s", n, many, name)
}

// content stores all files and their tree and returns its root.
func (im *importer) content(ctx context.Context, w *repo.Writer) (root rootID, err error) {
	var old *tree.Outline
	if im.parent != nil {
		old = im.r.Outline(ctx, im.parent)
	}
	g, gctx := errgroup.WithContext(ctx)
	work := make(chan *batch, aheadBatches)
	order := make(chan *batch, aheadBatches)
	g.Go(func() error {
		defer close(work)
		defer close(order)
		return im.plan(gctx, func(b *batch) error {
			for _, c := range []chan *batch{order, work} {
				select {
				case c <- b:
				case <-gctx.Done():
					return gctx.Err()
				}
			}
			return nil
		})
	})
	for range max(1, im.opts.Workers) {
		lane := w.NewContentWriter()
		g.Go(func() error {
			for b := range work {
				if err := im.read(gctx, lane, b); err != nil {
					return err
				}
				close(b.done)
			}
			return lane.Flush(gctx)
		})
	}
	g.Go(func() error {
		builder := tree.NewBuilder(w.SaveNode, old)
		for b := range order {
			select {
			case <-b.done:
			case <-gctx.Done():
				return gctx.Err()
			}
			for i := range b.entries {
				if b.gone[i] {
					continue
				}
				if err := builder.Add(gctx, &b.entries[i]); err != nil {
					return err
				}
			}
		}
		root, err = builder.Finish(gctx)
		return err
	})
	if err := g.Wait(); err != nil {
		return root, err
	}
	return root, nil
}
