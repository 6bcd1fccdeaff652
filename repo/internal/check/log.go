package check

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/chain"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/replace"
)

const (
	checkMagic   = "snapck01"
	checkVersion = 1
	maxCheckSize = 64 << 20
	// maxCheckPacks bounds how many packs one log names as read, and as decoded. A log
	// with this many takes about 35 MB.
	maxCheckPacks = 1 << 18
	// storeLogTime bounds how long an interrupted check takes to store its log.
	storeLogTime = 10 * time.Second
)

// checkLog says when packs were last read, and last decoded, and found good, so that
// partial checks read and decode all packs in turn.
type checkLog struct {
	Version int         `json:"version"`
	Reads   []checkRead `json:"reads"`
	Decodes []checkRead `json:"decodes,omitempty"` // older programs did not note them
}

// checkRead names packs that were read, or decoded, at the same time.
type checkRead struct {
	Time  time.Time       `json:"time"`
	Packs []layout.FileID `json:"packs"`
}

// readTimes is the content of all logs together.
type readTimes struct {
	last    map[layout.FileID]time.Time
	decoded map[layout.FileID]time.Time // when packs were last decoded
	files   []string                    // all log files, damaged ones included
}

// lastRead returns when a pack was last read, or the zero time.
func (t *readTimes) lastRead(name string) time.Time {
	id, _ := layout.ParseFileID(name)
	return t.last[id]
}

// readLog reads all logs. It skips damaged logs. It also ignores reads that are dated in
// the future, since a clock was wrong then. So these packs are read again earlier than
// necessary. Otherwise partial checks would not read them for years.
func readLog(ctx context.Context, r *store.Store) (*readTimes, error) {
	t := &readTimes{last: map[layout.FileID]time.Time{}, decoded: map[layout.FileID]time.Time{}}
	err := store.List(ctx, r.Backend, layout.ChecksDir, func(f backend.Info) error {
		b, err := r.ReadNamed(ctx, f.Name, maxCheckSize)
		if errors.Is(err, backend.ErrNotExist) {
			return nil // replaced since it was listed
		}
		var l checkLog
		if err == nil {
			l, err = openCheckLog(b, r.CheckSealer)
			if err != nil && !errors.Is(err, store.ErrUnsupported) {
				err = &store.DamageError{File: f.Name, Err: err}
			}
		}
		if errors.Is(err, store.ErrUnsupported) {
			return nil // keep it for a newer program
		}
		if err != nil && !errors.Is(err, store.ErrDamaged) {
			return err
		}
		t.files = append(t.files, f.Name)
		collect(t.last, l.Reads, r.Options.Now())
		collect(t.decoded, l.Decodes, r.Options.Now())
		return nil
	})
	if err != nil {
		return t, fmt.Errorf("read the log of pack checks: %w", err)
	}
	return t, nil
}

// collect adds the times of reads to last, which has the newest time of each pack. It
// ignores times in the future.
func collect(last map[layout.FileID]time.Time, reads []checkRead, now time.Time) {
	for _, read := range reads {
		if record.Ahead(read.Time, now) {
			continue
		}
		for _, id := range read.Packs {
			if read.Time.After(last[id]) {
				last[id] = read.Time
			}
		}
	}
}

func openCheckLog(b []byte, sealer *crypto.Sealer) (checkLog, error) {
	sealed, ok := store.CutMagic(b, checkMagic)
	if !ok {
		return checkLog{}, errors.New("bad magic")
	}
	plain, err := sealer.Open(nil, sealed, nil)
	if err != nil {
		return checkLog{}, err
	}
	return parseCheckLog(plain)
}

func parseCheckLog(plain []byte) (checkLog, error) {
	var l checkLog
	if err := json.Unmarshal(plain, &l); err != nil {
		return checkLog{}, err
	}
	if l.Version != checkVersion {
		return checkLog{}, fmt.Errorf("check log version %d: %w", l.Version, store.ErrUnsupported)
	}
	return l, nil
}

// noteRead notes that a pack was read completely. storeLog drops the note if a problem
// names the pack.
func (c *Checker) noteRead(f backend.Info) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Report.ReadPacks++
	c.Report.ReadBytes += f.Size
	c.verified[c.indexed(f).ID] = true
}

// noteDecoded notes that a pack was decoded completely, as noteRead does.
func (c *Checker) noteDecoded(f backend.Info) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Report.DecodedPacks++
	c.decoded[c.indexed(f).ID] = true
}

