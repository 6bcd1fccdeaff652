package receive

import (
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"time"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/catalog"
	"github.com/snap-backup/snap/device/ingest/spool"
	"github.com/snap-backup/snap/device/judge"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/protocol/backup2"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/tree"
)

// smallFile is the size in bytes up to which a file is collected in memory.
// Most files are smaller, and need no goroutine.
const smallFile = 512 << 10

// upload is a file that is being received. It begins in the spool or in a
// buffer. If it outgrows them, a goroutine stores it as it arrives, through a
// pipe.
type upload struct {
	r    *Receiver
	ctx  context.Context
	path string
	prev *tree.Content // content that is probably similar

	spooling bool
	overflow bool // it did not fit in the spool
	size     int64
	head     []byte     // the first bytes of Status.plist
	maxHead  int        // how many of them are wanted
	sum      hash.Hash  // of a blob that is not spooled, nil for others
	ends     judge.Ends // of a blob that has a sum

	pipe   *io.PipeWriter // nil until the file is streamed
	stop   []func() bool  // stop watching contexts
	stored chan result
	ended  bool
}

type result struct {
	content tree.Content
	err     error
}

// Create implements backup2.Folder. Only one file can be received at a time.
func (r *Receiver) Create(ctx context.Context, path string) (backup2.Upload, error) {
	p, err := r.below(path)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.closed:
		return nil, fmt.Errorf("receive %s: the backup has ended: %w", p, fs.ErrClosed)
	case r.busy:
		return nil, fmt.Errorf("receive %s: another file is still being received", p)
	case p == "" || !tree.CleanPath(p):
		return nil, fmt.Errorf("receive %q: %w", path, fs.ErrInvalid)
	case r.broken != nil:
		return nil, r.broken
	}
	// Until the file is complete, its name counts as not received: a later backup
	// must not show the device an earlier version.
	if err := r.changing(ctx, p); err != nil {
		return nil, err
	}
	r.complaints.drop(p)
	u := &upload{r: r, ctx: ctx, path: p, prev: r.predecessor(ctx, p)}
	if r.spool != nil && r.opts.Encrypted && needsKey(p) {
		u.spooling = true
		r.spool.Begin()
	}
	u.observe()
	if r.buf == nil {
		r.buf = make([]byte, 0, smallFile)
	}
	r.buf = r.buf[:0]
	r.busy = true
	return u, nil
}

// needsKey reports whether a device that encrypts its backups encrypts this file.
func needsKey(path string) bool {
	if rest, ok := catalog.InSnapshot(path); ok {
		path = rest
	}
	_, ok := blob.ParsePath(path, false)
	return ok || path == mobilesync.ManifestDB
}

// predecessor returns the content that the parent has of a file. It returns nil
// if that content is no use for deltas, such as encrypted bytes.
func (r *Receiver) predecessor(ctx context.Context, path string) *tree.Content {
	if r.before == nil || r.opts.Encrypted {
		return nil
	}
	if rest, ok := catalog.InSnapshot(path); ok {
		path = rest
	}
	e, err := r.before.Find(ctx, path)
	if err != nil || e == nil || e.Encryption == nil && r.parent.Encrypted {
		return nil
	}
	return &e.Content
}

// Write implements io.Writer. After an error the upload must be aborted.
func (u *upload) Write(p []byte) (int, error) {
	if u.ended {
		return 0, fs.ErrClosed
	}
	u.head = append(u.head, p[:min(len(p), u.maxHead-len(u.head))]...)
	if u.sum != nil {
		u.sum.Write(p)
		_, _ = u.ends.Write(p)
	}
	u.size += int64(len(p))
	if u.spooling {
		_, err := u.r.spool.Write(p)
		if err == nil {
			return len(p), nil
		}
		if !errors.Is(err, spool.ErrFull) && !backend.IsNoSpace(err) {
			return 0, err
		}
		if err := u.unspool(); err != nil {
			return 0, err
		}
	}
	if u.pipe == nil {
		if len(u.r.buf)+len(p) <= smallFile {
			u.r.buf = append(u.r.buf, p...)
			return len(p), nil
		}
		u.stream(bytes.NewReader(u.r.buf))
	}
	n, err := u.pipe.Write(p)
	if errors.Is(err, io.ErrClosedPipe) && u.ctx.Err() != nil {
		err = context.Cause(u.ctx)
	}
	return n, noSpace(err)
}

// observe decides what to remember of a file. A file in the spool is read again at the
// end, and judged then.
func (u *upload) observe() {
	switch {
	case u.path == mobilesync.StatusPlist:
		u.maxHead = maxStatus
	case !u.spooling && needsKey(u.path) && finalPath(u.path) != mobilesync.ManifestDB:
		u.sum = sha1.New()
	}
}

