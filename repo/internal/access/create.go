// Package access creates and opens repositories, and manages the keys that open
// them: passwords, key files and recovery keys, each with a key slot.
package access

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/configs"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/store"
)

// Create makes a repository in an empty backend and opens it, as repo.Create
// describes.
func Create(ctx context.Context, be backend.Backend, secret []byte, info crypto.SlotInfo, opts store.Options) (*store.Store, error) {
	opts = opts.WithDefaults()
	stale, err := checkVacant(ctx, be)
	if err != nil {
		return nil, err
	}
	master, err := crypto.NewKey(opts.Rand)
	if err != nil {
		return nil, err
	}
	cfg, err := store.NewConfig(opts)
	if err != nil {
		return nil, err
	}
	r := store.New(be, opts, cfg, master)
	if r.Sealed, err = cfg.Seal(master, opts.Rand); err != nil {
		return nil, err
	}
	if r.Slot, err = addSlot(ctx, r, secret, info); err != nil {
		return nil, err
	}
	// From now on, a missing folder means that records are lost.
	if f, ok := be.(backend.Folders); ok {
		if err := f.MakeFolder(ctx, layout.SnapshotsDir); err != nil {
			return nil, fmt.Errorf("create repository: %w", err)
		}
	}
	// Store the config last: a repository with a config is complete.
	copied, _, err := configs.Keep(ctx, be, r.Sealed.Bytes())
	if err != nil {
		return nil, fmt.Errorf("create repository: %w", err)
	}
	slot := layout.KeysDir + r.Slot.String()
	if err := be.Put(ctx, layout.ConfigName, r.Sealed.Bytes()); err != nil {
		if !errors.Is(err, backend.ErrExist) {
			return nil, fmt.Errorf("create repository: %w", err)
		}
		// Another process has just created a repository here, and this slot does not
		// open it. If these files cannot be removed, check names them.
		_ = remove(ctx, be, slot)
		_ = remove(ctx, be, copied)
		return nil, fmt.Errorf("create repository: %w", store.ErrExists)
	}
	// Remove stale files only now: before the config exists, they could be those of a
	// process that creates a repository here at the same time.
	for _, name := range stale {
		if name == slot || name == copied {
			continue // a new file made from the same randomness as the stale one
		}
		if err := remove(ctx, be, name); err != nil {
			return nil, fmt.Errorf("the repository was created, but a file that an interrupted init left could not be removed: %w", err)
		}
	}
	r.Index = index.New()
	return r, nil
}

// checkVacant fails if a backend holds a repository or parts of one. It returns key
// slots and a config copy that an interrupted Create has left, and that open nothing.
func checkVacant(ctx context.Context, be backend.Backend) (stale []string, err error) {
	err = be.List(ctx, "", func(f backend.Info) error {
		folder, _, inFolder := strings.Cut(f.Name, "/")
		switch folder += "/"; {
		case f.Name == layout.ConfigName:
			return fmt.Errorf("create repository: %w", store.ErrExists)
		case folder == layout.KeysDir, folder == layout.ConfigsDir:
			if _, err := layout.ParseFileID(f.Name); err == nil {
				stale = append(stale, f.Name)
			}
		case inFolder && slices.Contains(store.ContentDirs(), folder):
			return fmt.Errorf("create repository: %w, but its config file is missing: copy this file from a mirror or another copy of this repository; without one, `snap repair config` puts it back or makes a new one", store.ErrExists)
		}
		return nil
	})
	return stale, err
}

// remove deletes a file. A file that does not exist is no error.
func remove(ctx context.Context, be backend.Backend, name string) error {
	if err := be.Delete(ctx, name); err != nil && !errors.Is(err, backend.ErrNotExist) {
		return err
	}
	return nil
}

// Open opens the repository in a backend with a password, key file or recovery
// key. It reads config and keys only; LoadIndex reads the index. If config is damaged or
// missing, Open uses a copy that the key opens, and sets ConfigDamage.
func Open(ctx context.Context, be backend.Backend, secret []byte, opts store.Options) (*store.Store, error) {
	opts = opts.WithDefaults()
	if s, ok := be.(backend.Surveyor); ok && opts.Survey {
		if err := s.Survey(ctx); err != nil {
			return nil, err
		}
	}
	found, err := store.FindConfigs(ctx, be)
	if err != nil {
		return nil, err
	}
	u, err := unlock(ctx, be, secret, found, opts)
	if err != nil {
		return nil, err
	}
	r := store.New(be, opts, u.config, u.master)
	r.Slot, r.SlotKept, r.Sealed, r.RenewedSlot = u.slot, u.kept, u.sealed, u.renew
	r.ConfigDamage, r.ConfigMade = found.Damage, u.made
	if found.Damage == nil && u.sealed != found.Found[0] {
		r.ConfigDamage = &store.DamageError{File: layout.ConfigName, Err: crypto.ErrAuth}
	}
	return r, nil
}
