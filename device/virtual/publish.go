package virtual

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"time"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/folder"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/transfer"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// PublishOptions say what else to note in a snapshot.
type PublishOptions struct {
	Tags     []string
	Workers  int // goroutines that open what was spooled; as many as cores if 0
	Progress *transfer.Progress
}

// Result says what a run has brought.
type Result struct {
	// Import is about the whole backup, as if it had been imported from a
	// folder. Its ReadFiles are those that waited for their keys.
	Import   *transfer.ImportResult
	Snapshot *repo.Snapshot
	Resumed  Resumed
	Files    int64 // received in this run
	Bytes    int64
	// Locked says why an encrypted backup was stored as it came; nil otherwise.
	Locked error
	// Overflow counts bytes that the spool could not take; see RunOptions.
	Overflow int64
	Problems []string
}

// Publish makes the backup a snapshot. It is called when the device has said
// that the backup is complete, and checks that: Status.plist says so, and every
// file that the manifest lists is there. What is not whole is
// transfer.ErrIncomplete, and dropped: the next run begins with the last
// snapshot. After any other failure what was received is kept.
func (n *Run) Publish(ctx context.Context, opts PublishOptions) (*Result, error) {
	n.mu.Lock()
	err := n.ready(ctx)
	n.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("publish the backup of %s: %w", n.opts.UDID, err)
	}
	res := &Result{Resumed: n.resumed, Files: n.files, Bytes: n.bytes, Overflow: n.overflow, Problems: n.problems}
	if err := n.enter(ctx, opts, res); err != nil {
		err = fmt.Errorf("publish the backup of %s: %w", n.opts.UDID, err)
		if errors.Is(err, transfer.ErrIncomplete) {
			err = errors.Join(err, n.Discard(ctx))
		}
		return nil, err
	}
	// The snapshot is durable. What cannot be tidied up now, the next run finds
	// to be outdated.
	if err := n.tidy(ctx); err != nil {
		res.Problems = append(res.Problems, fmt.Sprintf("the snapshot is complete, but what is left of the run could not be removed: %v", err))
	}
	return res, nil
}

// ready refuses to publish what cannot be whole, and makes durable all that was
// received.
func (n *Run) ready(ctx context.Context) error {
	switch {
	case n.closed:
		return fmt.Errorf("the run has ended: %w", fs.ErrClosed)
	case n.busy:
		return errors.New("a file is still being received")
	case n.broken != nil:
		return n.broken
	case n.status.state != stateFinished:
		return fmt.Errorf("the device has not finished: its Status.plist says %q", n.status.state)
	}
	for _, name := range []string{mobilesync.StatusPlist, mobilesync.ManifestPlist, mobilesync.ManifestDB} {
		if _, ok := n.names.numberOf(name); !ok {
			return fmt.Errorf("the device has sent no %s", name)
		}
	}
	if err := n.save(ctx); err != nil {
		return err
	}
	if n.spool != nil {
		if err := n.spool.flush(); err != nil {
			return err
		}
	}
	return n.rotate(ctx)
}

// enter makes the snapshot of what is there.
func (n *Run) enter(ctx context.Context, opts PublishOptions, res *Result) error {
	b, err := mobilesync.OpenStore(ctx, &store{n, ctx}, n.opts.UDID)
	if err != nil {
		return err
	}
	defer b.Close()
	forget, err := n.unlock(ctx, b, res)
	if err != nil {
		return err
	}
	defer forget()
	if opts.Workers <= 0 {
		opts.Workers = runtime.GOMAXPROCS(0)
	}
	res.Import, err = transfer.Import(ctx, n.r, b, transfer.ImportOptions{
		Tags: opts.Tags, Host: n.opts.Host, Program: n.opts.Program, Workers: opts.Workers, Progress: opts.Progress,
		Received: &transfer.Received{
			Parent: n.parent,
			Source: repo.Source{Kind: repo.FromDevice, Folder: n.opts.UDID, RunID: b.StatusUUID(), Full: n.status.full},
			Before: n.stats,
			Held:   n.held,
		},
	})
	if err != nil {
		return err
	}
	res.Snapshot = res.Import.Snapshot
	return nil
}

// unlock opens an encrypted backup, if a password is at hand. forget clears
// what that took.
func (n *Run) unlock(ctx context.Context, b *mobilesync.Backup, res *Result) (forget func(), err error) {
	forget = func() {}
	if !b.Encrypted() {
		return forget, nil
	}
	if n.opts.Unlock != nil {
		err = n.opts.Unlock(ctx, b)
	} else {
		forget, err = n.unlockKept(ctx, b)
	}
	if errors.Is(err, keybag.ErrWrongPassword) || errors.Is(err, mobilesync.ErrNotUnlockable) || errors.Is(err, errNoPassword) {
		res.Locked, err = err, nil
	}
	return forget, err
}