// judge remembers what was observed of a file that was received completely.
func (u *upload) judge(number uint32) {
	if u.sum == nil {
		return
	}
	u.r.names.SetSum(number, catalog.Sum(u.sum.Sum(nil)))
	// Its name on the device is not known yet.
	if u.ends.CutDatabase("") {
		u.r.names.File(number).State |= catalog.Short
	}
	if u.ends.Zeros() {
		u.r.names.File(number).State |= catalog.Zeros
	}
}

// unspool starts to store this file in the repository: first the bytes in the
// spool, then the rest.
func (u *upload) unspool() error {
	u.spooling, u.overflow = false, true
	section, err := u.r.spool.Current()
	if err != nil {
		return noSpace(err)
	}
	u.stream(section)
	return nil
}

// stream starts to store a file: first the bytes of head, then the bytes that are
// written to the pipe.
func (u *upload) stream(head io.Reader) {
	pr, pw := io.Pipe()
	u.pipe, u.stored = pw, make(chan result, 1)
	for _, ctx := range []context.Context{u.ctx, u.r.ctx} {
		u.stop = append(u.stop, context.AfterFunc(ctx, func() { pw.CloseWithError(context.Cause(ctx)) }))
	}
	u.r.tasks.Go(func() {
		c, err := u.r.content.Store(u.r.ctx, io.MultiReader(head, pr), u.prev)
		if err != nil {
			pr.CloseWithError(err)
		}
		u.stored <- result{c, err}
	})
}

// Commit implements backup2.Upload.
func (u *upload) Commit() error {
	if u.ended {
		return fs.ErrClosed
	}
	r := u.r
	r.mu.Lock()
	defer r.mu.Unlock()
	number, err := u.store()
	u.ended, r.busy = true, false
	if err != nil {
		return fmt.Errorf("store %s: %w", u.path, noSpace(err))
	}
	u.judge(number)
	if err := r.names.Put(u.path, number, r.now); err != nil {
		return err
	}
	r.files++
	r.bytes += u.size
	r.checkpoint.bytes += u.size
	r.note(u.path)
	if u.path == mobilesync.StatusPlist {
		return noSpace(r.setStatus(u.ctx, parseStatus(u.head)))
	}
	return noSpace(r.saveIfDue(u.ctx))
}

// store stores the rest of the file and returns its number.
func (u *upload) store() (uint32, error) {
	r := u.r
	if u.spooling {
		off, size := r.spool.Commit(u.path)
		return r.names.AddSpooled(off, size, 0)
	}
	var res result
	err := r.await(u.ctx, func() error {
		if u.pipe == nil {
			res.content, res.err = r.content.Store(r.ctx, bytes.NewReader(r.buf), u.prev)
		} else {
			_ = u.pipe.Close()
			res = <-u.stored
		}
		return res.err
	})
	u.endStream()
	if err != nil {
		return 0, r.fail(err)
	}
	return r.names.Add(&res.content, 0)
}

// endStream ends a streamed file, whether or not it was stored. It drops the
// file's bytes in the spool.
func (u *upload) endStream() {
	for _, stop := range u.stop {
		stop()
	}
	if u.overflow {
		u.r.overflow += u.size
		u.r.spool.Abort()
	}
}

// Abort implements backup2.Upload.
func (u *upload) Abort() {
	if u.ended {
		return
	}
	r := u.r
	r.mu.Lock()
	defer r.mu.Unlock()
	u.ended, r.busy = true, false
	switch {
	case u.spooling:
		r.spool.Abort()
	case u.pipe != nil:
		_ = u.pipe.CloseWithError(errAborted)
		// A content writer can go on if its source failed, but not if storing
		// failed. Wait briefly to learn which, even if ctx has ended.
		wait, cancel := context.WithTimeout(context.WithoutCancel(u.ctx), abortTime)
		defer cancel()
		err := r.await(wait, func() error { return (<-u.stored).err })
		if err != nil && !errors.Is(err, errAborted) && (u.ctx.Err() == nil || !errors.Is(err, context.Cause(u.ctx))) {
			_ = r.fail(err)
		}
		u.endStream()
	}
}

// abortTime bounds how long storing may take to notice that a file was aborted.
const abortTime = 5 * time.Second

var errAborted = errors.New("the file was cut off")

// await calls fn and waits until it returns or ctx ends, since a store may
// hang. If ctx ends first, fn may run until release.
func (r *Receiver) await(ctx context.Context, fn func() error) error {
	done := make(chan error, 1)
	r.tasks.Go(func() { done <- fn() })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("storing was canceled: %w", context.Cause(ctx))
	}
}

// noSpace marks the error of a full store, so that the device is told.
func noSpace(err error) error {
	if err != nil && backend.IsNoSpace(err) && !errors.Is(err, backup2.ErrNoSpace) {
		return fmt.Errorf("%w: %w", backup2.ErrNoSpace, err)
	}
	return err
}
