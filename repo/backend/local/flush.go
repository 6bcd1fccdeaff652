package local

import (
	"fmt"

	"github.com/snap-backup/snap/internal/filesystem"
	"github.com/snap-backup/snap/repo/backend"
)

// ErrNoFsync is [backend.ErrNoFsync].
var ErrNoFsync = backend.ErrNoFsync

var _ backend.NoFsyncer = (*Backend)(nil)

// AllowNoFsync implements [backend.NoFsyncer].
func (b *Backend) AllowNoFsync() { b.noFsync.Store(true) }

func (b *Backend) flush(f file) error {
	err := f.Sync()
	switch {
	case !filesystem.IsUnsupported(err):
		return err
	case b.noFsync.Load():
		return nil
	}
	return fmt.Errorf("%w: %w", ErrNoFsync, withoutPath(err))
}
