package access

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/internal/password"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/replace"
)

// Whoever can write to the store can add any number of slots at any cost, so trying a
// secret on them is bounded.
const (
	// maxSlots bounds how many files in keys/ are read.
	maxSlots = 1024
	// maxKeptSlots bounds how many copies of key slots are tried.
	maxKeptSlots = 4
	// maxWork bounds the work of all attempts together, in passes over 1 KiB of memory.
	// It is enough for 170 attempts at the cost of new slots. A single slot may cost up
	// to four times as much; if it is the cheapest one or a hint names it, it is tried.
	maxWork = 1 << 25
)

// slot is a key slot and its name.
type slot struct {
	*crypto.Slot
	id layout.FileID
}

func (s slot) name() string { return layout.KeysDir + s.id.String() }

// work returns the work of trying a secret with some number of forms.
func (s slot) work(forms int) uint64 {
	return uint64(forms) * uint64(s.KDF.Time) * uint64(s.KDF.MemoryKiB)
}

// slots are the key slots of a repository.
type slots struct {
	good   []slot  // that can be parsed, the cheapest first
	closed []error // about those that are damaged or of a newer version
	unread int     // files that were not read, since there are too many
}

// keptSlots reads the key slots of which there are copies near, without asking a store far
// away for all of them. It leaves out slots of older versions, which another computer may
// renew at any time, and those that cost more than new ones.
func keptSlots(ctx context.Context, be backend.Backend) []slot {
	near, ok := be.(backend.Keeper)
	if !ok {
		return nil
	}
	usual := crypto.DefaultCost()
	var kept []slot
	for _, name := range near.Kept(layout.KeysDir) {
		id, err := layout.ParseFileID(name)
		if err != nil || len(kept) == maxKeptSlots {
			continue
		}
		s, err := readSlot(ctx, be, name)
		if err == nil && s.Bound() && s.KDF.MemoryKiB <= usual.MemoryKiB && s.KDF.Time <= usual.Time {
			kept = append(kept, slot{s, id})
		}
	}
	slices.SortStableFunc(kept, func(a, b slot) int { return cmp.Compare(a.work(1), b.work(1)) })
	return kept
}

// Confirm fails if the key slot that opened the repository does not exist any more: it was
// opened with a copy that is near, and the key was removed.
func Confirm(ctx context.Context, r *store.Store) error {
	if !r.SlotKept {
		return nil
	}
	names, err := r.NamesIn(ctx, layout.KeysDir)
	if err != nil {
		return err
	}
	if !slices.Contains(names, layout.KeysDir+r.Slot.String()) {
		return fmt.Errorf("key %s was removed from the repository: %w", r.Slot.Short(), store.ErrWrongPassword)
	}
	r.SlotKept = false
	return nil
}

