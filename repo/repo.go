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
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/internal/process"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend"
)

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
	Owner *process.Identity
}

// defaultRefresh is how often a lock is refreshed, see Options.Refresh.
const defaultRefresh = 5 * time.Minute

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
		o.Refresh = defaultRefresh
	}
	if o.Owner == nil {
		self := process.Current()
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

	guard *guard // the lock that this process holds, nil for none

	useReserve bool // when the store is full
}

// guard is what a repository asks the lock of this process.
type guard struct {
	kind    string
	session string // names the lock through all its refreshes
	// held returns nil if the lock was there all the time, else ErrLockLost.
	held func(context.Context) error
	// see notes that the process has read some prune lists.
	see func(ctx context.Context, lists []FileID) error
}

// held returns nil if the lock of this process was there all the time, or if it
// holds none. A writer asks after its snapshot is durable: whoever removes the
// lock of a process that seems dead does so before it looks for snapshots. So
// either that snapshot was seen, or its writer finds the lock gone and takes the
// snapshot back.
func (r *Repo) held(ctx context.Context) error {
	if r.guard == nil {
		return nil
	}
	return r.guard.held(ctx)
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
		prunes:    crypto.NewSealer(master.Derive(crypto.ForPruneLists), opts.Rand),
		runs:      crypto.NewSealer(master.Derive(crypto.ForUnfinished), opts.Rand),
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

// NewHasher returns a hasher for this repository's chunk IDs.
func (r *Repo) NewHasher() *chunk.Hasher { return chunk.NewHasher(r.chunkKey) }
