package repo

import (
	"context"
	"errors"

	"github.com/snap-backup/snap/repo/backend"
)

// CheckComplete returns nil if everything is there that the snapshots and unfinished
// runs need: every chunk is in the index, and every pack that the index lists is
// there. It reads the trees of all snapshots, no content, and loads the index.
func (r *Repo) CheckComplete(ctx context.Context) error {
	if _, err := r.usage(ctx); err != nil {
		return err
	}
	return errors.Join(r.IndexDamage()...)
}

// CheckConfig looks at the config of the repository in a backend as far as that
// goes without a key: ErrNotFound if there is none, ErrUnsupported if this
// program is too old for it, ErrDamaged if it is no config.
func CheckConfig(ctx context.Context, be backend.Backend) error {
	_, err := readConfig(ctx, be)
	return err
}