// storeLog stores when packs were read, and counts those that were never read. The
// check does not fail if the log cannot be stored, since it must work on a
// read-only disk.
func (c *Checker) storeLog(ctx context.Context, past *readTimes, files []backend.Info) {
	damaged := map[string]bool{}
	for _, p := range c.Report.Problems {
		if id, err := layout.ParseFileID(p.File); err == nil {
			delete(c.verified, pack.ID(id))
			damaged[p.File] = true
			delete(c.decoded, pack.ID(id))
		}
	}
	now := c.Store.Options.Now().UTC().Truncate(time.Second)
	last, decoded := map[layout.FileID]time.Time{}, map[layout.FileID]time.Time{} // of packs that still exist
	for _, f := range files {
		id, _ := layout.ParseFileID(f.Name)
		if at := past.decoded[id]; c.decoded[pack.ID(id)] {
			decoded[id] = now
		} else if !at.IsZero() {
			decoded[id] = at
		}
		at := past.last[id]
		if c.verified[pack.ID(id)] {
			at = now
		}
		switch {
		case damaged[f.Name]:
			c.Report.DamagedPacks++
			if at.IsZero() {
				continue
			}
		case at.IsZero():
			c.Report.UnreadPacks++
			continue
		case c.Report.Oldest == nil || at.Before(*c.Report.Oldest):
			c.Report.Oldest = &at
		}
		last[id] = at
	}
	if len(c.verified) == 0 || c.opts.DryRun {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeLogTime)
	defer cancel()
	if err := writeLog(ctx, c.Store, last, decoded, past.files); err != nil {
		c.Report.Problems = append(c.Report.Problems, Problem{
			File: layout.ChecksDir, Text: fmt.Sprintf("could not store which packs were read: %v", err),
			Hint: "the next partial check may read the same packs again",
		})
	}
}

// byTime returns which packs have which time, in the order of the times.
func byTime(last map[layout.FileID]time.Time) []checkRead {
	packs := map[time.Time][]layout.FileID{}
	n := 0
	for id, at := range last {
		if n++; n <= maxCheckPacks {
			packs[at] = append(packs[at], id)
		}
	}
	reads := []checkRead{}
	for at, ids := range packs {
		slices.SortFunc(ids, func(a, b layout.FileID) int { return slices.Compare(a[:], b[:]) })
		reads = append(reads, checkRead{at, ids})
	}
	slices.SortFunc(reads, func(a, b checkRead) int { return a.Time.Compare(b.Time) })
	return reads
}

// writeLog stores when packs were read and decoded, then removes the logs that it
// replaces.
func writeLog(ctx context.Context, r *store.Store, last, decoded map[layout.FileID]time.Time, old []string) error {
	plain, err := json.Marshal(checkLog{checkVersion, byTime(last), byTime(decoded)})
	if err != nil {
		return err
	}
	b, err := r.CheckSealer.Seal([]byte(checkMagic), plain, nil)
	if err != nil {
		return err
	}
	id, err := r.PutNamed(ctx, layout.ChecksDir, b)
	if err != nil {
		return err
	}
	for _, name := range old {
		if name == layout.ChecksDir+id.String() {
			continue // the same content and randomness made the same file again
		}
		if _, err := replace.Clear(ctx, r.Backend, name); err != nil {
			return err
		}
	}
	return nil
}

// measureChains measures the chain of each block. A block is lost if its chain is
// longer than a reader allows.
func (c *Checker) measureChains(ctx context.Context) {
	x := c.Store.Index
	deep := false
	for _, p := range x.Packs() {
		for _, ref := range p.Blocks {
			own, dict := x.Dependencies(ref)
			if len(dict) == 0 || slices.ContainsFunc(dict, c.isLost) {
				continue
			}
			w := chain.NewWalk(x)
			depth, decodable := 0, true
			for _, id := range dict {
				d, ok := w.Depth(id, 1)
				if depth = max(depth, d+1); !ok {
					decodable = false
					break
				}
			}
			if !decodable || depth > pack.MaxDepth {
				deep = c.markBlock(ref, func(id chunk.ID) bool { return c.hasOtherCopy(ctx, id) }) || deep
				c.damage(&store.DamageError{File: layout.PackName(p.ID), Err: fmt.Errorf("a chain of more than %d dictionaries", pack.MaxDepth)}, packHint)
				continue
			}
			c.Report.ChainDepth = max(c.Report.ChainDepth, depth)
			limit := max(chain.Factor*x.PlainSize(ref), chain.MinStored) + int64(own)
			if depth > chain.MaxDepth || int64(w.Stored)+int64(own) > limit {
				c.Report.LongChains++
			}
		}
	}
	if deep {
		c.markDependents(ctx)
	}
}

// LastRead returns when all packs of the index had been read: the time at which the one
// that was read longest ago was read, or the zero time if some were never read. unread is
// the number of these. The index must have been loaded.
func LastRead(ctx context.Context, r *store.Store) (all time.Time, unread int, err error) {
	t, err := readLog(ctx, r)
	if err != nil {
		return time.Time{}, 0, err
	}
	for i, p := range r.Index.Packs() {
		at := t.last[layout.FileID(p.ID)]
		if at.IsZero() {
			unread++
		}
		if i == 0 || at.Before(all) {
			all = at
		}
	}
	return all, unread, nil
}

// PacksRead returns the number of packs that the logs name.
func PacksRead(ctx context.Context, r *store.Store) (int, error) {
	t, err := readLog(ctx, r)
	if err != nil {
		return 0, err
	}
	return len(t.last), nil
}
