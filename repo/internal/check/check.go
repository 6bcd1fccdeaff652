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
	"github.com/snap-backup/snap/repo/parity"
)

// Options say how thorough Check is.
type Options struct {
	// ReadData is the part of the packs to read and verify whole, from 0
	// (structure alone) to 1 (every byte). Those that were read longest ago,
	// or never, come first; which of them is drawn at random.
	ReadData float64
	// ReadPacks and ReadBytes ask for so many packs or bytes, if they are not
	// 0, in place of a part.
	ReadPacks int
	ReadBytes int64
	// Seed makes the draw repeatable.
	Seed uint64
	// DryRun changes nothing: the log of pack checks stays as it is.
	DryRun bool
	// Progress, if not nil, is told how many bytes of packs have been read of
	// how many, from several goroutines.
	Progress func(done, total int64)
}

// Problem is one thing that Check found.
type Problem struct {
	File  string `json:"file,omitempty"` // in the repository
	Text  string `json:"text"`
	Hint  string `json:"hint,omitempty"`
	Fatal bool   `json:"fatal"` // content cannot be restored, or could be lost next
}

// Incomplete is a snapshot that cannot be restored completely.
type Incomplete struct {
	Snapshot layout.FileID `json:"snapshot"`
	Device   string        `json:"device"`
	Time     time.Time     `json:"time"`
	// Files counts what is lost; if the tree itself is damaged it is a lower
	// bound and Tree is true.
	Files int64    `json:"files"`
	Tree  bool     `json:"tree_damaged"`
	Names []string `json:"names"` // the first few
}

// maxNames bounds how many lost files are named for each snapshot.
const maxNames = 20

// Report is the result of Check.
type Report struct {
	Snapshots int   `json:"snapshots"`
	Packs     int   `json:"packs"`
	PackBytes int64 `json:"pack_bytes"`
	Chunks    int   `json:"chunks"`
	ReadPacks int   `json:"read_packs"`
	ReadBytes int64 `json:"read_bytes"`
	// UnreadPacks have never been read whole since they were stored, as far as
	// is known; Oldest is when that one of the others was read whose turn it
	// is, nil if there is none.
	UnreadPacks int        `json:"unread_packs"`
	Oldest      *time.Time `json:"oldest_read,omitempty"`
	// ChainDepth is the length of the longest chain of differences, and
	// LongChains how many blocks need more than a writer allows: a matter of
	// speed alone.
	ChainDepth int `json:"chain_depth"`
	LongChains int `json:"long_chains"`

	// Parity says what is guarded against damage; nil without parity.
	Parity *parity.Status `json:"parity,omitempty"`

	Problems   []Problem    `json:"problems"`
	Incomplete []Incomplete `json:"suffering"`
	// Marked are snapshots whose records say what they have lost; of that
	// nothing is new, and they can be restored without it.
	Marked []Incomplete `json:"marked"`
	// Leftovers are files that nothing refers to, as an interrupted run leaves
	// them. They are harmless.
	Leftovers []string `json:"leftovers"`
}

// Clean reports whether nothing is wrong.
func (c *Report) Clean() bool {
	return len(c.Incomplete) == 0 && !slices.ContainsFunc(c.Problems, func(p Problem) bool { return p.Fatal })
}

// Checker gathers what Check finds.
type Checker struct {
	Store   *store.Store
	opts    Options
	mu      sync.Mutex // guards report, bad and passed while packs are read
	Report  Report
	bad     map[chunk.ID]struct{} // chunks that cannot be had
	passed  []index.BlockRef      // not verified, since their dictionary cannot be had from its first copy
	orphans []error               // of blocks whose dictionary no pack has

	Snapshots        []*record.Snapshot
	DamagedSnapshots []error
	Superseded       []*record.Snapshot
	runs             []*record.Unfinished
	damagedRuns      []error

	verified map[pack.ID]bool // packs that were read and are sound

	unlisted int  // packs that no index file lists
	unknown  bool // a snapshot needs a chunk that no index file lists

	gone error // the whole store could not be read
}

// Run checks a repository, as repo.Repo.Check describes.
func Run(ctx context.Context, r *store.Store, opts Options) (*Report, error) {
	c, err := Find(ctx, r, opts)
	if err != nil {
		return nil, err
	}
	return &c.Report, nil
}

