// Package store is the core of a repository: its config and keys, its files, the
// index, and reading chunks.
//
// All content that it returns was authenticated and has the requested chunk ID. The
// package knows nothing of snapshots, and writes no packs and no index files.
package store

import (
	"context"
	"crypto/rand"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/internal/process"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
)

// Options are the options of a repository. Programs use the zero value. Tests set
// some of the fields.
type Options struct {
	Rand     io.Reader        // crypto/rand by default
	Now      func() time.Time // time.Now by default
	Cost     crypto.Cost      // of deriving the key of a new key slot; crypto.DefaultCost by default
	Workers  int              // goroutines that compress and seal; GOMAXPROCS by default
	PackSize int              // bytes, 16 MiB by default, at most 64 MiB
	Cache    int              // bytes of decoded blocks to keep, 64 MiB by default
	// Refresh is the time between refreshes of a lock, 5 minutes by default. If it
	// is negative, locks are not refreshed.
	Refresh time.Duration
	// KeyHint, if not empty, is the beginning of the ID of the key slot to try first.
	KeyHint string
	// MakeConfig lets repo.Open make a new config if config and all copies of it are lost.
	MakeConfig bool
	// NoFsync makes repo.Create note in the config that the file system does not support
	// fsync.
	NoFsync bool
	// Survey makes repo.Open list the folders of a store far away ahead, see
	// backend.Surveyor. It is for processes that take no lock; a lock does it, too.
	Survey bool
	// Distant says that the store is far away, so that it is asked for less: LoadIndex
	// believes the index files and does not list the packs, so it does not notice that packs
	// are missing; and snapshots are taken from the ledger, so damaged records that are in
	// the ledger are not noticed. Checks and repairs do not set it.
	Distant bool
	// OnCorrected, if not nil, is called with the name of each pack of which Chunk and
	// others corrected wrong bytes while reading. It may be called by several goroutines.
	OnCorrected func(name string)
	// Owner is the process that locks the repository, this process by default.
	Owner *process.Identity
	// Elapsed returns the time since a fixed moment. It is not affected if somebody
	// sets the clock.
	Elapsed func() time.Duration
}

// defaultRefresh is the default of Options.Refresh.
const defaultRefresh = 5 * time.Minute

// MaxPackSize leaves room below pack.MaxSize for a block and the header.
const MaxPackSize = 64 << 20

// WithDefaults returns the options with the defaults filled in.
func (o Options) WithDefaults() Options {
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
	o.PackSize = min(o.PackSize, MaxPackSize)
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
	if o.Elapsed == nil {
		start := time.Now()
		o.Elapsed = func() time.Duration { return time.Since(start) }
	}
	return o
}

// Store is an open repository. Several goroutines may use it.
type Store struct {
	Backend   backend.Backend
	Options   Options
	Config    Config
	MasterKey crypto.Key
	Slot      layout.FileID // the key slot that opened it
	// SlotKept says that a copy of the slot opened it, and that the slot may not exist any
	// more; see access.Confirm.
	SlotKept bool
	// RenewedSlot is a file that can replace the key slot, if that is of an older
	// version; otherwise it is nil.
	RenewedSlot []byte
	// Sealed is the config file that Config was read from. ConfigDamage is what is wrong
	// with the file config, if Sealed is a copy of it; otherwise it is nil.
	Sealed       *ConfigFile
	ConfigDamage error
	// ConfigMade says that Sealed is new and not stored yet, see Options.MakeConfig.
	ConfigMade bool

	chunkKey          crypto.Key
	BlockSealer       *crypto.Sealer
	PackSealer        *crypto.Sealer
	IndexSealer       *crypto.Sealer
	SnapshotSealer    *crypto.Sealer
	PasswordSealer    *crypto.Sealer
	LockSealer        *crypto.Sealer
	PruneSealer       *crypto.Sealer
	RunSealer         *crypto.Sealer
	CheckSealer       *crypto.Sealer
	CertificateSealer *crypto.Sealer
	LedgerSealer      *crypto.Sealer

	codecs    sync.Pool // *pack.Codec
	corrected sync.Map  // packs that Correct has corrected bytes of
	hashers   sync.Pool // *chunk.Hasher
	Scratch   scratchPool
	Cache     *blockCache

	Index        *index.Index
	DamagedIndex []error
	Missing      []pack.ID         // packs that an index file lists and that do not exist
	resized      map[pack.ID]int64 // sizes of packs that have others than they should

	RetiredIndexed map[pack.ID]bool       // packs of the index that are on prune lists
	Retired        map[layout.FileID]bool // all packs on prune lists
	unlisted       map[pack.ID]bool       // packs of the index that no index file lists, if none is damaged

	Guard *Guard // the lock that this process holds, nil for none
	Watch Watch

	// SnapshotsPut is how many snapshot records this process has put.
	SnapshotsPut atomic.Int64

	// LedgerListed says that this process could list the files of the ledger.
	LedgerListed atomic.Bool

	// Parsed has the parsed content of files, by name, so that they need not be read again:
	// a file never changes. Packages ledger and record use it.
	Parsed sync.Map

	useReserve bool // see UseReserve
}

