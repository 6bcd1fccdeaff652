// Package parity protects files of a repository against bit rot and loss without a
// second copy: it stores a Reed-Solomon code over groups of packs, of snapshot records,
// of key slots, of copies of config and of files of the ledger.
//
// The files of a parity group are cut into shards of 64 KiB. The shards at the same
// offset of all files form a stripe. Each stripe gets two parity shards, or one if the
// group has only one file. Two parity shards can restore any two lost shards of their
// stripe. So a group can lose two whole files, or one whole file and one more shard of
// each stripe. The hash of every shard is stored, so that damaged shards can be found.
//
// The package needs no key: protected files are sealed, and a healed file must
// have the hash that is its name. It never replaces a file that has this hash.
// docs/format.md describes the format, docs/decisions/0016-parity.md has the
// reasons.
package parity

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/snap-backup/snap/crypto/blake"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
)

// Dir is the folder of parity files.
const Dir = layout.ParityDir

// kinds are the folders of protected files. A file's kind is the index of its
// folder.
var kinds = [...]string{layout.PacksDir, layout.SnapshotsDir, layout.KeysDir, layout.ConfigsDir, layout.LedgerDir}

// keyKind is the kind of key slots.
const keyKind = 2

// name returns the name of a file in the repository.
func (m *file) name() string {
	id := hex.EncodeToString(m.id[:])
	if m.kind == 0 {
		return kinds[0] + id[:2] + "/" + id
	}
	return kinds[m.kind] + id
}

// newFile describes the stored file f. It returns false if parity cannot protect f:
// because of its folder, its name or its length.
func newFile(f backend.Info) (file, bool) {
	for k, dir := range kinds {
		if !strings.HasPrefix(f.Name, dir) || f.Size < 0 || f.Size > maxMember {
			continue
		}
		id, err := layout.ParseFileID(f.Name)
		return file{kind: byte(k), size: f.Size, id: id}, err == nil
	}
	return file{}, false
}

// group is a parity group, stored as one parity file.
type group struct {
	*Header
	name string
	data int64 // offset of its parity shards
}

// dropSums drops the hashes of shards, since the hashes of all groups would take
// unbounded memory. Healing reads the header again.
func (g *group) dropSums() {
	g.sums = nil
	for i := range g.files {
		g.files[i].sums = nil
	}
}

// Set is the parity groups of a repository.
type Set struct {
	be        backend.Backend
	groups    []*group
	damaged   []string // parity files without a readable header
	aside     []string // new names of what had the name of a parity file and was no file
	protected map[string]*group
}

