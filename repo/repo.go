// Package repo is a repository: many snapshots of many devices in one set of
// deduplicated, compressed, sealed and immutable files.
//
//	config          format version, features, and sealed settings
//	configs/ID      a copy of config
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
//	certificates/ID what snapshots were found to be worth as device backups
//	healing/NAME    a good file that is about to replace a damaged one
//
// Every file but config is named by the BLAKE3-256 of its bytes. Files appear
// complete, never change, and appear in this order: packs, then the index file that
// lists them, then the snapshot that needs them. An interrupted backup leaves no
// snapshot, only files that nothing refers to. docs/format.md describes every byte.
//
// All content that the package returns was authenticated and has the requested
// chunk ID. The package knows nothing of Apple's formats and prints nothing.
//
// It is a facade: the work is done by the packages in repo/internal, and most types
// here are aliases of theirs.
package repo

import (
	"context"
	"time"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/access"
	"github.com/snap-backup/snap/repo/internal/configs"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/store"
)

// Repo is an open repository. Several goroutines may use it.
type Repo struct {
	store *store.Store
	known knownSnapshots
	looks looks
}

// Options are the options of a repository. Programs use the zero value, tests set
// the rest.
type Options = store.Options

// Create makes a repository in an empty backend and opens it. secret opens its
// first key slot, which info describes. An interruption leaves either no
// repository or a complete one.
func Create(ctx context.Context, be backend.Backend, secret []byte, info crypto.SlotInfo, opts Options) (*Repo, error) {
	s, err := access.Create(ctx, be, secret, info, opts)
	if err != nil {
		return nil, err
	}
	return &Repo{store: s}, nil
}

// Open opens the repository in a backend with a password, key file or recovery
// key. It reads config and keys only; LoadIndex reads the index. If config is damaged or
// missing, Open uses a copy that the key opens, and ConfigDamage returns the damage.
func Open(ctx context.Context, be backend.Backend, secret []byte, opts Options) (*Repo, error) {
	s, err := access.Open(ctx, be, secret, opts)
	if err != nil {
		return nil, err
	}
	return &Repo{store: s}, nil
}

// FormatVersion is the version of the repository format that this package reads
// and writes.
const FormatVersion = store.FormatVersion

// Config is the settings of a repository.
type Config = store.Config

// Config returns the repository's settings.
func (r *Repo) Config() Config { return r.store.Config }

// ConfigDamage returns what is wrong with the file config, if Open has used a copy of
// it; otherwise nil. RepairConfig puts the copy in its place.
func (r *Repo) ConfigDamage() error { return r.store.ConfigDamage }

// ConfigJudgement says what can be told about config without a key.
type ConfigJudgement = configs.Judgement

// The states of config.
const (
	ConfigGood    = configs.Good
	ConfigDamaged = configs.Damaged
	ConfigUnknown = configs.Unknown
)

// JudgeConfig says without a key whether config is good. The error means that the store
// failed.
func JudgeConfig(ctx context.Context, be backend.Backend) (*ConfigJudgement, error) {
	return configs.Judge(ctx, be)
}

// Records returns the IDs of the snapshot records that a repository or a mirror has, and
// when each was put by the clock of the store. It needs no key, and reads no record.
func Records(ctx context.Context, be backend.Backend) (map[FileID]time.Time, error) {
	found := map[FileID]time.Time{}
	err := be.List(ctx, layout.SnapshotsDir, func(info backend.Info) error {
		if id, err := layout.ParseFileID(info.Name); err == nil {
			found[id] = info.Modified
		}
		return nil
	})
	return found, err
}

// Fingerprint returns a text that is the same for a repository and its mirrors, and another
// one for other repositories. It needs no key. Whoever can write to the store can make the
// fingerprint that of another repository, so it proves nothing.
func Fingerprint(ctx context.Context, be backend.Backend) (string, error) {
	return configs.Fingerprint(ctx, be)
}

// CheckConfig reads the config of a repository without a key. It fails with
// ErrNotFound if there is none, ErrUnsupported if this program is too old for it,
// and ErrDamaged if it is damaged.
func CheckConfig(ctx context.Context, be backend.Backend) error {
	return store.CheckConfig(ctx, be)
}

// FileID names a repository file: it is the BLAKE3-256 hash of its bytes.
type FileID = layout.FileID

