// Package parity guards files of a repository against bit rot and loss, without
// a second copy: a Reed-Solomon code over groups of packs and of snapshot
// records.
//
// The files of a group are laid side by side and cut into rows of 64 KiB
// segments. Each row has two segments of parity (one, if the file is alone in its
// group), so in each row as many segments can be lost: two whole files of a group,
// or one and a place in each row of the others, or two places in each row,
// whichever files they are in. The hash of every segment is kept, so that it is
// known which are bad.
//
// The package needs no key: what it guards is sealed, and what it brings back is
// compared with its name. docs/format.md has every byte, docs/design/parity.md
// the reasons.
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
)

// Dir is the folder of parity files.
const Dir = "parity/"

// kinds are the folders whose files are guarded; a file's kind is the place of
// its folder here.
var kinds = [...]string{"packs/", "snapshots/"}

// name is the name of a member in the repository.
func (m *member) name() string {
	id := hex.EncodeToString(m.id[:])
	if m.kind == 0 {
		return kinds[0] + id[:2] + "/" + id
	}
	return kinds[m.kind] + id
}

// newMember is the member that a file would be; false if it is none.
func newMember(f backend.Info) (member, bool) {
	for k, dir := range kinds {
		if !strings.HasPrefix(f.Name, dir) || f.Size < 1 || f.Size > maxMember {
			continue
		}
		m := member{kind: byte(k), size: f.Size}
		id, err := hex.DecodeString(f.Name[strings.LastIndexByte(f.Name, '/')+1:])
		if err != nil || len(id) != len(m.id) {
			return m, false
		}
		copy(m.id[:], id)
		return m, m.name() == f.Name
	}
	return member{}, false
}

// group is a parity file.
type group struct {
	*Header
	name string
	data int64 // where its parity begins
}

// forget drops the hashes of segments: those of all groups would take memory
// without bound. Who heals reads the header again.
func (g *group) forget() {
	g.sums = nil
	for i := range g.members {
		g.members[i].sums = nil
	}
}

// Set is what the parity files of a repository guard.
type Set struct {
	be      backend.Backend
	groups  []*group
	damaged []string // files of which not even the header can be read
	guarded map[string]*group
	fresh   []string // files that were stored
}

// Load reads the headers of all parity files.
func Load(ctx context.Context, be backend.Backend) (*Set, error) {
	s := &Set{be: be, guarded: map[string]*group{}}
	err := be.List(ctx, Dir, func(f backend.Info) error {
		if len(f.Name) != len(Dir)+64 {
			return nil // not one of ours
		}
		g, err := s.load(ctx, f)
		switch {
		case errors.Is(err, backend.ErrNotExist):
		case errors.Is(err, ErrDamaged):
			s.damaged = append(s.damaged, f.Name)
		case err != nil:
			return err
		default:
			g.forget()
			s.groups = append(s.groups, g)
			for i := range g.members {
				s.guarded[g.members[i].name()] = g
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read parity: %w", err)
	}
	return s, nil
}

// load reads the header at the beginning of a file, or that at its end.
func (s *Set) load(ctx context.Context, f backend.Info) (*group, error) {
	front := make([]byte, len(magic)+4)
	h, err := (*Header)(nil), error(ErrDamaged)
	if _, rerr := s.be.ReadAt(ctx, f.Name, front, 0); rerr != nil && !errors.Is(rerr, io.EOF) {
		return nil, rerr
	}
	if string(front[:len(magic)]) == magic {
		h, err = s.header(ctx, f, int64(len(front)), binary.LittleEndian.Uint32(front[len(magic):]))
	}
	if err != nil && f.Size > frame {
		var n [4]byte
		if _, rerr := s.be.ReadAt(ctx, f.Name, n[:], f.Size-4); rerr != nil {
			return nil, rerr
		}
		length := binary.LittleEndian.Uint32(n[:])
		h, err = s.header(ctx, f, f.Size-frame-int64(length), length)
	}
	if err != nil {
		return nil, err
	}
	return &group{h, f.Name, int64(len(magic) + frame + len(h.append(nil)))}, nil
}

func (s *Set) header(ctx context.Context, f backend.Info, off int64, n uint32) (*Header, error) {
	if n > maxHeader || off < 0 || off+int64(n)+32 > f.Size {
		return nil, ErrDamaged
	}
	b := make([]byte, n+32)
	if _, err := s.be.ReadAt(ctx, f.Name, b, off); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, ErrDamaged
		}
		return nil, err
	}
	return open(b)
}

// Percent is how much parity was asked for, in hundredths of a percent; 0 if the
// repository has none. Where groups differ, that of the most guarded bytes counts:
// one small file with a great number must not make everything anew. Groups
// without files count only where there are no others.
func (s *Set) Percent() int {
	bytes := map[int]int64{}
	empty := 0
	for _, g := range s.groups {
		if len(g.members) == 0 {
			empty = max(empty, g.percent)
		}
		for i := range g.members {
			bytes[g.percent] += g.members[i].size
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

// Status says what is guarded.
type Status struct {
	Percent     float64 `json:"percent"` // that was asked for; 0 without parity
	Groups      int     `json:"groups"`
	ParityBytes int64   `json:"parity_bytes"`
	Protected   int64   `json:"protected_bytes"` // of packs and snapshot records
	Unprotected int64   `json:"unprotected_bytes"`
	// Missing are guarded packs that are not there: lost, or removed by a
	// program that knows nothing of parity.
	Missing []string `json:"missing"`
	// Damaged are parity files that cannot be read.
	Damaged []string `json:"damaged"`
}

// Status compares what is guarded with what is there.
func (s *Set) Status(ctx context.Context) (*Status, error) {
	st := &Status{Percent: float64(s.Percent()) / 100, Groups: len(s.groups), Missing: []string{}, Damaged: append([]string{}, s.damaged...)}
	there, err := s.list(ctx)
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for i := range there {
		names[there[i].name()] = true
		if s.guarded[there[i].name()] != nil {
			st.Protected += there[i].size
		} else {
			st.Unprotected += there[i].size
		}
	}
	for _, g := range s.groups {
		st.ParityBytes += g.data + int64(g.parity)*g.length() + g.data - int64(len(magic))
		for i := range g.members {
			if name := g.members[i].name(); g.members[i].kind == 0 && !names[name] {
				st.Missing = append(st.Missing, name)
			}
		}
	}
	slices.Sort(st.Missing)
	return st, nil
}

// list returns all files that can be guarded.
func (s *Set) list(ctx context.Context) ([]member, error) {
	var out []member
	for _, dir := range kinds {
		err := s.be.List(ctx, dir, func(f backend.Info) error {
			if m, ok := newMember(f); ok {
				out = append(out, m)
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", dir, err)
		}
	}
	return out, nil
}

// read reads from a file as far as it is there.
// An error means that the store is gone.
func (s *Set) read(ctx context.Context, name string, p []byte, off int64) (int, error) {
	n, err := s.be.ReadAt(ctx, name, p, off)
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, backend.ErrNotExist) {
		return n, nil
	}
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	// A bad place of the disk is what parity is for; no disk at all is not.
	if again, err := s.be.ReadAt(ctx, name, p, off); err == nil {
		return again, nil
	}
	if _, gone := s.be.Stat(ctx, "config"); gone != nil {
		return 0, fmt.Errorf("read %s: %w", name, err)
	}
	return n, nil
}

func hashOf(b []byte) [32]byte { return blake.Sum(b) }
