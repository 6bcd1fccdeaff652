// Package repo is a repository: many snapshots of many devices in one set of
// deduplicated, compressed, sealed and immutable files.
//
//	config          format version, features, and sealed settings
//	keys/ID         key slots: the master key sealed under a password
//	packs/xx/ID     sealed blocks of chunks (package pack)
//	index/ID        which chunks lie in which packs (package index)
//	snapshots/ID    one sealed record for each snapshot
//	secrets/ID      sealed backup passwords of devices
//	locks/ID        who is at work
//	prunes/ID       packs that are about to be removed
//	runs/ID         what device backups that broke off have brought so far
//	reserve         room that a prune of a full store needs at first

//	checks/ID       when which pack was last read and found sound
//	parity/ID       what brings damaged packs and records back (package parity)
//	healing/NAME    good bytes on their way to the place of a damaged file
//
// Every file but config is named by the BLAKE3-256 of its bytes. Files appear
// whole, are never changed, and appear in this order: packs, then the index
// that lists them, then the snapshot that needs them. Whatever is cut off
// leaves files that nothing refers to, and no snapshot. docs/format.md has
// every byte.
//
// The package promises that what it returns as content was authenticated and
// has the chunk ID under which it was asked for. It knows nothing of Apple's
// formats and prints nothing.
package repo

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/owner"
	"lukechampine.com/blake3"
)

// The kinds of failure that a caller decides on; test with errors.Is.
var (
	// ErrNotFound says that there is no repository at the place given.
	ErrNotFound = errors.New("no repository here")
	// ErrExists says that a repository is there already.
	ErrExists = errors.New("there is a repository here already")
	// ErrUnsupported says that the repository was made by a newer snap.
	ErrUnsupported = errors.New("repository is newer than this snap")
	// ErrWrongPassword says that no key slot opens with a password.
	ErrWrongPassword = crypto.ErrWrongPassword
	// ErrDamaged says that stored bytes are missing or wrong. The error is a
	// *DamageError where a file can be named.
	ErrDamaged = errors.New("repository is damaged")
	// ErrNoSnapshot says that no snapshot fits what was asked for.
	ErrNoSnapshot = errors.New("no such snapshot")
	// ErrChanged says that somebody else has changed or forgotten a snapshot.
	ErrChanged = errors.New("somebody else has changed or forgotten it at the same time")
	// ErrAmbiguous says that several snapshots, keys or devices fit.
	ErrAmbiguous = errors.New("ambiguous")
	// ErrLastKey says that the only key slot cannot be removed.
	ErrLastKey = errors.New("this is the last key: nobody could open the repository any more")
	// ErrNoKey says that there is no such key slot.
	ErrNoKey = errors.New("no such key")
	// ErrKeyExists says that a secret opens a key slot already.
	ErrKeyExists = errors.New("this password or key file opens the repository already")
	// ErrLocked says that another process uses the repository. The error is a
	// *LockedError.
	ErrLocked = errors.New("the repository is locked")
	// ErrLockLost says that somebody has removed the lock of this process, so
	// that what it relies on may be gone.
	ErrLockLost = errors.New("the lock of this process was removed by somebody else")
)

// DamageError names a repository file that is missing or wrong. It is
// ErrDamaged.
type DamageError struct {
	File string // name in the repository; empty if the damage has no single file
	Err  error
}

func (e *DamageError) Error() string {
	if e.File == "" {
		return fmt.Sprintf("repository is damaged: %v", e.Err)
	}
	return fmt.Sprintf("repository file %s is damaged: %v", e.File, e.Err)
}

// Unwrap makes the error both its cause and ErrDamaged.
func (e *DamageError) Unwrap() []error { return []error{ErrDamaged, e.Err} }

// FileID names a repository file: BLAKE3-256 of its bytes.
type FileID [32]byte

// String returns the ID as 64 lower-case hex digits.
func (id FileID) String() string { return hex.EncodeToString(id[:]) }

// Short returns the first 8 hex digits, for people.
func (id FileID) Short() string { return hex.EncodeToString(id[:4]) }

// MarshalText implements encoding.TextMarshaler.
func (id FileID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *FileID) UnmarshalText(b []byte) error {
	if len(b) != 2*len(id) {
		return fmt.Errorf("file ID %.80q: want %d hex digits", b, 2*len(id))
	}
	_, err := hex.Decode(id[:], b)
	return err
}

