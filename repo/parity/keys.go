package parity

import (
	"context"
	"errors"
	"slices"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/replace"
)

// Forget removes all parity that can restore a file. Call it before a key slot is removed:
// whoever has the other files of its group could restore the slot. The next Refresh makes
// new parity for those other files.
func Forget(ctx context.Context, be backend.Backend, name string) error {
	s, err := Load(ctx, be)
	if err != nil {
		return err
	}
	for _, g := range s.groups {
		if slices.ContainsFunc(g.files, func(f file) bool { return f.name() == name }) {
			if err := s.remove(ctx, g.name); err != nil {
				return err
			}
		}
	}
	return nil
}

// HealKeys replaces damaged key slots, which may be needed to open the repository. It
// restores missing key slots only if no good one is left. Otherwise it takes them for
// removed on purpose. It returns the names of the healed files. Other processes may use
// the repository.
func HealKeys(ctx context.Context, be backend.Backend, dryRun bool) (healed []string, err error) {
	s, err := Load(ctx, be)
	if err != nil {
		return nil, err
	}
	none, err := s.hasNoKey(ctx)
	if err != nil {
		return nil, err
	}
	for _, loaded := range s.groups {
		if len(loaded.files) == 0 || loaded.files[0].kind != keyKind {
			continue
		}
		g, err := s.reload(ctx, loaded)
		if errors.Is(err, ErrDamaged) {
			continue
		}
		if err != nil {
			return healed, err
		}
		for i := range g.files {
			f := &g.files[i]
			size, good, err := s.verify(ctx, f.name(), f.id)
			if err != nil {
				return healed, err
			}
			if f.kind != keyKind || good || size < 0 && !none || slices.Contains(healed, f.name()) {
				continue
			}
			b, err := s.rebuild(ctx, g, i)
			if err == nil && b != nil && !dryRun {
				err = replace.Put(ctx, be, f.name(), b)
			}
			if err != nil {
				return healed, err
			}
			if b != nil {
				healed = append(healed, f.name())
			}
		}
	}
	return healed, nil
}

// hasNoKey reports whether there is no good key slot.
func (s *Set) hasNoKey(ctx context.Context) (bool, error) {
	none := true
	err := s.be.List(ctx, layout.KeysDir, func(f backend.Info) error {
		m, ok := newFile(f)
		if !ok {
			return nil
		}
		_, good, err := s.verify(ctx, f.Name, m.id)
		none = none && !good
		return err
	})
	return none, err
}
