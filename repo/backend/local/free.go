package local

import (
	"context"

	"github.com/snap-backup/snap/internal/filesystem"
	"github.com/snap-backup/snap/repo/backend"
)

// Free implements [backend.Freer]. It returns the space available to users without
// privileges.
func (b *Backend) Free(ctx context.Context) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, failure("measure free space", b.dir, "", err, "")
	}
	free, err := filesystem.Free(b.dir)
	if err != nil {
		return 0, failure("measure free space", b.dir, "", err, "")
	}
	return free, nil
}

var _ backend.Freer = (*Backend)(nil)
