package virtual

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/protocol/backup2"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/tree"
)

// smallFile is up to which length a file is gathered before it is stored, in
// bytes. Most are smaller, and need no goroutine.
const smallFile = 512 << 10

// upload is a file on its way. It begins in the spool or in a buffer; what
// outgrows these is stored as it comes, by a goroutine that reads the other end
// of a pipe.
type upload struct {
	n    *Run
	ctx  context.Context
	path string
	prev *tree.Content // what it is likely to resemble

	spooling bool
	overflow bool // the spool could not take it
	size     int64
	head     []byte // the first bytes of Status.plist

	pipe   *io.PipeWriter // nil while nothing is streamed
	stop   func() bool    // of the watch over ctx
	stored chan result
	ended  bool
}

type result struct {
	content tree.Content
	err     error
}

// Create implements backup2.Folder. One upload is under way at a time.
func (n *Run) Create(ctx context.Context, path string) (backup2.Upload, error) {
	p, err := n.below(path)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.closed:
		return nil, fmt.Errorf("receive %s: the run has ended: %w", p, fs.ErrClosed)
	case n.busy:
		return nil, fmt.Errorf("receive %s: another file is still being received", p)
	case p == "" || !tree.CleanPath(p):
		return nil, fmt.Errorf("receive %q: %w", path, fs.ErrInvalid)
	case n.broken != nil:
		return nil, n.broken
	}
	// Until it has come, the name counts as not received: a later run must not
	// show the device that it has a version that it has not.
	if err := n.changing(ctx, p); err != nil {
		return nil, err
	}
	u := &upload{n: n, ctx: ctx, path: p}
	if u.prev, err = n.predecessor(ctx, p); err != nil {
		return nil, err
	}
	if n.spool != nil && n.opts.Encrypted && needsKey(p) {
		u.spooling = true
		n.spool.begin()
	}
	if n.buf == nil {
		n.buf = make([]byte, 0, smallFile)
	}
	n.buf = n.buf[:0]
	n.busy = true
	return u, nil
}

// needsKey reports whether a device seals a file that it sends encrypted.
func needsKey(path string) bool {
	base := path
	if id, ok := cutSnapshot(path); ok {
		base = id
	}
	_, ok := blobID(base, false)
	return ok || base == mobilesync.ManifestDB
}

// predecessor returns what the parent has of a file, if that is of use: sealed
// bytes have nothing in common with others.
func (n *Run) predecessor(ctx context.Context, path string) (*tree.Content, error) {
	if n.before == nil || n.opts.Encrypted {
		return nil, nil
	}
	if p, ok := cutSnapshot(path); ok {
		path = p
	}
	e := n.before.others[path]
	if id, ok := blobID(path, false); ok {
		i := n.before.find(id)
		if i < 0 {
			return nil, nil
		}
		var err error
		if e, err = n.before.entry(ctx, i); err != nil {
			return nil, nil // it saves space and is not needed
		}
	}
	if e == nil || e.Encryption == nil && n.parent.Encrypted {
		return nil, nil
	}
	return &e.Content, nil
}

// Write implements io.Writer. After it has failed the upload is to be aborted.
func (u *upload) Write(p []byte) (int, error) {
	if u.ended {
		return 0, fs.ErrClosed
	}
	if u.path == mobilesync.StatusPlist && len(u.head) < maxStatus {
		u.head = append(u.head, p[:min(len(p), maxStatus-len(u.head))]...)
	}
	u.size += int64(len(p))
	if u.spooling {
		_, err := u.n.spool.Write(p)
		if err == nil {
			return len(p), nil
		}
		if !errors.Is(err, errSpoolFull) && !backend.IsNoSpace(err) {
			return 0, err
		}
		if err := u.unspool(); err != nil {
			return 0, err
		}
	}
	if u.pipe == nil {
		if len(u.n.buf)+len(p) <= smallFile {
			u.n.buf = append(u.n.buf, p...)
			return len(p), nil
		}
		u.stream(bytes.NewReader(u.n.buf))
	}
	n, err := u.pipe.Write(p)
	if errors.Is(err, io.ErrClosedPipe) && u.ctx.Err() != nil {
		err = context.Cause(u.ctx)
	}
	return n, noSpace(err)
}

