// Package check verifies a repository: its structure, and as much of the packs as
// requested.
//
// It changes nothing but the log of pack checks. Damage is a result; an error means
// that the check itself failed.
package check

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/internal/usage"
	"github.com/snap-backup/snap/repo/parity"
	"github.com/snap-backup/snap/repo/tree"
)

// Options say how thorough a check is.
type Options struct {
	// ReadData is the fraction of the packs to read and verify, from 0 (structure
	// only) to 1 (every byte). Packs that were never read come first, then those
	// read longest ago. The order is random among packs with equal times.
	ReadData float64
	// ReadPacks and ReadBytes, if not 0, give a number of packs or bytes instead
	// of a fraction.
	ReadPacks int
	ReadBytes int64
	// Seed makes the random order repeatable.
	Seed uint64
	// Sample decodes only a tenth of the packs that are read: those that were never
	// decoded, then those decoded longest ago. Of the others it compares the bytes with
	// their hash. If it finds anything damaged, all are decoded.
	Sample bool
	// DryRun changes nothing, not even the log of pack checks.
	DryRun bool
	// Progress, if not nil, is called with bytes of packs, by several goroutines.
	Progress func(done, total int64)
}

// Problem is one thing that a check found.
type Problem struct {
	File  string `json:"file,omitempty"` // in the repository
	Text  string `json:"text"`
	Hint  string `json:"hint,omitempty"`
	Fatal bool   `json:"fatal"` // content is lost, or may be lost soon
}

// Affected is a snapshot that cannot be restored completely.
type Affected struct {
	Snapshot layout.FileID `json:"snapshot"`
	Device   string        `json:"device"`
	Time     time.Time     `json:"time"`
	// Files is the number of lost files. If Tree is true, the tree itself is
	// damaged and Files is a lower bound.
	Files int64    `json:"files"`
	Tree  bool     `json:"tree_damaged"`
	Names []string `json:"names"` // the first few
}

// maxNames bounds how many lost files are named for each snapshot.
const maxNames = 20

// Report is the result of a check.
type Report struct {
	Snapshots int   `json:"snapshots"`
	Packs     int   `json:"packs"`
	PackBytes int64 `json:"pack_bytes"`
	Chunks    int   `json:"chunks"`
	ReadPacks int   `json:"read_packs"`
	ReadBytes int64 `json:"read_bytes"`
	// DamagedPacks is the number of packs that this check found damaged. They count
	// neither as verified nor as unread.
	DamagedPacks int `json:"damaged_packs"`
	// DecodedPacks is the number of packs whose blocks were decoded and whose chunks were
	// compared with their IDs. All of them were read.
	DecodedPacks int `json:"decoded_packs"`
	// UnreadPacks is the number of packs that no check is known to have read
	// completely. Oldest is when the pack read longest ago was last read, or nil if
	// all packs are unread.
	UnreadPacks int        `json:"unread_packs"`
	Oldest      *time.Time `json:"oldest_read,omitempty"`
	// ChainDepth is the depth of the longest chain of deltas. LongChains is the
	// number of blocks whose chain is longer than a writer allows, which costs
	// only speed.
	ChainDepth int `json:"chain_depth"`
	LongChains int `json:"long_chains"`

	// Parity says what parity protects; nil without parity.
	Parity *parity.Status `json:"parity,omitempty"`

	Problems []Problem  `json:"problems"`
	Affected []Affected `json:"suffering"`
	// Marked are snapshots whose records list lost files. This is no new damage;
	// their other files can be restored.
	Marked []Affected `json:"marked"`
	// Unreferenced are harmless files that nothing refers to, such as those that an
	// interrupted backup leaves.
	Unreferenced []string `json:"leftovers"`
}

// Clean reports whether nothing is damaged.
func (c *Report) Clean() bool {
	return len(c.Affected) == 0 && !slices.ContainsFunc(c.Problems, func(p Problem) bool { return p.Fatal })
}

// Checker is one check and what it has found.
type Checker struct {
	Store  *store.Store
	opts   Options
	mu     sync.Mutex // guards Report, bad and skipped while packs are read
	Report Report
	bad    map[chunk.ID]struct{} // chunks that cannot be read
	// corrected has packs with blocks of which a few wrong bytes were corrected.
	corrected map[pack.ID]struct{}
	skipped   []index.BlockRef // not verified yet, since the first copy of their dictionary cannot be read
	orphans   []error          // about blocks whose dictionary is in no pack

	Snapshots        []*record.Snapshot
	DamagedSnapshots []error // about records that are damaged or missing
	damagedLedger    []error
	Denied           error // about the first file that this process may not read, or nil
	Superseded       []*record.Snapshot
	runs             []*record.Unfinished
	damagedRuns      []error

	verified map[pack.ID]bool // packs that were read and are good
	decoded  map[pack.ID]bool // packs that were decoded and are good

	unlisted []string // packs that no index file lists
	unknown  bool     // a snapshot needs a chunk that is in no pack

	unlistable map[string]bool // folders whose files cannot be listed, and that no snapshot needs

	unreachable error // the error that ended reading the store, or nil
}

