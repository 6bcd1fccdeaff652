package access

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/crypto/blake"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/store"
)

// maxConfig bounds the config that a slot has a copy of. Those of this format have less
// than 300 bytes.
const maxConfig = 4 << 10

// configFor returns the copy of config for a slot.
func configFor(sealed *store.ConfigFile) []byte {
	if sealed == nil || len(sealed.Bytes()) > maxConfig {
		return nil
	}
	return sealed.Bytes()
}

// renewed returns the file of a slot of the newest version for the same secret, or nil if
// the slot is of that version. It also returns nil if the description of the slot is
// damaged: nobody knows then what to bind to it.
func renewed(s slot, o *crypto.Opened, sealed *store.ConfigFile) []byte {
	if s.Bound() {
		return nil
	}
	info, err := s.Info(o.Master)
	if err != nil {
		return nil
	}
	info.Config = configFor(sealed)
	b, err := o.Renew(info)
	if err != nil {
		return nil
	}
	return b
}

// Renewal says what RenewSlot has done.
type Renewal struct {
	Old, New layout.FileID
	Info     KeyInfo // of the new slot
}

// RenewSlot replaces the slot that opened the repository, if it is of an older version,
// by one that opens with the same secret and whose description belongs to it. The old
// slot is removed only after the new one was read back. If several programs do this at
// the same time, they store the same file. The result is nil if there was nothing to do.
// An error leaves the old slot, and perhaps the new one too; both open the repository.
// Only ErrNoKey means that neither is there, since somebody has removed the key.
func RenewSlot(ctx context.Context, r *store.Store) (*Renewal, error) {
	file := r.RenewedSlot
	if file == nil {
		return nil, nil
	}
	r.RenewedSlot = nil // one attempt
	s, err := crypto.ParseSlot(file)
	if err != nil {
		return nil, err
	}
	info, err := s.Info(r.MasterKey)
	if err != nil {
		return nil, err
	}
	if err := stillThere(ctx, r, file); err != nil {
		return nil, err
	}
	if err := KeepConfig(ctx, r); err != nil {
		return nil, err
	}
	id, err := r.PutNamed(ctx, layout.KeysDir, file)
	if err != nil {
		return nil, fmt.Errorf("store a newer key slot: %w", err)
	}
	back, err := backend.ReadAll(ctx, backend.Direct(r.Backend), layout.KeysDir+id.String(), crypto.MaxSlotSize)
	if err == nil && !bytes.Equal(back, file) {
		err = errors.New("it does not have the bytes that were stored")
	}
	if err != nil {
		return nil, fmt.Errorf("read back key slot %s: %w", id.Short(), err)
	}
	old := r.Slot
	r.Slot = id
	if err := deleteSlot(ctx, r, old); err != nil {
		return nil, fmt.Errorf("key slot %s is of an older version; %s replaces it, but it could not be removed: %w", old.Short(), id.Short(), err)
	}
	return &Renewal{old, id, KeyInfo{ID: id, Kind: info.Kind, Label: info.Label, Created: info.Created, Current: true, Bound: true}}, nil
}

// stillThere fails with ErrNoKey if the slot that opened the repository was removed since
// then, and was not renewed: a key that was removed must not come back.
func stillThere(ctx context.Context, r *store.Store, renewed []byte) error {
	_, err := r.Backend.Stat(ctx, layout.KeysDir+r.Slot.String())
	if errors.Is(err, backend.ErrNotExist) {
		_, err = r.Backend.Stat(ctx, layout.KeysDir+layout.FileID(blake.Sum(renewed)).String())
	}
	if errors.Is(err, backend.ErrNotExist) {
		return fmt.Errorf("key %s was removed after it opened the repository: %w", r.Slot.Short(), store.ErrNoKey)
	}
	return err
}