var errNoPassword = errors.New("the backup password is not known")

// unlockKept tries the passwords that the repository keeps.
func (n *Run) unlockKept(ctx context.Context, b *mobilesync.Backup) (func(), error) {
	nothing := func() {}
	kept, err := n.r.DevicePasswords(ctx, n.opts.UDID)
	if err != nil {
		return nothing, err
	}
	defer func() {
		for i := range kept {
			clear(kept[i].Password)
		}
	}()
	err = errNoPassword
	for i := range kept {
		var keys *keybag.Keys
		if keys, err = b.Unlock(ctx, kept[i].Password, nil); err == nil {
			return keys.Destroy, nil
		}
		if !errors.Is(err, keybag.ErrWrongPassword) {
			break
		}
	}
	return nothing, err
}

// held tells what the repository has of a file.
func (n *Run) held(ctx context.Context, path string) (*transfer.Held, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f, ok := n.names.lookup(path)
	switch {
	case !ok:
		return nil, fmt.Errorf("%s: %w", path, fs.ErrNotExist)
	case f.file != nil && f.file.state&spooled != 0:
		return nil, nil
	case f.file != nil:
		e := tree.Entry{Mode: fileMode, ModTime: n.now.UnixNano(), Content: n.names.content(f.file)}
		return &transfer.Held{Entry: e}, nil
	}
	e := f.entry
	if e == nil {
		var err error
		if e, err = n.names.old.entry(ctx, f.blob); err != nil {
			return nil, err
		}
	}
	return &transfer.Held{Entry: *e, Final: n.parent.Unlocked}, nil
}

// tidy removes what the snapshot has made needless.
func (n *Run) tidy(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	sp := n.spool
	n.spool = nil
	n.letGo()
	var errs []error
	if sp != nil {
		errs = append(errs, sp.remove())
	}
	errs = append(errs, n.r.RemoveUnfinished(ctx, n.checkpoint.record), removeRekeys(ctx, n.r, n.opts.UDID))
	return errors.Join(errs...)
}

// store shows a run as a backup to be judged and entered.
type store struct {
	n   *Run
	ctx context.Context
}

var _ folder.Store = (*store)(nil)

// Open implements folder.Store. Nothing asks for files that have to be
// sealed again: the importer takes over what the parent has of those.
func (s *store) Open(path string) (folder.Content, error) {
	f, err := s.n.open(s.ctx, path)
	if err != nil {
		return nil, err
	}
	c, ok := f.(folder.Content)
	if !ok {
		f.Close()
		return nil, fmt.Errorf("open %s: it is sealed: %w", path, errors.ErrUnsupported)
	}
	return c, nil
}

// Stat implements folder.Store.
func (s *store) Stat(path string) (folder.File, error) {
	s.n.mu.RLock()
	defer s.n.mu.RUnlock()
	if d, ok := s.n.names.dirs[path]; ok {
		return dirFile(path, &d), nil
	}
	f, ok := s.n.names.lookup(path)
	if !ok {
		return folder.File{}, fmt.Errorf("%s: %w", path, fs.ErrNotExist)
	}
	size := int64(0)
	switch {
	case f.file != nil:
		size = f.file.size
	case f.entry != nil:
		size = blobSize(f.entry)
	default:
		size = s.n.names.old.blobs[f.blob].size()
	}
	return s.file(path, size), nil
}

// List implements folder.Store.
func (s *store) List(dir string) ([]folder.File, error) {
	s.n.mu.RLock()
	defer s.n.mu.RUnlock()
	items, err := s.n.names.list(dir)
	if err != nil {
		return nil, err
	}
	out := make([]folder.File, len(items))
	for i, it := range items {
		path := it.name
		if dir != "" {
			path = dir + "/" + it.name
		}
		if it.dir != nil {
			out[i] = dirFile(path, it.dir)
			continue
		}
		out[i] = s.file(path, it.size)
	}
	return out, nil
}

// file describes a file; what the parent has of it replaces mode and time
// later.
func (s *store) file(path string, size int64) folder.File {
	return folder.File{Path: path, Mode: fileMode, Size: size, ModTime: s.n.now}
}

func dirFile(path string, e *tree.Entry) folder.File {
	return folder.File{Path: path, Dir: true, Mode: fs.ModeDir | fs.FileMode(e.Mode).Perm(), ModTime: time.Unix(0, e.ModTime)}
}
