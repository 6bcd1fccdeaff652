package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/replace"
)

// Cleared says what a repair did with damaged files that nothing needs.
type Cleared struct {
	Removed []string // names of those that were removed; in a dry run, of those that would be
	Aside   []string // new names of folders, links and other things that had the name of a file
	Denied  []string // files that this process has no permission to read; they stay, since they may be good
}

// Clear removes a file if load, which reads it, fails since it is damaged. A dry run changes
// nothing.
func (c *Cleared) Clear(ctx context.Context, be backend.Backend, name string, dryRun bool, load func() error) error {
	err := load()
	switch {
	case !errors.Is(err, ErrDamaged), errors.Is(err, backend.ErrNotExist), errors.Is(err, ErrUnsupported):
		return nil
	case backend.IsDenied(err):
		c.Denied = append(c.Denied, name)
		return nil
	case !Hopeless(ctx, load):
		return ctx.Err()
	}
	if dryRun {
		c.Removed = append(c.Removed, name)
		return nil
	}
	aside, err := replace.Clear(ctx, be, name)
	if aside != "" {
		c.Aside = append(c.Aside, aside)
	}
	if err != nil {
		return fmt.Errorf("remove a damaged file: %w", err)
	}
	if aside == "" {
		c.Removed = append(c.Removed, name)
	}
	return nil
}

// Sort sorts the names.
func (c *Cleared) Sort() {
	for _, names := range []*[]string{&c.Removed, &c.Aside, &c.Denied} {
		slices.Sort(*names)
	}
}
