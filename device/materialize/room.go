package materialize

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"

	"github.com/snap-backup/snap/internal/filesystem"
	"github.com/snap-backup/snap/repo/backend"
)

// ErrFileTooLarge says that a file system cannot hold a file of the snapshot because of
// its size.
var ErrFileTooLarge = errors.New("this file system cannot hold so large a file")

// probeFrom is the size from which checkLargest checks whether the file system can hold a
// file. Every file system can hold smaller files.
const probeFrom = 1<<31 - 1

// NoRoomError says that a file system has too little space. It is backend.ErrNoSpace.
type NoRoomError struct {
	Dir        string
	Need, Free int64 // bytes
	Bytes      func(int64) string
}

func (e *NoRoomError) Error() string {
	return fmt.Sprintf("%s needs %s more, but only %s are free there", e.Dir, e.Bytes(e.Need), e.Bytes(e.Free))
}

// Is makes errors.Is(err, backend.ErrNoSpace) true.
func (e *NoRoomError) Is(target error) bool { return target == backend.ErrNoSpace }

// checkRoom fails before anything is written if there is too little space for what the
// hidden folder lacks. A file system that does not know its free space is no obstacle.
func (m *job) checkRoom(ctx context.Context) error {
	free, err := filesystem.Free(m.root.Name())
	if err != nil {
		return ctx.Err()
	}
	need := m.paths.bytes
	err = fs.WalkDir(m.root.FS(), ".", func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return errors.Join(err, ctx.Err())
		}
		info, err := d.Info()
		if err == nil {
			need -= info.Size()
		}
		return err
	})
	if err != nil || need <= free {
		return err
	}
	return &NoRoomError{m.res.Dir, need, free, m.opts.bytes}
}

// checkLargest fails before anything is written if the file system cannot hold the
// largest file, as far as it tells. FAT holds files of less than 4 GiB.
func (m *job) checkLargest() error {
	if m.paths.largest < probeFrom {
		return nil
	}
	if err := m.holds(m.paths.largest); err != nil {
		return fmt.Errorf("%s has %s: %w", m.paths.largestPath, m.opts.bytes(m.paths.largest), err)
	}
	return nil
}

// holds returns ErrFileTooLarge if the file system says that it cannot hold a file of
// this size. The system then refuses to seek that far.
func (m *job) holds(size int64) error {
	const probe = ".snap-size-probe"
	f, err := m.root.Create(probe)
	if err != nil {
		return err
	}
	_, err = f.Seek(size, io.SeekStart)
	_ = f.Close()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EOVERFLOW) || filesystem.IsTooLarge(err) {
		return errors.Join(ErrFileTooLarge, m.root.Remove(probe))
	}
	return m.root.Remove(probe) // every other error is reported when the file is written
}

// explain adds ErrFileTooLarge to an error of writing a file, if its size is the cause.
func explain(err error, size int64, bytes func(int64) string) error {
	if err != nil && filesystem.IsTooLarge(err) {
		return fmt.Errorf("it has %s: %w: %w", bytes(size), ErrFileTooLarge, err)
	}
	return err
}

// bytes writes a size for people.
func (o *Options) bytes(n int64) string {
	if o.Bytes == nil {
		return fmt.Sprintf("%d bytes", n)
	}
	return o.Bytes(n)
}
