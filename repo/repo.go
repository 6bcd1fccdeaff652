// Package repo is a repository: many snapshots of many devices in one set of
// deduplicated, compressed, sealed and immutable files.
//
//	config          format version, features, and sealed settings
//	keys/ID         key slots: the master key sealed under a password
//	packs/xx/ID     sealed blocks of chunks (package pack)
//	index/ID        which chunks are in which packs (package index)
//	snapshots/ID    one sealed record for each snapshot
//	secrets/ID      sealed backup passwords of devices
//	locks/ID        which processes use the repository
//	prunes/ID       prune lists: packs that are about to be removed
//	runs/ID         records of unfinished backups
//	reserve         room that a prune of a full store needs
//	checks/ID       when each pack was last checked
//	parity/ID       parity for packs and records (package parity)
//	healing/NAME    a good file that is about to replace a damaged one
//
// Every file but config is named by the BLAKE3-256 of its bytes. Files appear
// complete, never change, and appear in this order: packs, then the index file
// that lists them, then the snapshot that needs them. An interruption leaves files
// that nothing refers to, and no snapshot. docs/format.md describes every byte.
//
// The package promises that what it returns as content was authenticated and has
// the chunk ID under which it was requested. It knows nothing of Apple's formats
// and prints nothing.
//
// It is a facade: the work is done by the packages in repo/internal, and most
// types here are theirs.
package repo

import (
	"context"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/access"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/store"
)

// Repo is an open repository. Several goroutines may use it.
type Repo struct{ store *store.Store }

// Options are what a repository takes from outside. The zero value is what a
// program wants; tests set the rest.
type Options = store.Options

// Create makes a repository in an empty backend and opens it. secret opens its
// first key slot, which info describes. An interruption leaves either no
// repository or a complete one.
func Create(ctx context.Context, be backend.Backend, secret []byte, info crypto.SlotInfo, opts Options) (*Repo, error) {
	s, err := access.Create(ctx, be, secret, info, opts)
	if err != nil {
		return nil, err
	}
	return &Repo{s}, nil
}

// Open opens the repository in a backend with a password, key file or recovery
// key. It reads config and keys only; LoadIndex reads the index.
func Open(ctx context.Context, be backend.Backend, secret []byte, opts Options) (*Repo, error) {
	s, err := access.Open(ctx, be, secret, opts)
	if err != nil {
		return nil, err
	}
	return &Repo{s}, nil
}

// FormatVersion is the version of the repository format that this package
// writes. It reads this one alone so far.
const FormatVersion = store.FormatVersion

// Config is what a repository says about itself.
type Config = store.Config

// Config returns the repository's settings.
func (r *Repo) Config() Config { return r.store.Config }

// CheckConfig looks at the config of the repository in a backend as far as that
// goes without a key: ErrNotFound if there is none, ErrUnsupported if this
// program is too old for it, ErrDamaged if it is no config.
func CheckConfig(ctx context.Context, be backend.Backend) error {
	return store.CheckConfig(ctx, be)
}

// FileID names a repository file: BLAKE3-256 of its bytes.
type FileID = layout.FileID

// LoadIndex reads all index files. A damaged one does not stop it: packs that
// no index lists are then read for their headers, and IndexDamage tells. Packs
// that are not there are left out, so that their chunks count as unknown and
// are stored anew when they turn up in a backup; so do those of packs that are
// about to be removed, though they can be read. Nothing else may use the
// repository meanwhile.
func (r *Repo) LoadIndex(ctx context.Context) error {
	return r.store.LoadIndex(ctx)
}

// IndexDamage returns what LoadIndex found wrong with index files, and the packs
// that they list and that are not there.
func (r *Repo) IndexDamage() []error {
	return r.store.IndexDamage()
}

// Index returns the index that LoadIndex has read.
func (r *Repo) Index() *index.Index { return r.store.Index }

// Free returns how many bytes the store can still take; errors.ErrUnsupported
// if it does not know.
func (r *Repo) Free(ctx context.Context) (int64, error) {
	return r.store.Free(ctx)
}

// MakeReserve sees to it that the store has a reserve: as much as all index
// files take, and 256 KiB, but at least 512 KiB and at most 128 MiB. It can fail
// with an error that backend.IsNoSpace recognises, which does no harm.
func (r *Repo) MakeReserve(ctx context.Context) error {
	return r.store.MakeReserve(ctx)
}

// UseReserve lets the reserve be given up when there is no room for a lock, a
// list or an index file: for commands that free room in the end.
func (r *Repo) UseReserve() {
	r.store.UseReserve()
}

// KeyInfo describes a key slot.
type KeyInfo = access.KeyInfo

// Keys lists the key slots.
func (r *Repo) Keys(ctx context.Context) ([]KeyInfo, error) {
	return access.Keys(ctx, r.store)
}

// AddKey adds a key slot that opens with secret. If another one does already,
// that is ErrKeyExists: removing one of them would not do what it seems to.
func (r *Repo) AddKey(ctx context.Context, secret []byte, info crypto.SlotInfo) (FileID, error) {
	return access.AddKey(ctx, r.store, secret, info)
}

// RemoveKey removes the key slot whose ID begins with prefix, unless no sound
// slot would be left. Who has a copy of the slot's file, or
// has opened the repository with it before, is not locked out by this.
func (r *Repo) RemoveKey(ctx context.Context, prefix string) (FileID, error) {
	return access.RemoveKey(ctx, r.store, prefix)
}

// ChangePassword replaces the slot that opened the repository by one that
// opens with secret and keeps its label. The new slot is durable before the
// old one goes; if that is cut off in between, the same again removes the old
// one. If any other slot opens with secret, that is ErrKeyExists.
func (r *Repo) ChangePassword(ctx context.Context, secret []byte, kind crypto.SlotKind) (FileID, error) {
	return access.ChangePassword(ctx, r.store, secret, kind)
}
