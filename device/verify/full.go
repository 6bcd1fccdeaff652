package verify

import (
	"context"
	"crypto/sha1"
	"errors"
	"hash"
	"io"
	"sync/atomic"
	"time"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/stored"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

// contentCount counts what was read.
type contentCount struct {
	files, bytes      atomic.Int64
	databases, plists atomic.Int64
	unjudged, large   atomic.Int64
}

// full reads all files that no base shares, until stop is closed.
func (j *job) full(ctx context.Context, stop <-chan struct{}) error {
	j.opts.Progress.Enter("reading files")
	g, gctx := errgroup.WithContext(ctx)
	work := make(chan []stored.File)
	room := semaphore.NewWeighted(heldTogether)
	g.Go(func() error {
		defer close(work)
		return j.plan(gctx, stop, work)
	})
	for range max(1, j.opts.Workers) {
		g.Go(func() error {
			for batch := range work {
				for _, f := range batch {
					if err := gctx.Err(); err != nil {
						return err
					}
					r := reader{job: j, file: f, room: room}
					if err := r.read(gctx); err != nil {
						return err
					}
					j.content.files.Add(1)
					j.content.bytes.Add(blob.Size(f.Entry))
					j.progress(f.Entry)
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func (j *job) progress(e *tree.Entry) {
	j.opts.Progress.Files.Add(1)
	j.opts.Progress.Bytes.Add(blob.Size(e))
}

// plan sends batches of neighbouring files, since neighbours share blocks.
func (j *job) plan(ctx context.Context, stop <-chan struct{}, work chan<- []stored.File) error {
	bases := j.openBases(ctx)
	defer bases.close()
	var batch []stored.File
	size := int64(0)
	over := false // at least one batch is read, so that every run gets further
	send := func() error {
		if len(batch) == 0 {
			return nil
		}
		select {
		case work <- batch:
			last := batch[len(batch)-1].Entry.Key()
			j.rep.stopped = &last
			batch, size = nil, 0
			over = !j.opts.Deadline.IsZero() && time.Now().After(j.opts.Deadline) || isClosed(stop)
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	err := j.r.WalkAll(ctx, j.s, func(e *tree.Entry) error {
		if e.Kind != tree.File {
			return nil
		}
		f := stored.File{Entry: e, Row: -1}
		if j.b != nil {
			f = j.b.File(e, j.records)
		}
		shared := bases.shared(j, f)
		switch {
		case shared:
			j.rep.SharedFiles++
			j.rep.SharedBytes += blob.Size(e)
			j.progress(e)
			return nil
		case over:
			j.rep.LeftFiles++
			j.rep.LeftBytes += blob.Size(e)
			return nil
		}
		batch = append(batch, f)
		size += blob.Size(e)
		if len(batch) >= blob.BatchFiles || size >= blob.BatchBytes {
			return send()
		}
		return nil
	}, func(error) error { return nil }) // quick has noted what is lost
	if err != nil {
		return err
	}
	return send()
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// reader reads one file.
type reader struct {
	*job
	file stored.File
	rec  *manifest.Record
	room *semaphore.Weighted
}

// read reads a file and judges it. Only errors that are not about the file are
// returned.
func (r *reader) read(ctx context.Context) error {
	if r.file.Row >= 0 {
		row := r.records.At(r.file.Row)
		r.rec = &row
	}
	err := r.judgeContent(ctx)
	if errors.Is(err, repo.ErrDamaged) {
		if present, perr := blob.Present(ctx, r.r, &r.file.Entry.Content, r.has); perr != nil || present { // otherwise it was named before
			r.log.File(finding.Lost, r.name(r.file.Entry))
		}
		return ctx.Err()
	}
	return err
}

func (r *reader) judgeContent(ctx context.Context) error {
	e := r.file.Entry
	var sum hash.Hash
	if r.rec != nil && r.rec.HasDigest && blob.Size(e) > 0 {
		sum = sha1.New()
	}
	state := stored.Plain
	if r.b != nil {
		state = r.b.State(e, r.rec)
	}
	in := r.newInspector(ctx)
	defer in.release()
	var err error
	if state == stored.Encrypted {
		err = r.readEncrypted(ctx, in, sum)
	} else {
		err = r.readPlain(ctx, in, sum)
	}
	if err != nil {
		return err
	}
	decrypted := state == stored.Plain && r.rec != nil && r.rec.EncryptionKey != nil // in the backup folder
	proven := sum != nil && !decrypted && r.judge.Digest(r.name(e), r.rec, sum.Sum(nil))
	if in.badPadding {
		r.judge.Content(finding.Cipher, r.name(e), r.rec, proven)
	}
	return in.finish(ctx, proven)
}

// readPlain reads content that is stored as it is on the device. Digests are of the bytes
// in the backup folder, so a file that is encrypted there is encrypted again for the
// digest.
func (r *reader) readPlain(ctx context.Context, in *inspector, sum hash.Hash) error {
	e := r.file.Entry
	var w io.Writer = in
	if sum == nil {
		return r.r.WriteContent(ctx, w, &e.Content)
	}
	if e.Encryption == nil {
		return r.r.WriteContent(ctx, io.MultiWriter(in, sum), &e.Content)
	}
	enc := keybag.NewEncrypter(sum, keybag.FileKey(e.Encryption.Key))
	if err := r.r.WriteContent(ctx, io.MultiWriter(in, enc), &e.Content); err != nil {
		return err
	}
	return enc.Close()
}

// readEncrypted reads a content that is encrypted, and decrypts it if the key is
// known.
func (r *reader) readEncrypted(ctx context.Context, in *inspector, sum hash.Hash) error {
	e := r.file.Entry
	in.off = true
	var w io.Writer = io.Discard
	if sum != nil {
		w = sum
	}
	key, err := r.key()
	if err != nil {
		return r.r.WriteContent(ctx, w, &e.Content)
	}
	src, err := r.r.NewContentReader(ctx, &e.Content)
	if err != nil {
		return err
	}
	in.off = false
	tee := io.TeeReader(src, w)
	_, err = io.Copy(in, keybag.NewVerifier(tee, key))
	if errors.Is(err, keybag.ErrPadding) || errors.Is(err, keybag.ErrNotCanonical) {
		in.badPadding, in.off = true, true
		_, err = io.Copy(io.Discard, tee) // the rest, for the digest
	}
	return err
}

// errNoKey says that the key of a file is not known.
var errNoKey = errors.New("no key")

func (r *reader) key() (keybag.FileKey, error) { return r.job.fileKey(r.file.Entry, r.rec) }

// fileKey returns the key of a file that is stored encrypted.
func (j *job) fileKey(e *tree.Entry, rec *manifest.Record) (keybag.FileKey, error) {
	switch {
	case j.b == nil || !j.b.Unlocked():
		return keybag.FileKey{}, errNoKey
	case rec != nil:
		return j.b.FileKey(rec)
	}
	if key, ok := j.b.ManifestDBKey(); ok && e.Path == manifestDB {
		return key, nil
	}
	return keybag.FileKey{}, errNoKey
}
