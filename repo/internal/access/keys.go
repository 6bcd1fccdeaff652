package access

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/parity"
	"github.com/snap-backup/snap/repo/replace"
)

// KeyInfo describes a key slot.
type KeyInfo struct {
	ID      layout.FileID   `json:"id"`
	Kind    crypto.SlotKind `json:"kind"`
	Label   string          `json:"label"`
	Created time.Time       `json:"created"`
	Current bool            `json:"current"` // it opened this repository
	// Bound says that kind, label and time belong to this slot. Those of an older slot
	// can be exchanged with another one's by whoever can write to the store.
	Bound   bool   `json:"bound"`
	Damaged string `json:"damaged,omitempty"`
	// Exchanged says that the slot may be good, but that its description is not.
	Exchanged bool `json:"exchanged,omitempty"`
	// Newer says that a newer program made the slot, so that nothing else is known of it.
	Newer bool `json:"newer,omitempty"`

	damage error // its text is in Damaged
}

// Damage returns what Damaged says as a *store.DamageError, or nil.
func (k *KeyInfo) Damage() error {
	if k.damage == nil {
		return nil
	}
	return &store.DamageError{File: layout.KeysDir + k.ID.String(), Err: k.damage}
}

// unlocked is what a secret opens.
type unlocked struct {
	slot   layout.FileID
	master crypto.Key
	sealed *store.ConfigFile // the first one that the master key opens
	config store.Config
	made   bool   // sealed is new
	renew  []byte // see store.Store.RenewedSlot
	kept   bool   // see store.Store.SlotKept
}

// unlock tries a secret on the key slots until one opens, see try. Each attempt derives
// a key at full cost, so a wrong password takes at least as long as a right one. A slot
// counts only if its master key opens a config: a slot of another repository that is here
// by mistake must not hide the right one. If there is no such config, lastResort looks for
// another one.
func unlock(ctx context.Context, be backend.Backend, secret []byte, found *store.Configs, opts store.Options) (*unlocked, error) {
	if opts.KeyHint == "" && !opts.Survey {
		if u := openKept(ctx, be, secret, found); u != nil {
			return u, nil
		}
	}
	all, err := readSlots(ctx, be)
	if err != nil {
		return nil, fmt.Errorf("open a key slot: %w", err)
	}
	hinted, err := all.hinted(ctx, be, opts.KeyHint)
	if err != nil {
		return nil, fmt.Errorf("open a key slot: %w", err)
	}
	var out *unlocked
	var foreign []opened
	var missed error // of reading the copies of config
	untried, err := try(ctx, all.good, hinted, secret, func(s slot, o *crypto.Opened) bool {
		ok, err := found.Any(ctx, func(f *store.ConfigFile) bool {
			cfg, err := f.Open(o.Master)
			if err == nil {
				out = opened{s, o}.with(f, cfg)
			}
			return err == nil
		})
		missed = cmp.Or(missed, err)
		if ok {
			o.Destroy()
			return true
		}
		foreign = append(foreign, opened{s, o})
		return false
	})
	if out == nil {
		err = cmp.Or(err, missed)
	}
	if out == nil && err == nil {
		out, err = lastResort(ctx, be, foreign, opts)
	}
	for _, o := range foreign {
		o.Destroy()
	}
	if out == nil && err == nil {
		err = lockedOut(all, untried, found, foreign)
	} else if err != nil {
		err = fmt.Errorf("open a key slot: %w", err)
	}
	return out, err
}

// openKept opens config with the copy of a slot that is near. The slot may not exist any
// more, see Confirm. It returns nil if that does not work.
func openKept(ctx context.Context, be backend.Backend, secret []byte, found *store.Configs) (u *unlocked) {
	_, _ = try(ctx, keptSlots(ctx, be), 0, secret, func(s slot, o *crypto.Opened) bool {
		defer o.Destroy()
		for _, f := range found.Found {
			if cfg, err := f.Open(o.Master); err == nil {
				u = opened{s, o}.with(f, cfg)
				u.kept = true
				return true
			}
		}
		return false
	})
	return u
}

// opened is a slot and what its secret opens.
type opened struct {
	slot
	*crypto.Opened
}

// with returns what a secret opens, given the config.
func (o opened) with(f *store.ConfigFile, cfg store.Config) *unlocked {
	return &unlocked{slot: o.id, master: o.Master, sealed: f, config: cfg, renew: renewed(o.slot, o.Opened, f)}
}

