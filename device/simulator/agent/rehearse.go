package agent

import (
	"errors"
	"io"

	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/simulator/mberror"
)

// Rehearsal judges what a restore sends, in the place of a device's storage. One
// goroutine at a time calls its methods.
//
// An error that is an *mberror.Error says why a device would stop. The agent still asks
// for all other files, and reports the first such error at the end. Any other error
// ends the restore.
type Rehearsal interface {
	// Scratch returns an empty file for Manifest.db.
	Scratch() (Scratch, error)
	// Manifest judges Manifest.db, decrypted, before it is read.
	Manifest(db io.ReaderAt, size int64) error
	// Begin is called when the backup has been opened. keys is nil if it is not
	// encrypted; they are destroyed when the restore ends.
	Begin(records *manifest.Records, keys *keybag.Keys) error
	// File judges a file. stored has the bytes that the host sends. Reading them fails
	// if the host cannot send all; then the result of File does not matter.
	File(rec *manifest.Record, stored io.Reader) error
	// Missing judges a file that the host does not have.
	Missing(rec *manifest.Record) error
	// End is called when the host has sent everything.
	End() error
}

// Scratch is a temporary file. Close removes it.
type Scratch interface {
	io.Writer
	io.ReaderAt
	io.Closer
}

// rehearse does a restore of which nothing is kept.
func (r *restore) rehearse(password []byte) error {
	rehearsal := r.agent.opts.Rehearsal
	file, err := rehearsal.Scratch()
	if err != nil {
		return err
	}
	err = errors.Join(r.inspect(password, file), file.Close())
	if r.backup != nil && r.backup.keys != nil {
		defer r.backup.keys.Destroy()
	}
	if err != nil {
		return err
	}
	if err := r.safetyCopy(); err != nil {
		return err
	}
	if err := r.collect(rehearsal.Begin(r.backup.records, r.backup.keys)); err != nil {
		return err
	}
	if err := r.getFiles(r.rehearseBatch); err != nil {
		return err
	}
	if err := r.collect(rehearsal.End()); err != nil {
		return err
	}
	r.applications()
	if r.refused != nil {
		return r.refused
	}
	r.reboot = r.options.Reboot
	return nil
}

// collect keeps the first error that says why a device would stop, and returns others.
func (r *restore) collect(err error) error {
	var refusal *mberror.Error
	if !errors.As(err, &refusal) {
		return err
	}
	if r.refused == nil {
		r.refused = refusal
	}
	return nil
}

func (r *restore) rehearseBatch(batch []int, share float64) error {
	paths, index, err := r.beginBatch(batch)
	if err != nil {
		return err
	}
	var file *arriving
	missing, err := r.DownloadAll(paths, 100*share, func(path string) (io.Writer, error) {
		file.abort() // the host could not read the previous file
		file = r.arrive(r.backup.records.At(index[path]))
		return file, nil
	}, func(string) error {
		err := file.finish()
		n := file.n
		file = nil
		r.agent.note(r.run, func(run *Run) { run.Files++; run.Bytes += n })
		return r.collect(err)
	})
	file.abort()
	if err := r.collect(err); err != nil {
		return err
	}
	for _, path := range missing {
		rec := r.backup.records.At(index[path])
		if err := r.collect(r.agent.opts.Rehearsal.Missing(&rec)); err != nil {
			return err
		}
	}
	return nil
}

// arriving is a file that is judged while it arrives.
type arriving struct {
	pipe *io.PipeWriter
	n    int64
	done chan error
}

// errNotSent ends a file that the host cannot read.
var errNotSent = errors.New("the host could not read the file")

func (r *restore) arrive(rec manifest.Record) *arriving {
	from, to := io.Pipe()
	f := &arriving{pipe: to, done: make(chan error, 1)}
	go func() {
		err := r.agent.opts.Rehearsal.File(&rec, from)
		_, _ = io.Copy(io.Discard, from) // the host sends the rest, whatever the verdict
		f.done <- err
	}()
	return f
}

func (f *arriving) Write(b []byte) (int, error) {
	n, err := f.pipe.Write(b)
	f.n += int64(n)
	return n, err
}

// finish returns the verdict.
func (f *arriving) finish() error {
	_ = f.pipe.Close()
	return f.wait()
}

// wait returns the verdict of the goroutine that reads the file.
func (f *arriving) wait() error { return <-f.done }

// abort ends a file without a verdict. It does nothing if f is nil.
func (f *arriving) abort() {
	if f != nil {
		_ = f.pipe.CloseWithError(errNotSent)
		_ = f.wait()
	}
}