// Folders of a repository, as prefixes of names.
const (
	configName   = "config"
	keysDir      = "keys/"
	packsDir     = "packs/"
	indexDir     = "index/"
	snapshotsDir = "snapshots/"
	locksDir     = "locks/"
	prunesDir    = "prunes/"
)

func packName(id pack.ID) string {
	s := id.String()
	return packsDir + s[:2] + "/" + s
}

// fileID parses the ID at the end of a file's name.
func fileID(name string) (FileID, error) {
	var id FileID
	err := id.UnmarshalText([]byte(name[strings.LastIndexByte(name, '/')+1:]))
	return id, err
}

// Options are what a repository takes from outside. The zero value is what a
// program wants; tests set the rest.
type Options struct {
	Rand     io.Reader        // crypto/rand by default
	Now      func() time.Time // time.Now by default
	Cost     crypto.Cost      // of guessing a password of a new key slot; crypto.DefaultCost by default
	Workers  int              // goroutines that compress and seal; as many as cores by default
	PackSize int              // bytes, 16 MiB by default, at most 64 MiB
	Cache    int              // bytes of decoded blocks to keep, 64 MiB by default
	// Refresh is how often a lock shows that its owner is alive, 5 minutes by
	// default; never if negative.
	Refresh time.Duration
	// Owner is who locks the repository: this process, by default.
	Owner *owner.Owner
}

// maxPackSize leaves room below pack.MaxSize for a block and the header.
const maxPackSize = 64 << 20

func (o Options) withDefaults() Options {
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.PackSize <= 0 {
		o.PackSize = 16 << 20
	}
	o.PackSize = min(o.PackSize, maxPackSize)
	if o.Cache <= 0 {
		o.Cache = 64 << 20
	}
	if o.Refresh == 0 {
		o.Refresh = lockRefresh
	}
	if o.Owner == nil {
		self := owner.Self()
		o.Owner = &self
	}
	return o
}

// Repo is an open repository. It may be used by several goroutines.
type Repo struct {
	be     backend.Backend
	opts   Options
	config Config
	master crypto.Key
	slot   FileID // the key slot that opened it

	chunkKey  crypto.Key
	blocks    *crypto.Sealer
	packs     *crypto.Sealer
	indexes   *crypto.Sealer
	snapshots *crypto.Sealer
	secrets   *crypto.Sealer
	locks     *crypto.Sealer
	prunes    *crypto.Sealer
	runs      *crypto.Sealer
	checks    *crypto.Sealer

	codecs  sync.Pool // *pack.Codec
	hashers sync.Pool // *chunk.Hasher
	scratch scratchPool
	cache   *blockCache

	index       *index.Index
	indexDamage []error
	missing     []pack.ID // packs that an index file lists and that are not there

	going     map[pack.ID]bool // packs that are about to be removed
	announced map[FileID]bool  // these, and those of them that no index lists

	lock *Lock // held by this process, if any

	useReserve bool // when the store is full
}

// Create makes a repository in an empty backend and opens it. secret opens its
// first key slot, which info describes. A crash leaves either no repository or
// a complete one.
func Create(ctx context.Context, be backend.Backend, secret []byte, info crypto.SlotInfo, opts Options) (*Repo, error) {
	opts = opts.withDefaults()
	stale, err := checkVacant(ctx, be)
	if err != nil {
		return nil, err
	}
	master, err := crypto.NewKey(opts.Rand)
	if err != nil {
		return nil, err
	}
	cfg, err := newConfig(opts)
	if err != nil {
		return nil, err
	}
	r := newRepo(be, opts, cfg, master)
	if r.slot, err = r.addSlot(ctx, secret, info); err != nil {
		return nil, err
	}
	// The config comes last: where it is, the repository is complete.
	b, err := cfg.seal(master, opts.Rand)
	if err != nil {
		return nil, err
	}
	if err := be.Put(ctx, configName, b); err != nil {
		if !errors.Is(err, backend.ErrExist) {
			return nil, fmt.Errorf("create repository: %w", err)
		}
		// Another process was faster, and its repository has no use for this
		// slot. What fails here is only untidy.
		_ = r.deleteSlot(ctx, r.slot)
		return nil, fmt.Errorf("create repository: %w", ErrExists)
	}
	// Only now: before, one of them could have been the slot of a process that
	// creates a repository here at the same time.
	for _, id := range stale {
		if id == r.slot {
			continue // the same randomness makes the same slot
		}
		if err := r.deleteSlot(ctx, id); err != nil {
			return nil, fmt.Errorf("the repository was created, but a key slot that an interrupted init left could not be removed: %w", err)
		}
	}
	r.index = index.New()
	return r, nil
}