// unspool sends what the spool has of this file, and the rest, to the
// repository.
func (u *upload) unspool() error {
	sp := u.n.spool
	u.spooling, u.overflow = false, true
	section, err := sp.section(sp.start, sp.size())
	if err != nil {
		return noSpace(err)
	}
	u.stream(section)
	return nil
}

// stream stores what comes from here on while it comes, after what begins it.
func (u *upload) stream(begin io.Reader) {
	r, w := io.Pipe()
	u.pipe, u.stored = w, make(chan result, 1)
	u.stop = context.AfterFunc(u.ctx, func() { w.CloseWithError(context.Cause(u.ctx)) })
	go func() {
		c, err := u.n.lane.Store(u.n.ctx, io.MultiReader(begin, r), u.prev)
		if err != nil {
			r.CloseWithError(err)
		}
		u.stored <- result{c, err}
	}()
}

// Commit implements backup2.Upload.
func (u *upload) Commit() error {
	if u.ended {
		return fs.ErrClosed
	}
	n := u.n
	n.mu.Lock()
	defer n.mu.Unlock()
	number, err := u.store()
	u.ended, n.busy = true, false
	if err != nil {
		return fmt.Errorf("store %s: %w", u.path, noSpace(err))
	}
	if err := n.names.put(u.path, number, n.now); err != nil {
		return err
	}
	n.files++
	n.bytes += u.size
	n.checkpoint.bytes += u.size
	n.note(u.path)
	if u.path == mobilesync.StatusPlist {
		return noSpace(n.setStatus(u.ctx, parseStatus(u.head)))
	}
	return noSpace(n.saveIfDue(u.ctx))
}

// store ends the content and returns its number.
func (u *upload) store() (uint32, error) {
	n := u.n
	if u.spooling {
		off, size := n.spool.commit(u.path)
		return n.names.add(file{size: size, at: off, state: spooled})
	}
	var res result
	err := n.await(u.ctx, func() error {
		if u.pipe == nil {
			res.content, res.err = n.lane.Store(n.ctx, bytes.NewReader(n.buf), u.prev)
		} else {
			_ = u.pipe.Close()
			res = <-u.stored
		}
		return res.err
	})
	u.finish()
	if err != nil {
		return 0, n.fail(err)
	}
	return n.names.keep(&res.content, 0)
}

// finish lets go of what streaming needed. What the spool had of the file has
// been read by then.
func (u *upload) finish() {
	if u.stop != nil {
		u.stop()
	}
	if u.overflow {
		u.n.overflow += u.size
		u.n.spool.abort()
	}
}

// Abort implements backup2.Upload.
func (u *upload) Abort() {
	if u.ended {
		return
	}
	n := u.n
	n.mu.Lock()
	defer n.mu.Unlock()
	u.ended, n.busy = true, false
	switch {
	case u.spooling:
		n.spool.abort()
	case u.pipe != nil:
		_ = u.pipe.CloseWithError(errAborted)
		// A lane whose source has failed is as good as before; one that could
		// not store is not. It is given a moment also when ctx has ended.
		wait, cancel := context.WithTimeout(context.WithoutCancel(u.ctx), abortTime)
		defer cancel()
		err := n.await(wait, func() error { return (<-u.stored).err })
		if err != nil && !errors.Is(err, errAborted) && (u.ctx.Err() == nil || !errors.Is(err, context.Cause(u.ctx))) {
			_ = n.fail(err)
		}
		u.finish()
	}
}

// abortTime bounds how long a store may take to notice that a file was cut off.
const abortTime = 5 * time.Second

var errAborted = errors.New("the file was cut off")

// noSpace makes a full store known as such to the device.
func noSpace(err error) error {
	if err != nil && backend.IsNoSpace(err) && !errors.Is(err, backup2.ErrNoSpace) {
		return fmt.Errorf("%w: %w", backup2.ErrNoSpace, err)
	}
	return err
}
