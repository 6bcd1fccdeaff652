package access

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/store"
)

// maxSlots bounds how many key slots are tried with a password, and so how long
// that takes.
const maxSlots = 64

// KeyInfo describes a key slot.
type KeyInfo struct {
	ID      layout.FileID   `json:"id"`
	Kind    crypto.SlotKind `json:"kind"`
	Label   string          `json:"label"`
	Created time.Time       `json:"created"`
	Current bool            `json:"current"` // it opened this repository
	Damaged string          `json:"damaged,omitempty"`
}

// unlock tries a secret on the key slots, in order of their IDs, until one opens.
// Each attempt derives a key at full cost, so a wrong password takes at least as
// long as a right one. A key counts only if it opens the config: a slot of another
// repository that is here by mistake must not hide the right one.
func unlock(ctx context.Context, be backend.Backend, secret []byte, config *store.ConfigFile) (crypto.Key, layout.FileID, store.Config, error) {
	var damage []error
	tried := 0
	var master crypto.Key
	var slot layout.FileID
	var cfg store.Config
	var foreign error
	done := errors.New("opened")
	err := be.List(ctx, layout.KeysDir, func(f backend.Info) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if tried >= maxSlots {
			return nil
		}
		s, err := readSlot(ctx, be, f.Name)
		if err != nil {
			if errors.Is(err, store.ErrDamaged) {
				damage = append(damage, err)
				return nil
			}
			return err
		}
		tried++
		key, err := s.Open(secret)
		if errors.Is(err, crypto.ErrWrongPassword) {
			return nil
		}
		if err != nil {
			return err
		}
		if cfg, err = config.Open(key); err != nil {
			foreign = &store.DamageError{File: layout.ConfigName, Err: fmt.Errorf("key slot %s opens, but not with the key of this file: %w", f.Name, err)}
			return nil
		}
		if slot, err = layout.ParseFileID(f.Name); err != nil {
			return err
		}
		master = key
		return done
	})
	switch {
	case errors.Is(err, done):
		return master, slot, cfg, nil
	case err != nil:
		err = fmt.Errorf("open a key slot: %w", err)
	case foreign != nil:
		err = errors.Join(append([]error{foreign}, damage...)...)
	case tried == 0 && len(damage) == 0:
		err = &store.DamageError{File: layout.KeysDir, Err: errors.New("there is no key slot")}
	case tried == 0:
		err = errors.Join(damage...)
	default:
		err = errors.Join(append([]error{store.ErrWrongPassword}, damage...)...)
	}
	return crypto.Key{}, layout.FileID{}, store.Config{}, err
}

func readSlot(ctx context.Context, be backend.Backend, name string) (*crypto.Slot, error) {
	b, err := store.ReadNamed(ctx, be, name, crypto.MaxSlotSize)
	if err != nil {
		return nil, err
	}
	s, err := crypto.ParseSlot(b)
	if err != nil {
		return nil, &store.DamageError{File: name, Err: err}
	}
	return s, nil
}

func addSlot(ctx context.Context, r *store.Store, secret []byte, info crypto.SlotInfo) (layout.FileID, error) {
	cost := r.Options.Cost
	if cost == (crypto.Cost{}) {
		cost = crypto.DefaultCost()
	}
	info.Created = r.Options.Now().UTC().Truncate(time.Second)
	b, err := crypto.NewSlot(r.Options.Rand, r.MasterKey, secret, cost, info)
	if err != nil {
		return layout.FileID{}, err
	}
	id, err := r.PutNamed(ctx, layout.KeysDir, b)
	if err != nil {
		return layout.FileID{}, fmt.Errorf("store a key slot: %w", err)
	}
	return id, nil
}