// checkVacant refuses a backend that holds a repository or what is left of
// one. Key slots alone are what an interrupted Create leaves; they open
// nothing, and are returned.
func checkVacant(ctx context.Context, be backend.Backend) (slots []FileID, err error) {
	err = be.List(ctx, "", func(f backend.Info) error {
		switch {
		case f.Name == configName:
			return fmt.Errorf("create repository: %w", ErrExists)
		case strings.HasPrefix(f.Name, keysDir):
			if id, err := fileID(f.Name); err == nil {
				slots = append(slots, id)
			}
		case strings.HasPrefix(f.Name, packsDir), strings.HasPrefix(f.Name, indexDir), strings.HasPrefix(f.Name, snapshotsDir):
			return fmt.Errorf("create repository: %w, but its config file is missing; restore that file from a copy", ErrExists)
		}
		return nil
	})
	return slots, err
}

// Open opens the repository in a backend with a password, key file or recovery
// key. It reads config and keys only; LoadIndex reads the index.
func Open(ctx context.Context, be backend.Backend, secret []byte, opts Options) (*Repo, error) {
	opts = opts.withDefaults()
	sealed, err := readConfig(ctx, be)
	if err != nil {
		return nil, err
	}
	master, slot, cfg, err := unlock(ctx, be, secret, sealed)
	if err != nil {
		return nil, err
	}
	r := newRepo(be, opts, cfg, master)
	r.slot = slot
	return r, nil
}

func newRepo(be backend.Backend, opts Options, cfg Config, master crypto.Key) *Repo {
	r := &Repo{
		be: be, opts: opts, config: cfg, master: master,
		chunkKey:  master.Derive(crypto.ForChunkIDs),
		blocks:    crypto.NewSealer(master.Derive(crypto.ForBlocks), opts.Rand),
		packs:     crypto.NewSealer(master.Derive(crypto.ForPacks), opts.Rand),
		indexes:   crypto.NewSealer(master.Derive(crypto.ForIndexes), opts.Rand),
		snapshots: crypto.NewSealer(master.Derive(crypto.ForSnapshots), opts.Rand),
		secrets:   crypto.NewSealer(master.Derive(crypto.ForSecrets), opts.Rand),
		locks:     crypto.NewSealer(master.Derive(crypto.ForLocks), opts.Rand),
		prunes:    crypto.NewSealer(master.Derive(crypto.ForPrunes), opts.Rand),
		runs:      crypto.NewSealer(master.Derive(crypto.ForRuns), opts.Rand),
		checks:    crypto.NewSealer(master.Derive(crypto.ForChecks), opts.Rand),
		cache:     newBlockCache(opts.Cache),
	}
	r.codecs.New = func() any { return pack.NewCodec(r.blocks) }
	r.hashers.New = func() any { return r.NewHasher() }
	return r
}

// Config returns the repository's settings.
func (r *Repo) Config() Config { return r.config }

// Index returns the index that LoadIndex has read.
func (r *Repo) Index() *index.Index { return r.index }

// LoadIndex reads all index files. A damaged one does not stop it: packs that
// no index lists are then read for their headers, and IndexDamage tells. Packs
// that are not there are left out, so that their chunks count as unknown and
// are stored anew when they turn up in a backup; so do those of packs that are
// about to be removed, though they can be read. Nothing else may use the
// repository meanwhile.
func (r *Repo) LoadIndex(ctx context.Context) error {
	// First: a list of packs to be removed that is written later waits until
	// this process has read it, if it holds a lock.
	lists, err := r.pruneLists(ctx)
	if err != nil {
		return err
	}
	x, damage, missing, err := r.settledIndex(ctx)
	if err != nil {
		return err
	}
	if len(damage) > 0 {
		if err := r.indexFromPacks(ctx, x); err != nil {
			return fmt.Errorf("read pack headers in place of a damaged index: %w", err)
		}
	}
	var seen []FileID
	going, announced := map[pack.ID]bool{}, map[FileID]bool{}
	for _, l := range lists {
		seen = append(seen, l.ID)
		for _, id := range l.Packs {
			announced[id] = true
			if _, there := x.Pack(pack.ID(id)); there {
				x.Doom(pack.ID(id))
				going[pack.ID(id)] = true
			}
		}
	}
	x.Compact()
	r.index, r.indexDamage, r.missing, r.going, r.announced = x, damage, missing, going, announced
	r.cache = newBlockCache(r.opts.Cache) // its keys mean blocks of the old index
	return r.lock.see(ctx, seen)
}

