package access

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/store"
)

// RemovedKey says what RemoveKey has removed, and what it has proven.
type RemovedKey struct {
	KeyInfo
	// Copies are other files in keys/ that the same secret opened. They were removed.
	Copies []layout.FileID `json:"copies"`
	// Doubts are reasons why the secret of this key may still open the repository. If
	// there are none, it is proven that the secret does not open it any more.
	Doubts []string `json:"doubts"`
}

// RemoveKey removes the key slot whose ID has a prefix, as repo.Repo.RemoveKey and
// repo.Repo.RemoveOtherKey describe. inUse says that it may be the one that opened the
// repository.
func RemoveKey(ctx context.Context, r *store.Store, prefix string, inUse bool) (*RemovedKey, error) {
	keys, parsed, err := listKeys(ctx, r)
	if err != nil {
		return nil, err
	}
	at, err := findKey(keys, prefix)
	if err != nil {
		return nil, err
	}
	out := &RemovedKey{KeyInfo: keys[at], Copies: []layout.FileID{}, Doubts: []string{}}
	copies := copiesOf(keys, parsed, at)
	unproven := 0
	proven := slices.ContainsFunc(keys, func(k KeyInfo) bool {
		if k.ID == keys[at].ID || slices.Contains(copies, k.ID) {
			return false
		}
		if k.Damaged == "" && !k.Bound && !k.Current {
			unproven++
		}
		return k.Bound || k.Current && (k.Damaged == "" || k.Exchanged)
	})
	switch {
	case !proven && unproven > 0:
		return nil, store.ErrUnprovenKeys
	case !proven:
		return nil, store.ErrLastKey
	case !inUse && (keys[at].Current || slices.Contains(copies, r.Slot)):
		return nil, fmt.Errorf("key %s: %w", keys[at].ID.Short(), store.ErrKeyInUse)
	}
	// The copies go first: the slot that was named is there until all are gone.
	for _, id := range append(copies, keys[at].ID) {
		if err := deleteSlot(ctx, r, id); err != nil {
			return nil, fmt.Errorf("remove a key slot: %w", err)
		}
	}
	out.Copies = append(out.Copies, copies...)
	out.Doubts, err = doubts(ctx, r, keys[at], parsed[at])
	return out, err
}

// findKey returns the position of the key whose ID has a prefix. It fails with
// ErrAmbiguous if several keys match.
func findKey(keys []KeyInfo, prefix string) (int, error) {
	var found []int
	for i, k := range keys {
		if prefix != "" && strings.HasPrefix(k.ID.String(), strings.ToLower(prefix)) {
			found = append(found, i)
		}
	}
	switch {
	case len(found) == 0:
		return 0, fmt.Errorf("%q: %w", prefix, store.ErrNoKey)
	case len(found) > 1:
		return 0, fmt.Errorf("%q matches %d keys: %w", prefix, len(found), store.ErrAmbiguous)
	}
	return found[0], nil
}

// copiesOf returns the other slots that the secret of a slot opens, as far as that can
// be told without it: those with the same sealed master key, and older versions of the
// slot, which have its salt. The salt of a slot counts only if its description proves
// that it is a slot of this repository; otherwise somebody may have made it with the salt
// of another key, so that this key is removed with it.
func copiesOf(keys []KeyInfo, parsed []*crypto.Slot, at int) []layout.FileID {
	s := parsed[at]
	if s == nil {
		return nil
	}
	var ids []layout.FileID
	for i, o := range parsed {
		switch {
		case i == at || o == nil:
		case s.SameKey(o) && !keys[i].Bound,
			(keys[at].Bound || keys[at].Current) && bytes.Equal(s.KDF.Salt, o.KDF.Salt):
			ids = append(ids, keys[i].ID)
		}
	}
	return ids
}

// shutOut removes the slot that has opened the repository, and its copies.
func shutOut(ctx context.Context, r *store.Store, id layout.FileID) error {
	keys, parsed, err := listKeys(ctx, r)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(keys, func(k KeyInfo) bool { return k.ID == id })
	if at < 0 {
		return nil // another process has removed it
	}
	keys[at].Current = true // it has opened the repository
	for _, id := range append(copiesOf(keys, parsed, at), id) {
		if err := deleteSlot(ctx, r, id); err != nil {
			return err
		}
	}
	return nil
}

// doubts returns the reasons why the secret of a removed slot may still open the
// repository.
func doubts(ctx context.Context, r *store.Store, gone KeyInfo, slot *crypto.Slot) ([]string, error) {
	out := []string{}
	keys, parsed, err := listKeys(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("the key was removed, but what is left could not be read: %w", err)
	}
	switch {
	case gone.Newer:
		out = append(out, "a newer snap made the key, and this one cannot tell which key it was")
	case slot == nil:
		out = append(out, "the file was damaged, so nobody knows which key it was")
	case !gone.Bound:
		out = append(out, "the key was of an older version: whoever can write to the storage can exchange its label and kind with those of another key. If somebody has done that, the wrong key was removed")
	}
	var unreadable, unproven, older []string
	for i, k := range keys {
		switch {
		case k.ID == gone.ID:
			return nil, errors.New("the store says that it has removed the key, but the file is still there")
		case parsed[i] == nil:
			unreadable = append(unreadable, k.ID.Short())
		case k.Bound || k.Current:
			// The label of this key is proven, or this key has opened the repository.
		case !gone.Bound:
			unproven = append(unproven, fmt.Sprintf("%s (%q)", k.ID.Short(), k.Label))
		case slot != nil && bytes.Equal(slot.KDF.Salt, parsed[i].KDF.Salt):
			older = append(older, k.ID.Short())
		}
	}
	if len(unreadable) > 0 {
		out = append(out, "a key that cannot be read may be a copy of the removed one: "+nameSome(unreadable))
	}
	if len(unproven) > 0 {
		out = append(out, "a key whose label is not proven may be the one that you wanted to remove: "+nameSome(unproven)+". The label of a key is proven once its owner has opened the repository with it and stored something")
	}
	if len(older) > 0 {
		out = append(out, "a key may be an older version of the removed one: "+nameSome(older))
	}
	return out, nil
}

// maxNamed bounds how many keys a text names: anybody who can write to the store can add
// some.
const maxNamed = 5

// nameSome names the first keys of a list and counts the others.
func nameSome(ids []string) string {
	if n := len(ids) - maxNamed; n > 0 {
		ids = append(slices.Clone(ids[:maxNamed]), fmt.Sprintf("%d more", n))
	}
	return strings.Join(ids, ", ")
}