// readSlots reads the key slots. Those of a repository have the same cost, so slots
// that somebody has added to keep programs busy come after them.
func readSlots(ctx context.Context, be backend.Backend) (*slots, error) {
	var all slots
	n := 0
	err := store.List(ctx, be, layout.KeysDir, func(f backend.Info) error {
		if n++; n > maxSlots {
			all.unread++
			return nil
		}
		id, err := layout.ParseFileID(f.Name)
		if err != nil {
			return err
		}
		s, err := readSlot(ctx, be, f.Name)
		switch {
		case err == nil:
			all.good = append(all.good, slot{s, id})
		case !isAboutSlot(err):
			return err
		default:
			all.closed = append(all.closed, err)
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(all.good, func(a, b slot) int { return cmp.Compare(a.work(1), b.work(1)) })
	return &all, nil
}

func readSlot(ctx context.Context, be backend.Backend, name string) (*crypto.Slot, error) {
	b, err := store.ReadNamed(ctx, be, name, crypto.MaxSlotSize)
	if err != nil {
		return nil, err
	}
	return ParseSlot(name, b)
}

// ParseSlot parses a file in keys/. It fails with store.ErrUnsupported if a newer program
// made the slot, and with store.ErrDamaged if it is no slot.
func ParseSlot(name string, b []byte) (*crypto.Slot, error) {
	s, err := crypto.ParseSlot(b)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return nil, fmt.Errorf("%s: key slot of a newer version: %w", name, store.ErrUnsupported)
	case err != nil:
		return nil, &store.DamageError{File: name, Err: err}
	}
	return s, nil
}

// isAboutSlot reports whether an error says what a slot is like. Other errors say nothing
// about it: it may be good.
func isAboutSlot(err error) bool {
	return errors.Is(err, store.ErrDamaged) || errors.Is(err, store.ErrUnsupported)
}

// hinted moves the slot whose ID begins with hint to the front. n is 1 if there is one,
// 0 without a hint.
func (all *slots) hinted(ctx context.Context, be backend.Backend, hint string) (n int, err error) {
	if hint == "" {
		return 0, nil
	}
	var ids []layout.FileID
	err = store.List(ctx, be, layout.KeysDir, func(f backend.Info) error {
		if id, err := layout.ParseFileID(f.Name); err == nil && strings.HasPrefix(id.String(), strings.ToLower(hint)) {
			ids = append(ids, id)
		}
		return nil
	})
	switch {
	case err != nil:
		return 0, err
	case len(ids) == 0:
		return 0, fmt.Errorf("%q: %w", hint, store.ErrNoKey)
	case len(ids) > 1:
		return 0, fmt.Errorf("%q matches %d keys: %w", hint, len(ids), store.ErrAmbiguous)
	}
	s, err := readSlot(ctx, be, layout.KeysDir+ids[0].String())
	if err != nil {
		return 0, err
	}
	all.good = slices.DeleteFunc(all.good, func(o slot) bool { return o.id == ids[0] })
	all.good = slices.Insert(all.good, 0, slot{s, ids[0]})
	return 1, nil
}

// try tries a secret on slots, in their order, until fn returns true for one that opens.
// The first hinted ones are tried at any cost. untried are slots that were not tried.
func try(ctx context.Context, list []slot, hinted int, secret []byte, fn func(slot, *crypto.Opened) bool) (untried []slot, err error) {
	forms := password.Forms(secret)
	password.Clear(forms)
	var spent uint64
	for i, s := range list {
		work := s.work(len(forms))
		switch {
		case i < hinted:
			work = 0
		case spent > 0 && spent+work > maxWork:
			untried = append(untried, s)
			continue
		}
		spent += work
		if err := ctx.Err(); err != nil {
			return untried, err
		}
		o, err := s.Unlock(secret)
		if errors.Is(err, crypto.ErrWrongPassword) {
			continue
		}
		if err != nil {
			return untried, err
		}
		if fn(s, o) {
			return untried, nil
		}
	}
	return untried, nil
}

// untriedError says that key slots were not tried, or not even read.
type untriedError struct {
	slots  []slot
	unread int
}

// maxUntried bounds how many slots an error names.
const maxUntried = 5

func (e *untriedError) Error() string {
	var ids []string
	for _, s := range e.slots[:min(len(e.slots), maxUntried)] {
		ids = append(ids, s.id.Short())
	}
	if n := len(e.slots) + e.unread - len(ids); n > 0 {
		ids = append(ids, fmt.Sprintf("%d more", n))
	}
	return fmt.Sprintf("%d key slots were not tried, since that would take too long (%s); somebody may have added them", len(e.slots)+e.unread, strings.Join(ids, ", "))
}

// FetchSlot fetches, from an exact copy, the key slot that a secret opens, as repo.FetchKey
// describes.
func FetchSlot(ctx context.Context, be, from backend.Backend, secret []byte, opts store.Options, dryRun bool) (string, error) {
	all, err := readSlots(ctx, be)
	if err != nil {
		return "", err
	}
	damaged := map[string]bool{}
	for _, err := range all.closed {
		if d, ok := errors.AsType[*store.DamageError](err); ok {
			damaged[d.File] = true
		}
	}
	// An interrupted run may have removed the damaged slot, but not put the good one.
	err = be.List(ctx, replace.Dir+layout.KeysDir, func(f backend.Info) error {
		damaged[strings.TrimPrefix(f.Name, replace.Dir)] = true
		return nil
	})
	if err != nil {
		return "", err
	}
	if len(all.good)+all.unread > 0 && len(damaged) == 0 {
		return "", nil
	}
	copied, err := Open(ctx, from, secret, opts)
	if err != nil {
		return "", fmt.Errorf("the copy: %w", err)
	}
	name := layout.KeysDir + copied.Slot.String()
	if len(all.good)+all.unread > 0 && !damaged[name] {
		return "", nil // somebody has removed it
	}
	ours, err := isOf(ctx, be, copied)
	if err == nil && !ours {
		err = fmt.Errorf("the copy: %w", store.ErrOtherRepository)
	}
	if err != nil {
		return "", err
	}
	b, err := store.ReadNamed(ctx, from, name, crypto.MaxSlotSize)
	if err == nil && !dryRun {
		err = replace.Put(ctx, be, name, b)
	}
	return name, err
}

// isOf reports whether files are of the same repository as an open one: its key opens
// their config or, without a config, one of their records.
func isOf(ctx context.Context, be backend.Backend, r *store.Store) (bool, error) {
	found, err := store.FindConfigs(ctx, be)
	if err != nil {
		return false, err
	}
	ours, err := found.Any(ctx, func(f *store.ConfigFile) bool {
		cfg, err := f.Open(r.MasterKey)
		return err == nil && cfg.ID == r.Config.ID
	})
	if ours || err != nil {
		return ours, err
	}
	return opensRecord(ctx, be, r.MasterKey)
}
