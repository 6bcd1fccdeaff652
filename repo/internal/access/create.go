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

// Create makes a repository in an empty backend and opens it. secret opens its
// first key slot, which info describes. A crash leaves either no repository or
// a complete one.
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
	// The config comes last: where it is, the repository is complete.
	b, err := cfg.Seal(master, opts.Rand)
	if err != nil {
		return nil, err
	}
	if err := be.Put(ctx, layout.ConfigName, b); err != nil {
		if !errors.Is(err, backend.ErrExist) {
			return nil, fmt.Errorf("create repository: %w", err)
		}
		// Another process was faster, and its repository has no use for this
		// slot. What fails here is only untidy.
		_ = deleteSlot(ctx, r, r.Slot)
		return nil, fmt.Errorf("create repository: %w", store.ErrExists)
	}
	// Only now: before, one of them could have been the slot of a process that
	// creates a repository here at the same time.
	for _, id := range stale {
		if id == r.Slot {
			continue // the same randomness makes the same slot
		}
		if err := deleteSlot(ctx, r, id); err != nil {
			return nil, fmt.Errorf("the repository was created, but a key slot that an interrupted init left could not be removed: %w", err)
		}
	}
	r.Index = index.New()
	return r, nil
}

// checkVacant refuses a backend that holds a repository or what is left of
// one. Key slots alone are what an interrupted Create leaves; they open
// nothing, and are returned.
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
