// Package access creates and opens repositories, and manages the keys that open
// them: passwords, key files and recovery keys, each with a key slot.
package access

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/repo/backend"
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
	if r.Slot, err = addSlot(ctx, r, secret, info); err != nil {
		return nil, err
	}
	// Store the config last: a repository with a config is complete.
	b, err := cfg.Seal(master, opts.Rand)
	if err != nil {
		return nil, err
	}
	if err := be.Put(ctx, layout.ConfigName, b); err != nil {
		if !errors.Is(err, backend.ErrExist) {
			return nil, fmt.Errorf("create repository: %w", err)
		}
		// Another process was faster, and this slot does not open the repository
		// that it made. If the slot cannot be removed, that does no harm.
		_ = deleteSlot(ctx, r, r.Slot)
		return nil, fmt.Errorf("create repository: %w", store.ErrExists)
	}
	// Remove stale slots only now: before the config exists, one could be the slot
	// of a process that creates a repository here at the same time.
	for _, id := range stale {
		if id == r.Slot {
			continue // equal randomness makes an equal slot
		}
		if err := deleteSlot(ctx, r, id); err != nil {
			return nil, fmt.Errorf("the repository was created, but a key slot that an interrupted init left could not be removed: %w", err)
		}
	}
	r.Index = index.New()
	return r, nil
}

// checkVacant fails if a backend holds a repository or parts of one. It returns key
// slots that an interrupted Create has left, and that open nothing.
func checkVacant(ctx context.Context, be backend.Backend) (slots []layout.FileID, err error) {
	err = be.List(ctx, "", func(f backend.Info) error {
		switch {
		case f.Name == layout.ConfigName:
			return fmt.Errorf("create repository: %w", store.ErrExists)
		case strings.HasPrefix(f.Name, layout.KeysDir):
			if id, err := layout.ParseFileID(f.Name); err == nil {
				slots = append(slots, id)
			}
		case strings.HasPrefix(f.Name, layout.PacksDir), strings.HasPrefix(f.Name, layout.IndexDir), strings.HasPrefix(f.Name, layout.SnapshotsDir):
			return fmt.Errorf("create repository: %w, but its config file is missing; restore that file from a copy", store.ErrExists)
		}
		return nil
	})
	return slots, err
}

// Open opens the repository in a backend with a password, key file or recovery
// key. It reads config and keys only; LoadIndex reads the index.
func Open(ctx context.Context, be backend.Backend, secret []byte, opts store.Options) (*store.Store, error) {
	opts = opts.WithDefaults()
	sealed, err := store.ReadConfig(ctx, be)
	if err != nil {
		return nil, err
	}
	master, slot, cfg, err := unlock(ctx, be, secret, sealed)
	if err != nil {
		return nil, err
	}
	r := store.New(be, opts, cfg, master)
	r.Slot = slot
	return r, nil
}