// settledIndex reads the index files without what they say of packs that are
// not there, which it returns. While another process replaces index files and
// removes packs, what was listed can be gone when it is looked for, so that is
// believed when it is met twice.
func (r *Repo) settledIndex(ctx context.Context) (*index.Index, []error, []pack.ID, error) {
	x, damage, vanished, err := r.readIndex(ctx, nil)
	if err != nil {
		return nil, nil, nil, err
	}
	missing, err := r.missingPacks(ctx, x)
	if err != nil {
		return nil, nil, nil, err
	}
	if len(missing) > 0 || vanished {
		if x, damage, _, err = r.readIndex(ctx, nil); err != nil {
			return nil, nil, nil, err
		}
		if missing, err = r.missingPacks(ctx, x); err != nil {
			return nil, nil, nil, err
		}
	}
	if len(missing) > 0 {
		if x, damage, _, err = r.readIndex(ctx, missing); err != nil {
			return nil, nil, nil, err
		}
	}
	return x, damage, missing, nil
}

// missingPacks returns the packs of the index that are not there. It looks
// after the index was read: whatever an index file lists was there before it.
func (r *Repo) missingPacks(ctx context.Context, x *index.Index) ([]pack.ID, error) {
	there, err := r.listPacks(ctx)
	if err != nil {
		return nil, fmt.Errorf("list packs: %w", err)
	}
	var missing []pack.ID
	for _, p := range x.Packs() {
		if !there[p.ID] {
			missing = append(missing, p.ID)
		}
	}
	return missing, nil
}

// readIndex reads all index files but for what they say of some packs. One
// that vanished is damage, and may have been replaced by another.
func (r *Repo) readIndex(ctx context.Context, without []pack.ID) (x *index.Index, damage []error, vanished bool, err error) {
	x = index.New()
	add := x.Add
	if len(without) > 0 {
		add = func(id pack.ID, size int64, h pack.Header) {
			if !slices.Contains(without, id) {
				x.Add(id, size, h)
			}
		}
	}
	err = r.be.List(ctx, indexDir, func(f backend.Info) error {
		b, err := r.readNamed(ctx, f.Name, index.MaxFileSize)
		if err == nil {
			err = index.OpenFile(b, r.indexes, add)
			if err != nil {
				err = &DamageError{f.Name, err}
			}
		}
		if errors.Is(err, ErrDamaged) {
			damage = append(damage, err)
			vanished = vanished || errors.Is(err, backend.ErrNotExist)
			return nil
		}
		return err
	})
	if err != nil {
		return nil, nil, false, fmt.Errorf("read the index: %w", err)
	}
	return x, damage, vanished, nil
}

// listPacks returns the packs that are there.
func (r *Repo) listPacks(ctx context.Context) (map[pack.ID]bool, error) {
	there := map[pack.ID]bool{}
	err := r.be.List(ctx, packsDir, func(f backend.Info) error {
		if id, err := fileID(f.Name); err == nil {
			there[pack.ID(id)] = true
		}
		return nil
	})
	return there, err
}

// IndexDamage returns what LoadIndex found wrong with index files, and the packs
// that they list and that are not there.
func (r *Repo) IndexDamage() []error {
	damage := slices.Clone(r.indexDamage)
	for _, id := range r.missing {
		damage = append(damage, &DamageError{packName(id), errors.New("is missing")})
	}
	return damage
}

// unknown is the error for a chunk that no pack holds, or that needs such a
// chunk.
func (r *Repo) unknown(id chunk.ID) error {
	err := fmt.Errorf("chunk %s is in no index", id.Short())
	switch n := len(r.missing); n {
	case 0:
		return &DamageError{"", err}
	case 1:
		return &DamageError{packName(r.missing[0]), fmt.Errorf("it is missing, and %w", err)}
	default:
		return &DamageError{packName(r.missing[0]), fmt.Errorf("it is missing, with %d other packs, and %w", n-1, err)}
	}
}

