package repo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo/backend"
)

// calibrateTo is how long guessing one password should take here.
const calibrateTo = 500 * time.Millisecond

// maxSlots bounds how many key slots are tried with a password, so that a
// repository cannot keep a machine busy for ever.
const maxSlots = 64

// KeyInfo describes a key slot.
type KeyInfo struct {
	ID      FileID          `json:"id"`
	Kind    crypto.SlotKind `json:"kind"`
	Label   string          `json:"label"`
	Created time.Time       `json:"created"`
	Current bool            `json:"current"` // it opened this repository
	Damaged string          `json:"damaged,omitempty"`
}

// unlock tries a secret on every key slot. The slots are tried in order of
// their IDs and each costs a full derivation, so a wrong password takes at
// least as long as a right one.
func unlock(ctx context.Context, be backend.Backend, secret []byte) (crypto.Key, FileID, error) {
	var damage []error
	tried := 0
	var master crypto.Key
	var slot FileID
	done := errors.New("opened")
	err := be.List(ctx, keysDir, func(f backend.Info) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if tried >= maxSlots {
			return nil
		}
		s, err := readSlot(ctx, be, f.Name)
		if err != nil {
			if errors.Is(err, ErrDamaged) {
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
		master = key
		slot, err = fileID(f.Name)
		if err != nil {
			return err
		}
		return done
	})
	switch {
	case errors.Is(err, done):
		return master, slot, nil
	case err != nil:
		return crypto.Key{}, FileID{}, fmt.Errorf("open a key slot: %w", err)
	case tried == 0 && len(damage) == 0:
		return crypto.Key{}, FileID{}, &DamageError{keysDir, errors.New("there is no key slot")}
	case tried == 0:
		return crypto.Key{}, FileID{}, errors.Join(damage...)
	case len(damage) > 0:
		return crypto.Key{}, FileID{}, errors.Join(append([]error{ErrWrongPassword}, damage...)...)
	}
	return crypto.Key{}, FileID{}, ErrWrongPassword
}

func readSlot(ctx context.Context, be backend.Backend, name string) (*crypto.Slot, error) {
	b, err := readNamed(ctx, be, name, crypto.MaxSlotSize)
	if err != nil {
		return nil, err
	}
	s, err := crypto.ParseSlot(b)
	if err != nil {
		return nil, &DamageError{name, err}
	}
	return s, nil
}

func (r *Repo) addSlot(ctx context.Context, secret []byte, info crypto.SlotInfo) (FileID, error) {
	cost := r.opts.Cost
	if cost == (crypto.Cost{}) {
		cost = crypto.Calibrate(calibrateTo, r.opts.Now)
	}
	info.Created = r.opts.Now().UTC().Truncate(time.Second)
	b, err := crypto.NewSlot(r.opts.Rand, r.master, secret, cost, info)
	if err != nil {
		return FileID{}, err
	}
	id, err := r.putNamed(ctx, keysDir, b)
	if err != nil {
		return FileID{}, fmt.Errorf("store a key slot: %w", err)
	}
	return id, nil
}

// Keys lists the key slots.
func (r *Repo) Keys(ctx context.Context) ([]KeyInfo, error) {
	var out []KeyInfo
	err := r.be.List(ctx, keysDir, func(f backend.Info) error {
		id, err := fileID(f.Name)
		if err != nil {
			return nil
		}
		k := KeyInfo{ID: id, Current: id == r.slot}
		s, err := readSlot(ctx, r.be, f.Name)
		var info crypto.SlotInfo
		if err == nil {
			info, err = s.Info(r.master)
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

// AddKey adds a key slot that opens with secret.
func (r *Repo) AddKey(ctx context.Context, secret []byte, info crypto.SlotInfo) (FileID, error) {
	return r.addSlot(ctx, secret, info)
}

// RemoveKey removes the key slot whose ID begins with prefix. The last slot
// that is not damaged cannot be removed. Who has a copy of the slot's file, or
// has opened the repository with it before, is not locked out by this.
func (r *Repo) RemoveKey(ctx context.Context, prefix string) (FileID, error) {
	keys, err := r.Keys(ctx)
	if err != nil {
		return FileID{}, err
	}
	var found []KeyInfo
	sound := 0
	for _, k := range keys {
		if k.Damaged == "" {
			sound++
		}
		if prefix != "" && strings.HasPrefix(k.ID.String(), strings.ToLower(prefix)) {
			found = append(found, k)
		}
	}
	switch {
	case len(found) == 0:
		return FileID{}, fmt.Errorf("%q: %w", prefix, ErrNoKey)
	case len(found) > 1:
		return FileID{}, fmt.Errorf("%q fits %d keys: %w", prefix, len(found), ErrAmbiguous)
	case found[0].Damaged == "" && sound == 1:
		return FileID{}, ErrLastKey
	}
	if err := r.be.Delete(ctx, keysDir+found[0].ID.String()); err != nil {
		return FileID{}, fmt.Errorf("remove a key slot: %w", err)
	}
	return found[0].ID, nil
}

// ChangePassword replaces the slot that opened the repository by one that
// opens with secret. The new slot is durable before the old one goes.
func (r *Repo) ChangePassword(ctx context.Context, secret []byte) (FileID, error) {
	s, err := readSlot(ctx, r.be, keysDir+r.slot.String())
	if err != nil {
		return FileID{}, err
	}
	info, err := s.Info(r.master)
	if err != nil {
		return FileID{}, err
	}
	old := r.slot
	id, err := r.addSlot(ctx, secret, info)
	if err != nil {
		return FileID{}, err
	}
	r.slot = id
	if err := r.be.Delete(ctx, keysDir+old.String()); err != nil {
		return id, fmt.Errorf("the new password works, but the old one could not be removed: %w", err)
	}
	return id, nil
}