// lockedOut says why a secret does not open the repository.
func lockedOut(all *slots, untried []slot, found *store.Configs, foreign []opened) error {
	var left []error
	if len(untried)+all.unread > 0 {
		left = append(left, fmt.Errorf("%w. Use --key-hint with the ID of your key, which is the name of its file in keys/; the file is probably one of the oldest there", &untriedError{untried, all.unread}))
	}
	left = append(left, all.closed...)
	first := store.ErrWrongPassword
	switch {
	case len(foreign) > 0 && found.Damage != nil:
		first = found.Because(found.Damage)
	case len(foreign) > 0:
		first = found.Because(&store.DamageError{File: layout.ConfigName, Err: fmt.Errorf("key slot %s opens, but the key in it does not open this file: %w", foreign[0].name(), crypto.ErrAuth)})
	case len(all.good) == 0 && len(left) == 0:
		first = &store.DamageError{File: layout.KeysDir, Err: errors.New("there is no key slot")}
	case len(all.good) == 0:
		return errors.Join(left...)
	}
	return errors.Join(append([]error{first}, left...)...)
}

func addSlot(ctx context.Context, r *store.Store, secret []byte, info crypto.SlotInfo) (layout.FileID, error) {
	cost := r.Options.Cost
	if cost == (crypto.Cost{}) {
		cost = crypto.DefaultCost()
	}
	info.Created = r.Options.Now().UTC().Truncate(time.Second)
	info.Config = configFor(r.Sealed)
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
	keys, _, err := listKeys(ctx, r)
	return keys, err
}

// listKeys returns the key slots, and for each the parsed slot, or nil if it is damaged.
func listKeys(ctx context.Context, r *store.Store) (keys []KeyInfo, parsed []*crypto.Slot, err error) {
	err = store.List(ctx, r.Backend, layout.KeysDir, func(f backend.Info) error {
		id, err := layout.ParseFileID(f.Name)
		if err != nil {
			return err
		}
		k := KeyInfo{ID: id, Current: id == r.Slot}
		s, err := readSlot(ctx, r.Backend, f.Name)
		if err != nil && !isAboutSlot(err) {
			return err
		}
		var info crypto.SlotInfo
		if err == nil {
			info, err = s.Info(r.MasterKey)
			k.Bound, k.Exchanged = s.Bound() && err == nil, errors.Is(err, crypto.ErrExchanged)
		}
		if k.Newer = errors.Is(err, store.ErrUnsupported); err != nil && !k.Newer {
			k.damage = err
			if d := (*store.DamageError)(nil); errors.As(err, &d) {
				k.damage = d.Err
			}
			k.Damaged = err.Error()
		}
		k.Kind, k.Label, k.Created = info.Kind, info.Label, info.Created
		keys, parsed = append(keys, k), append(parsed, s)
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("list keys: %w", err)
	}
	return keys, parsed, nil
}

// AddKey adds a key slot that opens with secret. It fails with ErrKeyExists if
// another slot opens with it: if two slots did, removing one would not revoke the
// secret. It fails, too, if there are more slots than can be tried.
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

// slotOf finds a slot of this repository other than except that opens with a secret.
// Slots whose description the master key does not open do not count, and cost nothing. It
// fails if one that counts was not tried: the secret may open it.
func slotOf(ctx context.Context, r *store.Store, secret []byte, except layout.FileID) (id layout.FileID, found bool, err error) {
	all, err := readSlots(ctx, r.Backend)
	if err != nil {
		return id, false, err
	}
	list := slices.DeleteFunc(all.good, func(s slot) bool {
		_, err := s.Info(r.MasterKey)
		return err != nil || s.id == except
	})
	untried, err := try(ctx, list, 0, secret, func(s slot, o *crypto.Opened) bool {
		o.Destroy()
		id, found = s.id, true
		return true
	})
	if err == nil && !found && len(untried)+all.unread > 0 {
		err = fmt.Errorf("nothing was changed, since the secret may open another key: %w; `snap key list` lists the keys, and `snap key remove` removes those that nobody knows", &untriedError{untried, all.unread})
	}
	return id, found, err
}

// deleteSlot removes a key slot, what an interrupted repair has left of it, and the parity
// that could restore it. Another process may make new parity until the slot is gone, so it
// looks for parity again then.
func deleteSlot(ctx context.Context, r *store.Store, id layout.FileID) error {
	name := layout.KeysDir + id.String()
	if err := parity.Forget(ctx, r.Backend, name); err != nil {
		return err
	}
	if _, err := replace.Clear(ctx, r.Backend, name); err != nil {
		return err
	}
	return parity.Forget(ctx, r.Backend, name)
}

// ChangePassword replaces the key slot that opened the repository, as
// repo.Repo.ChangePassword describes.
func ChangePassword(ctx context.Context, r *store.Store, secret []byte, kind crypto.SlotKind) (layout.FileID, error) {
	info, err := slotInfo(ctx, r, r.Slot)
	if err != nil && !errors.Is(err, crypto.ErrExchanged) {
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
	if err := shutOut(ctx, r, old); err != nil {
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