// Run checks a repository, as repo.Repo.Check describes.
func Run(ctx context.Context, r *store.Store, opts Options) (*Report, error) {
	c, err := Find(ctx, r, opts)
	if err != nil {
		return nil, err
	}
	return &c.Report, nil
}

// Find is like Run, but returns everything that the check has found. Repairs use
// it.
func Find(ctx context.Context, r *store.Store, opts Options) (*Checker, error) {
	c := &Checker{Store: r, opts: opts, bad: map[chunk.ID]struct{}{}, corrected: map[pack.ID]struct{}{}, verified: map[pack.ID]bool{}, decoded: map[pack.ID]bool{}, unlistable: map[string]bool{}}
	if err := c.checkKeys(ctx); err != nil {
		return nil, err
	}
	if err := c.passOver(ctx, layout.SecretsDir, c.checkPasswords(ctx)); err != nil {
		return nil, err
	}
	if err := c.readRecords(ctx); err != nil {
		return nil, err
	}
	if err := r.LoadIndex(ctx); err != nil {
		return nil, err
	}
	for _, err := range r.DamagedIndex {
		c.damage(err, "the packs still have everything that it lists; `snap repair index` reads them and writes a new one")
	}
	packs, err := c.listPacks(ctx)
	if err != nil {
		return nil, err
	}
	past, err := readLog(ctx, r)
	if err := c.passOver(ctx, layout.ChecksDir, err); err != nil {
		return nil, err
	}
	err = c.readPacks(ctx, c.choose(packs, past), past)
	c.storeLog(ctx, past, packs)
	if err != nil {
		return nil, err
	}
	c.markDependents(ctx)
	c.measureChains(ctx)
	if c.unreachable != nil {
		return nil, c.unreachable
	}
	if err := c.checkSnapshots(ctx); err != nil {
		return nil, err
	}
	if err := c.checkUnfinished(ctx); err != nil {
		return nil, err
	}
	for _, step := range []struct {
		dir   string
		check func(context.Context) error
	}{
		{layout.CertificatesDir, c.checkCertificates},
		{layout.PrunesDir, c.checkPruneLists},
		{layout.LocksDir, c.checkLocks},
		{layout.ParityDir, c.checkParity},
	} {
		if err := c.passOver(ctx, step.dir, step.check(ctx)); err != nil {
			return nil, err
		}
	}
	c.reportOrphans()
	if err := c.judgeUnneeded(ctx); err != nil {
		return nil, err
	}
	slices.SortFunc(c.Report.Problems, func(a, b Problem) int { return strings.Compare(a.File+a.Text, b.File+b.Text) })
	c.Report.Problems = slices.Compact(c.Report.Problems) // several blocks may report the same bad dictionary
	c.Report.Chunks = r.Index.Len()
	return c, nil
}

// reportOrphans reports blocks whose dictionary is in no pack, if something is
// lost. Otherwise nothing needs these blocks: a prune has removed their bases, but
// not the blocks, since their packs also hold blocks in use. If packs are missing,
// it reports only the number of these blocks, since there can be thousands.
func (c *Checker) reportOrphans() {
	if n := len(c.orphans); n > 0 && len(c.Store.Missing) > 0 {
		c.damage(&store.DamageError{File: layout.PackName(c.Store.Missing[0]), Err: fmt.Errorf("%d blocks of other packs cannot be decoded without it and other missing packs", n)}, packHint)
		return
	}
	if !c.unknown && len(c.Report.Affected) == 0 {
		return
	}
	for _, err := range c.orphans {
		c.damage(err, packHint)
	}
}

// judgeUnneeded reports retired and unlisted packs as unreferenced if nothing needs them.
// If something needs an unlisted pack, an index file is missing.
func (c *Checker) judgeUnneeded(ctx context.Context) error {
	inUse, err := c.findUsed(ctx)
	if err != nil {
		return err
	}
	// Remove problems with retired packs that nothing needs: a prune may already have
	// removed the bases of their blocks. A snapshot may need a retired pack, for example
	// one that a repair has put back.
	unused := map[string]bool{}
	if inUse != nil && len(c.Report.Affected) == 0 {
		for id := range c.Store.RetiredIndexed {
			unused[layout.PackName(id)] = !inUse(id)
		}
	}
	c.Report.Problems = slices.DeleteFunc(c.Report.Problems, func(p Problem) bool { return unused[p.File] })
	maps.DeleteFunc(unused, func(_ string, un bool) bool { return !un })

	// A pack of a backup that was killed, or has not ended yet, is in no index file
	// either. If it is not known which packs are in use, all unlisted packs count as needed
	// as soon as a snapshot needs a chunk that is in no pack.
	needed := 0
	for _, name := range c.unlisted {
		id, _ := layout.ParseFileID(name)
		switch {
		case inUse == nil && c.unknown, inUse != nil && inUse(pack.ID(id)) && c.Store.IsUnlisted(pack.ID(id)):
			needed++
		case inUse == nil || !inUse(pack.ID(id)):
			unused[name] = true
		}
	}
	if needed > 0 {
		c.damage(store.LostIndex(needed), "nothing is lost by this: `snap repair index` lists these packs again")
	}
	c.Report.Unreferenced = append(c.Report.Unreferenced, slices.Collect(maps.Keys(unused))...)
	slices.Sort(c.Report.Unreferenced)
	return nil
}