// Load reads the headers of all parity files.
func Load(ctx context.Context, be backend.Backend) (*Set, error) {
	s := &Set{be: be, protected: map[string]*group{}}
	err := be.List(ctx, Dir, func(f backend.Info) error {
		if !layout.IsFile(f.Name) {
			return nil
		}
		g, err := s.load(ctx, f)
		switch {
		case errors.Is(err, ErrDamaged):
			if _, gone := be.Stat(ctx, f.Name); !errors.Is(gone, backend.ErrNotExist) {
				s.damaged = append(s.damaged, f.Name)
			}
		case err != nil:
			return err
		default:
			g.dropSums()
			s.groups = append(s.groups, g)
			for i := range g.files {
				s.protected[g.files[i].name()] = g
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read parity: %w", err)
	}
	return s, nil
}

// load reads the header at the beginning of a parity file, or, if that one is damaged,
// the header at its end.
func (s *Set) load(ctx context.Context, f backend.Info) (*group, error) {
	front := make([]byte, len(magic)+4)
	h, err := (*Header)(nil), error(ErrDamaged)
	if _, rerr := s.read(ctx, f.Name, front, 0); rerr != nil {
		return nil, rerr
	}
	if string(front[:len(magic)]) == magic {
		h, err = s.header(ctx, f, int64(len(front)), binary.LittleEndian.Uint32(front[len(magic):]))
	}
	if err != nil && f.Size > headerOverhead {
		var n [4]byte
		if _, rerr := s.read(ctx, f.Name, n[:], f.Size-4); rerr != nil {
			return nil, rerr
		}
		length := binary.LittleEndian.Uint32(n[:])
		h, err = s.header(ctx, f, f.Size-headerOverhead-int64(length), length)
	}
	if err != nil {
		return nil, err
	}
	return &group{h, f.Name, int64(len(magic) + headerOverhead + len(h.append(nil)))}, nil
}

func (s *Set) header(ctx context.Context, f backend.Info, off int64, n uint32) (*Header, error) {
	if n > maxHeader || off < 0 || off+int64(n)+32 > f.Size {
		return nil, ErrDamaged
	}
	b := make([]byte, n+32)
	got, err := s.read(ctx, f.Name, b, off)
	if err != nil {
		return nil, err
	}
	if got < len(b) {
		return nil, ErrDamaged
	}
	return open(b)
}

// Percent returns how much parity the user asked for, in hundredths of a percent; 0 if
// the repository has none. If groups differ, the percentage with the most protected
// bytes counts, so that one small forged file cannot cause all parity to be computed
// again. Groups without files count only if there are no others.
func (s *Set) Percent() int {
	bytes := map[int]int64{}
	empty := 0
	for _, g := range s.groups {
		if len(g.files) == 0 {
			empty = max(empty, g.percent)
		}
		for i := range g.files {
			bytes[g.percent] += g.files[i].size
		}
	}
	best := 0
	for p, n := range bytes {
		if n > bytes[best] || n == bytes[best] && p > best {
			best = p
		}
	}
	if best == 0 {
		return empty
	}
	return best
}

// Status says what parity protects.
type Status struct {
	Percent     float64 `json:"percent"` // as asked for; 0 without parity
	Groups      int     `json:"groups"`
	ParityBytes int64   `json:"parity_bytes"`
	Protected   int64   `json:"protected_bytes"` // of all files that parity protects
	Unprotected int64   `json:"unprotected_bytes"`
	// Missing are protected packs that do not exist: they were lost, or removed by
	// a program that does not know parity.
	Missing []string `json:"missing"`
	// Damaged are parity files that cannot be read.
	Damaged []string `json:"damaged"`
}

// Status compares the parity groups with the stored files.
func (s *Set) Status(ctx context.Context) (*Status, error) {
	st := &Status{Percent: float64(s.Percent()) / 100, Groups: len(s.groups), Missing: []string{}, Damaged: append([]string{}, s.damaged...)}
	var stored []file
	for _, dir := range kinds {
		in, err := s.listIn(ctx, dir)
		if err != nil && (dir != layout.LedgerDir || !backend.Unreadable(ctx, s.be, err)) {
			return nil, err // nobody needs the ledger to read a snapshot, and a check names it
		}
		stored = append(stored, in...)
	}
	names := map[string]bool{}
	for i := range stored {
		names[stored[i].name()] = true
		if s.protected[stored[i].name()] != nil {
			st.Protected += stored[i].size
		} else {
			st.Unprotected += stored[i].size
		}
	}
	for _, g := range s.groups {
		st.ParityBytes += g.data + int64(g.parity)*g.length() + g.data - int64(len(magic))
		for i := range g.files {
			if name := g.files[i].name(); g.files[i].kind == 0 && !names[name] {
				st.Missing = append(st.Missing, name)
			}
		}
	}
	slices.Sort(st.Missing)
	return st, nil
}

// list returns all files that can be protected.
func (s *Set) list(ctx context.Context) ([]file, error) {
	var out []file
	for _, dir := range kinds {
		in, err := s.listIn(ctx, dir)
		if err != nil {
			return nil, err
		}
		out = append(out, in...)
	}
	return out, nil
}

func (s *Set) listIn(ctx context.Context, dir string) (out []file, err error) {
	err = s.be.List(ctx, dir, func(f backend.Info) error {
		if m, ok := newFile(f); ok {
			out = append(out, m)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	return out, nil
}

// read fills as much of p as it can. It returns an error only if the store cannot be
// reached.
func (s *Set) read(ctx context.Context, name string, p []byte, off int64) (int, error) {
	n, err := s.be.ReadAt(ctx, name, p, off)
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, backend.ErrNotExist) {
		return n, nil
	}
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	// A bad sector is damage to heal. A missing disk is not.
	if n, err := s.be.ReadAt(ctx, name, p, off); err == nil {
		return n, nil
	}
	if !backend.Unreadable(ctx, s.be, err) {
		return 0, fmt.Errorf("read %s: %w", name, err)
	}
	return n, nil
}

func hashOf(b []byte) [32]byte { return blake.Sum(b) }