// Keys lists the key slots.
func Keys(ctx context.Context, r *store.Store) ([]KeyInfo, error) {
	var out []KeyInfo
	err := r.Backend.List(ctx, layout.KeysDir, func(f backend.Info) error {
		id, err := layout.ParseFileID(f.Name)
		if err != nil {
			return nil
		}
		k := KeyInfo{ID: id, Current: id == r.Slot}
		s, err := readSlot(ctx, r.Backend, f.Name)
		if err != nil && !errors.Is(err, store.ErrDamaged) {
			return err // the slot may be good
		}
		var info crypto.SlotInfo
		if err == nil {
			info, err = s.Info(r.MasterKey)
		}
		if err != nil {
			k.Damaged = err.Error()
		}
		k.Kind, k.Label, k.Created = info.Kind, info.Label, info.Created
		out = append(out, k)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list keys: %w", err)
	}
	return out, nil
}

// AddKey adds a key slot that opens with secret. It fails with ErrKeyExists if
// another slot opens with it: if two slots did, removing one would not revoke the
// secret.
func AddKey(ctx context.Context, r *store.Store, secret []byte, info crypto.SlotInfo) (layout.FileID, error) {
	id, found, err := slotOf(ctx, r, secret, layout.FileID{})
	if err == nil && found {
		err = fmt.Errorf("key %s: %w", id.Short(), store.ErrKeyExists)
	}
	if err != nil {
		return layout.FileID{}, fmt.Errorf("add a key: %w", err)
	}
	return addSlot(ctx, r, secret, info)
}

// slotOf finds a slot that opens with a secret and is not except.
func slotOf(ctx context.Context, r *store.Store, secret []byte, except layout.FileID) (slot layout.FileID, found bool, err error) {
	tried := 0
	err = r.Backend.List(ctx, layout.KeysDir, func(f backend.Info) error {
		id, err := layout.ParseFileID(f.Name)
		if err != nil || id == except || tried >= maxSlots || found {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		s, err := readSlot(ctx, r.Backend, f.Name)
		if errors.Is(err, store.ErrDamaged) {
			return nil
		}
		if err != nil {
			return err
		}
		tried++
		key, err := s.Open(secret)
		if errors.Is(err, crypto.ErrWrongPassword) {
			return nil
		}
		if err != nil {
			return err
		}
		key.Destroy()
		slot, found = id, true
		return nil
	})
	return slot, found, err
}

// deleteSlot removes a slot. It is no error if it does not exist any more.
func deleteSlot(ctx context.Context, r *store.Store, id layout.FileID) error {
	err := r.Backend.Delete(ctx, layout.KeysDir+id.String())
	if errors.Is(err, backend.ErrNotExist) {
		return nil
	}
	return err
}

// RemoveKey removes the key slot whose ID has a prefix, as repo.Repo.RemoveKey
// describes.
func RemoveKey(ctx context.Context, r *store.Store, prefix string) (layout.FileID, error) {
	keys, err := Keys(ctx, r)
	if err != nil {
		return layout.FileID{}, err
	}
	var found []KeyInfo
	left := 0 // good slots besides the one found
	for _, k := range keys {
		if k.Damaged == "" {
			left++
		}
		if prefix != "" && strings.HasPrefix(k.ID.String(), strings.ToLower(prefix)) {
			found = append(found, k)
		}
	}
	switch {
	case len(found) == 0:
		return layout.FileID{}, fmt.Errorf("%q: %w", prefix, store.ErrNoKey)
	case len(found) > 1:
		return layout.FileID{}, fmt.Errorf("%q matches %d keys: %w", prefix, len(found), store.ErrAmbiguous)
	}
	if found[0].Damaged == "" {
		left--
	}
	if left == 0 {
		return layout.FileID{}, store.ErrLastKey
	}
	if err := deleteSlot(ctx, r, found[0].ID); err != nil {
		return layout.FileID{}, fmt.Errorf("remove a key slot: %w", err)
	}
	return found[0].ID, nil
}

// ChangePassword replaces the key slot that opened the repository, as
// repo.Repo.ChangePassword describes.
func ChangePassword(ctx context.Context, r *store.Store, secret []byte, kind crypto.SlotKind) (layout.FileID, error) {
	info, err := slotInfo(ctx, r, r.Slot)
	if err != nil {
		return layout.FileID{}, err
	}
	info.Kind = kind
	old := r.Slot
	id, found, err := slotOf(ctx, r, secret, old)
	if err == nil && found {
		err = leftByChange(ctx, r, id, info)
	}
	if err != nil {
		return layout.FileID{}, fmt.Errorf("change the password: %w", err)
	}
	if !found {
		if id, err = addSlot(ctx, r, secret, info); err != nil {
			return layout.FileID{}, err
		}
	}
	r.Slot = id
	if err := deleteSlot(ctx, r, old); err != nil {
		return id, fmt.Errorf("the new password works, but the old one could not be removed: %w", err)
	}
	return id, nil
}

// leftByChange returns nil if slot id may be left from an interrupted change of the
// slot that info describes, and ErrKeyExists if not.
func leftByChange(ctx context.Context, r *store.Store, id layout.FileID, info crypto.SlotInfo) error {
	other, err := slotInfo(ctx, r, id)
	if err != nil {
		return err
	}
	if other.Kind != info.Kind || other.Label != info.Label {
		return fmt.Errorf("key %s: %w", id.Short(), store.ErrKeyExists)
	}
	return nil
}

func slotInfo(ctx context.Context, r *store.Store, id layout.FileID) (crypto.SlotInfo, error) {
	s, err := readSlot(ctx, r.Backend, layout.KeysDir+id.String())
	if err != nil {
		return crypto.SlotInfo{}, err
	}
	return s.Info(r.MasterKey)
}
