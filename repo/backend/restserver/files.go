package restserver

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/restapi"
	"golang.org/x/sync/semaphore"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// head describes a file.
func (q *request) head() error {
	if _, err := q.describe(); err != nil {
		return err
	}
	return q.ok()
}

// describe sets the headers about a file.
func (q *request) describe() (backend.Info, error) {
	info, err := q.store.Stat(q.Context(), q.t.full(q.t.name))
	if err != nil {
		return info, err
	}
	h := q.w.Header()
	h.Set("Content-Length", itoa(info.Size))
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Accept-Ranges", "bytes")
	if !info.Modified.IsZero() {
		h.Set(restapi.Modified, info.Modified.UTC().Format(time.RFC3339Nano))
	}
	return info, nil
}

// get sends a file or a part of it. The first bytes are read before the answer begins, so
// that an error of the store has its status.
func (q *request) get() error {
	info, err := q.describe()
	if err != nil {
		return err
	}
	part, partial, ok := byteRange{0, info.Size}, false, true
	if header := q.Header.Get("Range"); header != "" {
		part, partial, ok = parseRange(header, info.Size)
	}
	if !ok {
		return &refusal{
			status: http.StatusRequestedRangeNotSatisfiable, text: "the file has no such bytes",
			contentRange: fmt.Sprintf("bytes */%d", info.Size),
		}
	}
	size := min(part.length, readSize)
	if err := q.room(q.Server.downloads, size); err != nil {
		return err
	}
	defer q.Server.downloads.Release(size)
	buf := make([]byte, size)
	for sent := int64(0); sent < part.length || part.length == 0; {
		piece := buf[:min(int64(len(buf)), part.length-sent)]
		if err := q.read(piece, part.start+sent); err != nil {
			return err
		}
		if sent == 0 {
			q.begin(info, part, partial)
		}
		if err := q.w.send(piece); err != nil || part.length == 0 {
			return err
		}
		sent += int64(len(piece))
	}
	return nil
}

// begin sends the headers of a file or of a part of it.
func (q *request) begin(info backend.Info, part byteRange, partial bool) {
	h := q.w.Header()
	h.Set("Content-Length", itoa(part.length))
	q.w.hurry()
	if partial {
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", part.start, part.start+part.length-1, info.Size))
		q.w.WriteHeader(http.StatusPartialContent)
		return
	}
	q.w.WriteHeader(http.StatusOK)
}

// read reads a piece of the file.
func (q *request) read(p []byte, off int64) error {
	if len(p) == 0 {
		return nil
	}
	n, err := q.store.ReadAt(q.Context(), q.t.full(q.t.name), p, off)
	if err == nil && n != len(p) {
		err = io.ErrNoProgress
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // the file is shorter than it was a moment ago
	}
	return err
}

// post stores a file.
func (q *request) post() error {
	want, err := q.checkHeaders()
	if err != nil {
		return err
	}
	size, name := q.ContentLength, q.t.full(q.t.name)
	folders, err := q.newFolders(name)
	if err != nil {
		return err
	}
	stored, err := q.quotas.take(q.Context(), q.scope(), cost(size), folders)
	if err != nil {
		return err
	}
	kept := false
	defer func() { stored(kept) }()
	if q.user != "" {
		n := min(max(1, size), q.shares.limit)
		share := q.shares.of(q.user)
		if err := q.room(share, n); err != nil {
			return err
		}
		defer share.Release(n)
	}
	if err := q.room(q.uploads, max(1, size)); err != nil {
		return err
	}
	defer q.uploads.Release(max(1, size))
	data, err := q.readBody(size)
	if err != nil {
		return err
	}
	got := sha256.Sum256(data)
	if subtle.ConstantTimeCompare(got[:], want) != 1 {
		return badSum("the body has another SHA-256 than its header says; nothing was stored")
	}
	release, err := q.names.hold(q.Context(), name)
	if err != nil {
		return err
	}
	defer release()
	if err := q.baseExists(); err != nil {
		return err
	}
	if err := q.store.Put(q.Context(), name, data); err != nil {
		return err
	}
	kept = true
	q.locks.put(q.t, q.user)
	q.w.Header().Set(restapi.SHA256, hex.EncodeToString(got[:]))
	return q.ok()
}

func badSum(text string) error {
	return &refusal{status: http.StatusBadRequest, reason: restapi.ReasonChecksum, text: text}
}

// checkHeaders checks what a client says about a file before any of it is read.
func (q *request) checkHeaders() (sum []byte, err error) {
	switch {
	case q.ContentLength < 0 || len(q.TransferEncoding) > 0:
		return nil, &refusal{status: http.StatusLengthRequired, text: "a file needs a Content-Length"}
	case q.ContentLength > q.opts.MaxFile:
		return nil, &refusal{status: http.StatusRequestEntityTooLarge, text: fmt.Sprintf("a file may have %d bytes", q.opts.MaxFile)}
	}
	sum, err = hex.DecodeString(q.Header.Get(restapi.SHA256))
	if err != nil || len(sum) != sha256.Size {
		return nil, badSum("a file needs its SHA-256 in the header " + restapi.SHA256)
	}
	return sum, nil
}

// room waits until there is memory for a body.
func (q *request) room(of *semaphore.Weighted, n int64) error {
	ctx, cancel := context.WithTimeout(q.Context(), q.opts.Wait)
	defer cancel()
	if err := of.Acquire(ctx, n); err != nil {
		if q.Context().Err() != nil {
			return q.Context().Err()
		}
		return &refusal{status: http.StatusServiceUnavailable, text: "the server is busy", after: 10 * time.Second}
	}
	return nil
}

// readBody reads a body of a size. The client must be quick enough.
func (q *request) readBody(size int64) ([]byte, error) {
	conn := http.NewResponseController(q.w)
	data := make([]byte, size)
	for rest := data; len(rest) > 0; {
		_ = conn.SetReadDeadline(time.Now().Add(q.opts.Pace)) // not supported by all writers of tests
		n, err := io.ReadFull(q.Body, rest[:min(len(rest), paceSize)])
		q.w.received += int64(n)
		if err != nil {
			return nil, &refusal{
				status: http.StatusBadRequest, reason: restapi.ReasonChecksum, cause: err,
				text: "the body ended early or came too slowly; nothing was stored",
			}
		}
		rest = rest[n:]
	}
	_ = conn.SetReadDeadline(time.Time{})
	return data, nil
}

// remove removes a file.
func (q *request) remove() error {
	name := q.t.full(q.t.name)
	release, err := q.names.hold(q.Context(), name)
	if err != nil {
		return err
	}
	defer release()
	limited := q.opts.AppendOnly(q.user)
	var size int64
	if limited || q.opts.Quota > 0 {
		info, err := q.store.Stat(q.Context(), name)
		if errors.Is(err, backend.ErrNotExist) {
			return err // for all users alike: there is nothing to remove
		}
		if limited && !q.mayRemove(info, err) {
			return &refusal{
				status: http.StatusForbidden, reason: restapi.ReasonAppendOnly,
				text: "this user may add files, but not remove this one",
			}
		}
		size = info.Size
	}
	if err := q.store.Delete(q.Context(), name); err != nil {
		return err
	}
	q.quotas.give(q.scope(), size)
	q.locks.gone(q.t)
	return q.ok()
}

// mayRemove reports whether a user who may only append may remove a file. failed is the
// error of its Stat.
func (q *request) mayRemove(info backend.Info, failed error) bool {
	return failed == nil && isRemovable(q.t.name) && q.locks.allow(q.t, q.user, info.Modified)
}