// indexFromPacks adds all packs that the index lacks from their own headers.
// Packs whose header cannot be read are left out: their chunks are lost until
// the pack is repaired, and will be missed by name.
func (r *Repo) indexFromPacks(ctx context.Context, x *index.Index) error {
	return r.be.List(ctx, packsDir, func(f backend.Info) error {
		id, err := fileID(f.Name)
		if err != nil {
			return nil
		}
		if _, known := x.Pack(pack.ID(id)); known {
			return nil
		}
		h, err := r.readHeader(ctx, f)
		if errors.Is(err, ErrDamaged) {
			return nil
		}
		if err != nil {
			return err
		}
		x.Add(pack.ID(id), f.Size, h)
		return nil
	})
}

// readHeader reads the header of a pack file.
func (r *Repo) readHeader(ctx context.Context, f backend.Info) (pack.Header, error) {
	h, err := pack.ReadHeader(readerAt{ctx, r.be, f.Name}, f.Size, r.packs)
	if errors.Is(err, pack.ErrDamaged) {
		return pack.Header{}, &DamageError{f.Name, err}
	}
	return h, err
}

// readNamed reads a whole file whose name is the hash of its bytes.
func (r *Repo) readNamed(ctx context.Context, name string, limit int64) ([]byte, error) {
	return readNamed(ctx, r.be, name, limit)
}

func readNamed(ctx context.Context, be backend.Backend, name string, limit int64) ([]byte, error) {
	id, err := fileID(name)
	if err != nil {
		return nil, &DamageError{name, errors.New("its name is not a hash")}
	}
	b, err := backend.ReadAll(ctx, be, name, limit)
	switch {
	case errors.Is(err, backend.ErrNotExist), errors.Is(err, backend.ErrTooLarge), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, &DamageError{name, err}
	case err != nil:
		return nil, err
	}
	if FileID(blake3.Sum256(b)) != id {
		return nil, &DamageError{name, errors.New("its bytes are not those that its name stands for")}
	}
	return b, nil
}

// putNamed stores a file under the hash of its bytes and returns that.
func (r *Repo) putNamed(ctx context.Context, dir string, b []byte) (FileID, error) {
	id := FileID(blake3.Sum256(b))
	err := r.be.Put(ctx, dir+id.String(), b)
	if r.useReserve && backend.IsNoSpace(err) {
		if err := r.giveUpReserve(ctx); err != nil {
			return FileID{}, err
		}
		err = r.be.Put(ctx, dir+id.String(), b)
	}
	if err != nil && !errors.Is(err, backend.ErrExist) {
		return FileID{}, err
	}
	return id, nil
}

// readerAt is a file of a backend as an io.ReaderAt.
type readerAt struct {
	ctx  context.Context
	be   backend.Backend
	name string
}

func (f readerAt) ReadAt(p []byte, off int64) (int, error) {
	return f.be.ReadAt(f.ctx, f.name, p, off)
}

// NewHasher returns a hasher for this repository's chunk IDs.
func (r *Repo) NewHasher() *chunk.Hasher { return chunk.NewHasher(r.chunkKey) }

// Raw returns the bytes of a repository file after checking that they fit its
// name, for inspection. name is "config" or a folder and an ID.
func (r *Repo) Raw(ctx context.Context, name string) ([]byte, error) {
	if name == configName {
		return backend.ReadAll(ctx, r.be, name, maxConfigSize)
	}
	return r.readNamed(ctx, name, pack.MaxSize)
}

// resolve finds the one file in a folder whose ID begins with prefix.
func (r *Repo) resolve(ctx context.Context, dir, prefix string) (FileID, error) {
	var found []FileID
	err := r.be.List(ctx, dir, func(f backend.Info) error {
		id, err := fileID(f.Name)
		if err == nil && strings.HasPrefix(id.String(), strings.ToLower(prefix)) {
			found = append(found, id)
		}
		return nil
	})
	switch {
	case err != nil:
		return FileID{}, err
	case len(found) == 0 || prefix == "":
		return FileID{}, ErrNoSnapshot
	case len(found) > 1:
		return FileID{}, fmt.Errorf("%q fits %d IDs: %w", prefix, len(found), ErrAmbiguous)
	}
	return found[0], nil
}

// hasMagic cuts the magic off the front of a file.
func hasMagic(b []byte, magic string) ([]byte, bool) {
	return bytes.CutPrefix(b, []byte(magic))
}