// Guard is the lock of this process, as far as a store needs it.
type Guard struct {
	Kind    string
	Session string // names the lock through all its refreshes
	// Held returns ErrLockLost if the lock was removed.
	Held func(context.Context) error
	// See records in the lock that the process has read some prune lists.
	See func(ctx context.Context, lists []layout.FileID) error
}

// Watch is what this process has seen of the locks in a repository. Ages of locks are
// told from it, since the clocks of two hosts cannot be compared.
type Watch struct {
	Mutex sync.Mutex
	// Seen has the locks of others, by their sessions.
	Seen map[string]Sighting
	// Own is when the newest file of a lock of this process was put, by the store's
	// clock; zero if that is not known.
	Own time.Time
	// Unreliable says that the store's clock went backwards between two files of this
	// process.
	Unreliable bool
}

// Sighting says since when a lock has not changed.
type Sighting struct {
	Files string        // the names of its files
	Since time.Duration // by Options.Elapsed
}

// CheckLock returns ErrLockLost if the lock of this process was removed, and nil if
// it holds none. A writer calls it after its snapshot is durable. A prune removes
// the locks of processes that seem dead before it reads the snapshots. So either
// the prune sees the snapshot, or the writer finds its lock gone and removes the
// snapshot again.
func (r *Store) CheckLock(ctx context.Context) error {
	if r.Guard == nil {
		return nil
	}
	return r.Guard.Held(ctx)
}

// New returns the repository in a backend, given its config and master key. The
// index has not been loaded.
func New(be backend.Backend, opts Options, cfg Config, master crypto.Key) *Store {
	if be, ok := be.(backend.NoFsyncer); ok && cfg.NoFsync {
		be.AllowNoFsync()
	}
	r := &Store{
		Backend: be, Options: opts, Config: cfg, MasterKey: master,
		chunkKey:          master.Derive(crypto.ForChunkIDs),
		BlockSealer:       crypto.NewSealer(master.Derive(crypto.ForBlocks), opts.Rand),
		PackSealer:        crypto.NewSealer(master.Derive(crypto.ForPacks), opts.Rand),
		IndexSealer:       crypto.NewSealer(master.Derive(crypto.ForIndexes), opts.Rand),
		SnapshotSealer:    crypto.NewSealer(master.Derive(crypto.ForSnapshots), opts.Rand),
		PasswordSealer:    crypto.NewSealer(master.Derive(crypto.ForSecrets), opts.Rand),
		LockSealer:        crypto.NewSealer(master.Derive(crypto.ForLocks), opts.Rand),
		PruneSealer:       crypto.NewSealer(master.Derive(crypto.ForPruneLists), opts.Rand),
		RunSealer:         crypto.NewSealer(master.Derive(crypto.ForUnfinished), opts.Rand),
		CheckSealer:       crypto.NewSealer(master.Derive(crypto.ForChecks), opts.Rand),
		CertificateSealer: crypto.NewSealer(master.Derive(crypto.ForCertificates), opts.Rand),
		LedgerSealer:      crypto.NewSealer(master.Derive(crypto.ForLedgers), opts.Rand),
		Cache:             newBlockCache(opts.Cache),
	}
	r.codecs.New = func() any { return pack.NewCodec(r.BlockSealer) }
	r.hashers.New = func() any { return r.NewHasher() }
	return r
}

// NewHasher returns a hasher for this repository's chunk IDs.
func (r *Store) NewHasher() *chunk.Hasher { return chunk.NewHasher(r.chunkKey) }