// Find is Check, and returns what else it has found out.
func Find(ctx context.Context, r *store.Store, opts Options) (*Checker, error) {
	c := &Checker{Store: r, opts: opts, bad: map[chunk.ID]struct{}{}, verified: map[pack.ID]bool{}}
	if err := c.keys(ctx); err != nil {
		return nil, err
	}
	if err := c.secrets(ctx); err != nil {
		return nil, err
	}
	if err := c.records(ctx); err != nil {
		return nil, err
	}
	if err := r.LoadIndex(ctx); err != nil {
		return nil, err
	}
	for _, err := range r.DamagedIndex {
		c.damage(err, "its packs were read instead; `snap repair index` writes a new one, and nothing is lost")
	}
	packs, err := c.packs(ctx)
	if err != nil {
		return nil, err
	}
	past, err := readLog(ctx, r)
	if err != nil {
		return nil, err
	}
	err = c.readPacks(ctx, c.choose(packs, past))
	c.remember(ctx, past, packs)
	if err != nil {
		return nil, err
	}
	c.spread(ctx)
	c.chains(ctx)
	if c.gone != nil {
		return nil, c.gone
	}
	if err := c.snapshots(ctx); err != nil {
		return nil, err
	}
	if err := c.unfinished(ctx); err != nil {
		return nil, err
	}
	if err := c.parity(ctx); err != nil {
		return nil, err
	}
	if c.unknown && c.unlisted > 0 {
		c.damage(&store.DamageError{File: layout.IndexDir, Err: fmt.Errorf("%d packs are in no index file, and content is missing: an index file was lost", c.unlisted)},
			"restore the missing files of this folder from a copy of the repository")
	}
	c.adopt()
	c.passOver()
	slices.SortFunc(c.Report.Problems, func(a, b Problem) int { return strings.Compare(a.File+a.Text, b.File+b.Text) })
	c.Report.Problems = slices.Compact(c.Report.Problems) // a bad dictionary is met once for each block that needs it
	c.Report.Chunks = r.Index.Len()
	return c, nil
}

// adopt makes problems of blocks whose dictionary no pack has, if something is
// lost. Else nobody needs them: they are waste that a prune has left in packs
// with other things, while what they were a difference to could go. Where packs are
// missing, these are named as problems, and the blocks that need them, of which
// there can be thousands, are counted.
func (c *Checker) adopt() {
	if n := len(c.orphans); n > 0 && len(c.Store.Missing) > 0 {
		c.damage(&store.DamageError{File: layout.PackName(c.Store.Missing[0]), Err: fmt.Errorf("without it, or others that are missing, %d blocks of other packs cannot be decoded", n)}, missingHint)
		return
	}
	if !c.unknown && len(c.Report.Incomplete) == 0 {
		return
	}
	for _, err := range c.orphans {
		c.damage(err, packHint)
	}
}

// passOver takes packs that a prune is about to remove for leftovers: what they
// need may be gone already. If something is lost they stay problems.
func (c *Checker) passOver() {
	going := map[string]bool{}
	for id := range c.Store.Retiring {
		going[layout.PackName(id)] = true
		c.Report.Leftovers = append(c.Report.Leftovers, layout.PackName(id))
	}
	slices.Sort(c.Report.Leftovers)
	if len(c.Report.Incomplete) == 0 {
		c.Report.Problems = slices.DeleteFunc(c.Report.Problems, func(p Problem) bool { return going[p.File] })
	}
}

// damage notes an error as a problem.
func (c *Checker) damage(err error, hint string) {
	p := Problem{Text: err.Error(), Hint: hint, Fatal: true}
	var d *store.DamageError
	if errors.As(err, &d) {
		p.File = d.File
		p.Text = d.Err.Error()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Report.Problems = append(c.Report.Problems, p)
}

// packs compares the packs that are there with those that the index lists, and
// marks the chunks of missing ones.
func (c *Checker) packs(ctx context.Context) ([]backend.Info, error) {
	var sound []backend.Info
	err := c.Store.Backend.List(ctx, layout.PacksDir, func(f backend.Info) error {
		c.Report.Packs++
		c.Report.PackBytes += f.Size
		fid, err := layout.ParseFileID(f.Name)
		id := pack.ID(fid)
		if err != nil || layout.PackName(id) != f.Name {
			c.Report.Leftovers = append(c.Report.Leftovers, f.Name)
			return nil
		}
		p, known := c.Store.Index.Pack(id)
		switch {
		case !known && c.Store.Announced[fid]:
			c.Report.Leftovers = append(c.Report.Leftovers, f.Name)
		case !known && len(c.Store.DamagedIndex) > 0:
			c.damage(&store.DamageError{File: f.Name, Err: errors.New("no sound index file lists it, and its own header cannot be read")}, packHint)
		case !known:
			c.unlisted++
			c.Report.Leftovers = append(c.Report.Leftovers, f.Name)
		case p.Size != f.Size:
			c.damage(&store.DamageError{File: f.Name, Err: fmt.Errorf("has %d bytes, should have %d", f.Size, p.Size)}, packHint)
			// Blocks before the end may be sound; reading tells.
			sound = append(sound, f)
		default:
			sound = append(sound, f)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list packs: %w", err)
	}
	for _, id := range c.Store.Missing {
		c.damage(&store.DamageError{File: layout.PackName(id), Err: errors.New("is missing")}, missingHint)
	}
	return sound, nil
}

const (
	missingHint = "fetch it from a copy with `snap repair --from COPY`; or import backups that are still at hand with --rescan: what they share with it is stored anew"
	packHint    = "fetch it from a copy with `snap repair --from COPY`; or run `snap repair packs` and import backups that are still at hand with --rescan: what they share with it is stored anew"
)