// LoadIndex reads all index files. Nothing else may use the Repo meanwhile.
//
// If packs are in no good index file, LoadIndex reads their headers, and IndexDamage
// reports damaged and missing index files. LoadIndex leaves out packs that do not exist,
// so that a backup stores their chunks again. A backup also stores the chunks of packs on
// prune lists again, although they can be read, and those of packs that have another size
// than they should. If index files are missing and none is damaged, it stores again what
// these listed.
func (r *Repo) LoadIndex(ctx context.Context) error {
	if err := access.Confirm(ctx, r.store); err != nil {
		return err
	}
	return r.store.LoadIndex(ctx)
}

// IndexDamage returns the index files that LoadIndex found damaged, and the packs that
// are missing or have another size than they should. If one of the snapshots needs a pack
// that no index file lists, it also returns that an index file is missing.
func (r *Repo) IndexDamage(snapshots ...*Snapshot) []error {
	roots := make([]chunk.ID, len(snapshots))
	for i, s := range snapshots {
		roots[i] = s.Root
	}
	return r.store.IndexDamage(roots...)
}

// Index returns the index that LoadIndex has read.
func (r *Repo) Index() *index.Index { return r.store.Index }

// Free returns how many bytes the store can still take. The error is
// errors.ErrUnsupported if the store does not know.
func (r *Repo) Free(ctx context.Context) (int64, error) {
	return r.store.Free(ctx)
}

// MakeReserve makes a reserve if there is none or it is too small. A reserve needs
// 256 KiB plus the size of all index files, but at least 512 KiB and at most 128 MiB.
// If there is no room, the error satisfies backend.IsNoSpace; this does no harm.
func (r *Repo) MakeReserve(ctx context.Context) error {
	return r.store.MakeReserve(ctx)
}

// UseReserve allows this process to remove the reserve if there is no room for a
// lock, a prune list or an index file. It is for commands that free room.
func (r *Repo) UseReserve() {
	r.store.UseReserve()
}

// KeyInfo describes a key slot.
type KeyInfo = access.KeyInfo

// Keys lists the key slots.
func (r *Repo) Keys(ctx context.Context) ([]KeyInfo, error) {
	return access.Keys(ctx, r.store)
}

// AddKey adds a key slot that opens with secret. It fails with ErrKeyExists if a
// slot already does.
func (r *Repo) AddKey(ctx context.Context, secret []byte, info crypto.SlotInfo) (FileID, error) {
	return access.AddKey(ctx, r.store, secret, info)
}

// RemovedKey says what RemoveKey has removed, and what it has proven.
type RemovedKey = access.RemovedKey

// RemoveKey removes the key slot whose ID begins with prefix, and other files that the
// same secret opens. It fails with ErrLastKey if no other slot is good, and with
// ErrUnprovenKeys if that is not known. The result says whether it is proven that the
// secret no longer opens the repository. A person who has a copy of the slot, or has
// opened the repository with it before, can still open the repository.
func (r *Repo) RemoveKey(ctx context.Context, prefix string) (*RemovedKey, error) {
	return access.RemoveKey(ctx, r.store, prefix, true)
}

// RemoveOtherKey is like RemoveKey, but fails with ErrKeyInUse if the secret that opened
// the repository would not open it any more.
func (r *Repo) RemoveOtherKey(ctx context.Context, prefix string) (*RemovedKey, error) {
	return access.RemoveKey(ctx, r.store, prefix, false)
}

// KeyRenewal is a key slot that was replaced by one of the newest version.
type KeyRenewal = access.Renewal

// RenewKey replaces the key slot that opened the repository by one of the newest version
// for the same secret, if it is of an older version. It returns nil if it is not. The
// caller holds a lock. An error does no harm: the old slot still opens the repository. Only
// ErrNoKey means that the key was removed after it opened the repository; it does not come
// back.
func (r *Repo) RenewKey(ctx context.Context) (*KeyRenewal, error) {
	return access.RenewSlot(ctx, r.store)
}

// ChangePassword replaces the key slot that opened the repository by one that opens
// with secret and has the same label. The new slot is durable before the old one is
// removed. If ChangePassword is interrupted, another call with the same secret
// completes it. If another slot opens with secret, the error is ErrKeyExists.
func (r *Repo) ChangePassword(ctx context.Context, secret []byte, kind crypto.SlotKind) (FileID, error) {
	return access.ChangePassword(ctx, r.store, secret, kind)
}