// findUsed returns a function that reports whether a pack is in use. It returns nil if
// that is not known, or if there are no retired and no unlisted packs.
func (c *Checker) findUsed(ctx context.Context) (func(pack.ID) bool, error) {
	if len(c.Store.RetiredIndexed)+len(c.unlisted) == 0 {
		return nil, nil
	}
	// Try the listed packs alone: if they have all that is needed, no unlisted pack counts
	// as in use. A pack that a backup is storing could otherwise count, since it may have
	// copies of chunks that are in retired packs.
	u, err := usage.Find(ctx, c.Store)
	if errors.Is(err, store.ErrDamaged) || errors.Is(err, tree.ErrDamaged) {
		u, err = usage.FindUnlisted(ctx, c.Store)
	}
	if errors.Is(err, store.ErrDamaged) || errors.Is(err, tree.ErrDamaged) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return func(id pack.ID) bool {
		p, ok := c.Store.Index.Pack(id)
		return ok && slices.ContainsFunc(p.Blocks, u.InUse)
	}, nil
}

// note reports damage that loses no content. A file that cannot be read is fatal all the
// same, since its disk may be dying.
func (c *Checker) note(p Problem, err error) {
	if errors.Is(err, store.ErrUnreadable) {
		p.Fatal = true
	}
	if backend.IsDenied(err) {
		p.Hint = hintDenied
	}
	c.Report.Problems = append(c.Report.Problems, p)
}

// damage reports an error as a problem.
func (c *Checker) damage(err error, hint string) {
	if backend.IsDenied(err) {
		hint = hintDenied
	}
	p := Problem{Text: err.Error(), Hint: hint, Fatal: true}
	var d *store.DamageError
	if errors.As(err, &d) {
		p.File = d.File
		p.Text = d.Err.Error()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if backend.IsDenied(err) && c.Denied == nil {
		c.Denied = err
	}
	c.Report.Problems = append(c.Report.Problems, p)
}

// listPacks compares the packs that exist with those that the index lists. It returns
// those that can be read.
func (c *Checker) listPacks(ctx context.Context) ([]backend.Info, error) {
	var readable []backend.Info
	err := c.Store.Backend.List(ctx, layout.PacksDir, func(f backend.Info) error {
		fid, err := layout.ParseFileID(f.Name)
		id := pack.ID(fid)
		if err != nil {
			c.Report.Unreferenced = append(c.Report.Unreferenced, f.Name)
			return nil
		}
		c.Report.Packs++
		c.Report.PackBytes += f.Size
		p, known := c.Store.Index.Pack(id)
		switch {
		case !known && c.Store.Retired[fid]:
			c.Report.Unreferenced = append(c.Report.Unreferenced, f.Name)
		case !known && len(c.Store.DamagedIndex) > 0:
			c.damage(&store.DamageError{File: f.Name, Err: errors.New("no good index file lists it, and its header cannot be read")}, packHint)
		case !known, c.Store.IsUnlisted(id):
			c.unlisted = append(c.unlisted, f.Name)
		case p.Size != f.Size:
			c.damage(store.SizeDamage(p, f.Size), packHint)
			readable = append(readable, f) // blocks before the end may be good
		default:
			readable = append(readable, f)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list packs: %w", err)
	}
	for _, id := range c.Store.Missing {
		c.damage(&store.DamageError{File: layout.PackName(id), Err: errors.New("it is missing")}, packHint)
	}
	return readable, nil
}

const (
	hintDenied = "this user may not read it, but it may be good: change its owner or mode, and run this check again"

	fromCopy    = "fetch it from a copy with `snap repair --from COPY`; without a copy "
	correctHint = "run `snap repair packs`, which corrects them; wrong bytes come from a failing disk, memory or cable: check these"
	packHint    = fromCopy + "run `snap repair packs`, then `snap import --rescan`, which stores again the content of backups that you still have, then `snap repair snapshots`, which marks what is lost"
)
