package inspect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/internal/words"
	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/tree"
)

// Share is the space that the files of one domain or app take.
type Share struct {
	Name        string `json:"name"`
	Files       int64  `json:"files"`        // in the newest snapshot of each device
	NewestBytes int64  `json:"newest_bytes"` // of these files
	StoredBytes int64  `json:"stored_bytes"` // of all snapshots, in packs of content
}

// sharer adds up shares.
type sharer struct {
	r      *store.Store
	name   func(domain string) string
	seen   *index.ChunkSet // chunks that were counted
	shares map[string]*Share
	stored map[string]float64 // stored bytes by name; a chunk counts as a part of its block
}

// FindShares returns the space that files take, as repo.Repo.Shares describes.
func FindShares(ctx context.Context, r *store.Store, list []*record.Snapshot, name func(domain string) string) ([]Share, error) {
	s := newSharer(r, name)
	for _, snapshot := range list {
		if err := s.countTree(ctx, snapshot.Root, -1); err != nil {
			return nil, fmt.Errorf("snapshot %s: %w", snapshot.ID.Short(), err)
		}
	}
	for _, snapshots := range record.ByDevice(list) {
		err := record.Walk(ctx, r, snapshots[len(snapshots)-1], "", func(e *tree.Entry) error {
			if e.Kind != tree.Dir {
				sh := s.share(e)
				sh.Files++
				sh.NewestBytes += e.Content.Size
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	out := []Share{}
	for n, sh := range s.shares {
		sh.StoredBytes = int64(s.stored[n] + 0.5)
		out = append(out, *sh)
	}
	slices.SortFunc(out, func(a, b Share) int {
		return cmp.Or(cmp.Compare(b.StoredBytes, a.StoredBytes), cmp.Compare(b.NewestBytes, a.NewestBytes), strings.Compare(a.Name, b.Name))
	})
	return out, nil
}

func (s *sharer) share(e *tree.Entry) *Share {
	name := s.name(e.Domain)
	if s.shares[name] == nil {
		s.shares[name] = &Share{Name: name}
	}
	return s.shares[name]
}

// mark marks a chunk as counted. It reports whether it was not counted before.
func (s *sharer) mark(id chunk.ID) (index.Location, bool, error) {
	loc, added, ok := s.seen.Add(id)
	if !ok {
		return loc, false, &store.DamageError{File: "", Err: fmt.Errorf("chunk %s is in no index", id.Short())}
	}
	return loc, added, nil
}

// countTree counts a node and everything below it, once.
func (s *sharer) countTree(ctx context.Context, id chunk.ID, above int) error {
	if _, added, err := s.mark(id); err != nil || !added {
		return err
	}
	n, err := tree.LoadBelow(ctx, s.r.Chunk, id, above)
	if err != nil {
		return store.TreeDamage(err)
	}
	for i := range n.Entries {
		e := &n.Entries[i]
		if e.Kind == tree.Dir {
			continue
		}
		name := s.share(e).Name
		list := func(id chunk.ID) error {
			_, added, err := s.mark(id)
			if err == nil && !added {
				return tree.ErrSkipList
			}
			return err
		}
		err := e.Content.All(ctx, s.r.Chunk, list, func(id chunk.ID) error {
			loc, added, err := s.mark(id)
			if err != nil || !added {
				return err
			}
			stored, _ := s.r.Index.Dependencies(loc.Block)
			s.stored[name] += float64(stored) * float64(loc.Size) / float64(max(s.r.Index.PlainSize(loc.Block), 1))
			return nil
		})
		if err != nil {
			return store.TreeDamage(err)
		}
	}
	for _, child := range n.Children {
		if err := s.countTree(ctx, child.ID, int(n.Level)); err != nil {
			return err
		}
	}
	return nil
}

// Part is the space that the files of one domain or app of a snapshot take.
type Part struct {
	Name        string `json:"name"`
	Files       int64  `json:"files"`
	Bytes       int64  `json:"bytes"`        // of these files
	StoredBytes int64  `json:"stored_bytes"` // in packs of content
	UniqueBytes int64  `json:"unique_bytes"` // the part of StoredBytes that no other snapshot needs
}

// FindParts returns the space that the files of a snapshot take, as repo.Repo.Parts
// describes.
func FindParts(ctx context.Context, r *store.Store, s *record.Snapshot, list []*record.Snapshot, name func(domain string) string) ([]Part, error) {
	alone, beside := newSharer(r, name), newSharer(r, name)
	if err := measure(ctx, s, list, alone, beside); err != nil {
		return nil, err
	}
	parts := map[string]*Part{}
	err := record.Walk(ctx, r, s, "", func(e *tree.Entry) error {
		if e.Kind == tree.Dir {
			return nil
		}
		n := name(e.Domain)
		if parts[n] == nil {
			parts[n] = &Part{Name: n, StoredBytes: int64(alone.stored[n] + 0.5), UniqueBytes: int64(beside.stored[n] + 0.5)}
		}
		parts[n].Files++
		parts[n].Bytes += e.Content.Size
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := []Part{}
	for _, p := range parts {
		out = append(out, *p)
	}
	slices.SortFunc(out, func(a, b Part) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), words.Compare(a.Name, b.Name))
	})
	return out, nil
}

// FindUnique returns the space that the content of a snapshot takes in the
// repository, and the part of it that no other snapshot needs, as
// repo.Repo.UniqueSize describes.
func FindUnique(ctx context.Context, r *store.Store, s *record.Snapshot, list []*record.Snapshot) (unique, total int64, err error) {
	all := func(string) string { return "" }
	alone, beside := newSharer(r, all), newSharer(r, all)
	if err := measure(ctx, s, list, alone, beside); err != nil {
		return 0, 0, err
	}
	return int64(beside.stored[""] + 0.5), int64(alone.stored[""] + 0.5), nil
}

// measure adds up what a snapshot needs in alone, and what it needs beside the other
// snapshots in beside.
func measure(ctx context.Context, s *record.Snapshot, list []*record.Snapshot, alone, beside *sharer) error {
	if err := alone.countTree(ctx, s.Root, -1); err != nil {
		return fmt.Errorf("snapshot %s: %w", s.ID.Short(), err)
	}
	for _, other := range list {
		if other.ID == s.ID {
			continue
		}
		// Of a damaged snapshot, count what can be read.
		if err := beside.countTree(ctx, other.Root, -1); err != nil && !errors.Is(err, store.ErrDamaged) {
			return err
		}
	}
	clear(beside.stored)
	return beside.countTree(ctx, s.Root, -1)
}

func newSharer(r *store.Store, name func(domain string) string) *sharer {
	return &sharer{r: r, name: name, seen: r.Index.NewChunkSet(), shares: map[string]*Share{}, stored: map[string]float64{}}
}
