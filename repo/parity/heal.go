package parity

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/klauspost/reedsolomon"
	"github.com/snap-backup/snap/crypto/blake"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/replace"
)

// maxRemade bounds the parity that is made anew for one file, in bytes; two
// segments for each row of the longest pack are a quarter of it.
const maxRemade = 1 << 30

// HealOptions say how to heal.
type HealOptions struct {
	DryRun   bool
	Progress func(done, total int) // groups; may be nil
}

// HealReport says what Heal has found and done, or would do.
type HealReport struct {
	Files    int      `json:"files"`    // guarded ones that were read
	Healed   []string `json:"healed"`   // damaged or missing, and whole again
	Unhealed []string `json:"unhealed"` // too much of their groups is bad
	Remade   int      `json:"remade"`   // parity files that were damaged themselves
	// Skipped are parity files whose headers contradict sound files, or that are
	// damaged and ask for more memory than a group of this program: nothing is
	// made from these.
	Skipped []string `json:"skipped"`
}

// Heal reads everything that is guarded and brings back what is damaged, and
// packs that are missing. A snapshot record that is missing may have been
// forgotten, and stays so. Nobody else may use the repository meanwhile.
func Heal(ctx context.Context, be backend.Backend, opts HealOptions) (*HealReport, error) {
	rep := &HealReport{Healed: []string{}, Unhealed: []string{}, Skipped: []string{}}
	if !opts.DryRun {
		if err := replace.Finish(ctx, be); err != nil {
			return nil, err
		}
	}
	s, err := Load(ctx, be)
	if err != nil {
		return nil, err
	}
	for i, g := range s.groups {
		if opts.Progress != nil {
			opts.Progress(i, len(s.groups))
		}
		if err := s.heal(ctx, g, opts, rep); err != nil {
			return nil, err
		}
	}
	return rep, nil
}

func (s *Set) heal(ctx context.Context, known *group, opts HealOptions, rep *HealReport) error {
	g, err := s.reload(ctx, known)
	if errors.Is(err, ErrDamaged) {
		rep.Skipped = append(rep.Skipped, known.name) // it could be read before
		return nil
	}
	if err != nil {
		return err
	}
	whole := true
	for i := range g.members {
		m := &g.members[i]
		rep.Files++
		size, sound, err := s.sound(ctx, m.name(), m.id)
		if err != nil {
			return err
		}
		if sound && size == m.size {
			continue
		}
		if sound {
			// The file is what its name says, so the header lies.
			rep.Skipped = append(rep.Skipped, g.name)
			return nil
		}
		there := size >= 0
		if !there && m.kind != 0 {
			whole = false
			continue // forgotten
		}
		b, err := s.rebuild(ctx, g, i)
		if err != nil {
			return err
		}
		if b == nil {
			whole = false
			rep.Unhealed = append(rep.Unhealed, m.name())
			continue
		}
		rep.Healed = append(rep.Healed, m.name())
		if !opts.DryRun {
			if err := replace.Put(ctx, s.be, m.name(), b); err != nil {
				return err
			}
		}
	}
	_, sound, err := s.soundName(ctx, g.name)
	if err != nil || sound || !whole {
		return err
	}
	if int64(g.parity)*g.length() > maxRemade {
		rep.Skipped = append(rep.Skipped, g.name)
		return nil
	}
	rep.Remade++
	if opts.DryRun {
		return nil
	}
	h := *g.Header
	h.members = slices.Clone(h.members)
	data, bad, err := s.compute(ctx, &h)
	if err != nil || len(bad) > 0 {
		return err
	}
	b := h.encode(data)
	if hash := hashOf(b); fmt.Sprintf("%s%x", Dir, hash) != g.name {
		return nil // made by another program; the next refresh replaces it
	}
	return replace.Put(ctx, s.be, g.name, b)
}

// reload reads the header of a group again, with all hashes.
func (s *Set) reload(ctx context.Context, g *group) (*group, error) {
	info, err := s.be.Stat(ctx, g.name)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", g.name, err)
	}
	full, err := s.load(ctx, info)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", g.name, err)
	}
	return full, nil
}

func (s *Set) soundName(ctx context.Context, name string) (there, sound bool, err error) {
	id, err := hex.DecodeString(strings.TrimPrefix(name, Dir))
	if err != nil || len(id) != 32 {
		return true, false, nil
	}
	size, sound, err := s.sound(ctx, name, [32]byte(id))
	return size >= 0, sound, err
}

// Verify reads all parity files and returns the damaged ones.
func (s *Set) Verify(ctx context.Context) ([]string, error) {
	bad := append([]string{}, s.damaged...)
	for _, g := range s.groups {
		there, sound, err := s.soundName(ctx, g.name)
		if err != nil {
			return nil, err
		}
		if there && !sound {
			bad = append(bad, g.name)
		}
	}
	return bad, nil
}

// sound returns the length of a file, -1 if it is not there, and whether it is
// what its name says.
func (s *Set) sound(ctx context.Context, name string, id [32]byte) (size int64, sound bool, err error) {
	info, err := s.be.Stat(ctx, name)
	if errors.Is(err, backend.ErrNotExist) {
		return -1, false, nil
	}
	if err != nil {
		return -1, false, err
	}
	h := blake.NewStream()
	buf := make([]byte, min(1<<20, max(info.Size, 1)))
	for off := int64(0); off < info.Size; off += int64(len(buf)) {
		p := buf[:min(int64(len(buf)), info.Size-off)]
		n, err := s.read(ctx, name, p, off)
		if err != nil {
			return info.Size, false, err
		}
		if n < len(p) {
			return info.Size, false, nil
		}
		_, _ = h.Write(p) // it never fails
	}
	return info.Size, [32]byte(h.Sum(nil)) == id, nil
}

// rebuild puts a member together from its own sound segments and, where these are
// bad, from the others of their rows. It returns nil if that is not enough.
func (s *Set) rebuild(ctx context.Context, g *group, which int) ([]byte, error) {
	m := &g.members[which]
	code, err := reedsolomon.New(len(g.members), g.parity, reedsolomon.WithCauchyMatrix())
	if err != nil {
		return nil, err
	}
	out := make([]byte, m.size)
	for row := range m.sums {
		at := int64(row) * int64(g.segment)
		own := out[at:min(at+int64(g.segment), m.size)]
		n, err := s.read(ctx, m.name(), own, at)
		if err != nil {
			return nil, err
		}
		if n == len(own) && sumOf(own) == m.sums[row] {
			continue
		}
		shards, err := s.row(ctx, g, row)
		if err != nil {
			return nil, err
		}
		shards[which] = nil
		need := make([]bool, len(g.members)+g.parity)
		need[which] = true
		if err := code.ReconstructSome(shards, need); err != nil {
			return nil, nil // too few are left
		}
		if copy(own, shards[which]); sumOf(own) != m.sums[row] {
			return nil, nil
		}
	}
	if hashOf(out) != m.id {
		return nil, nil
	}
	return out, nil
}

// row reads the segments of a row; those that are bad are nil.
func (s *Set) row(ctx context.Context, g *group, row int) ([][]byte, error) {
	width := g.width(row)
	at := int64(row) * int64(g.segment)
	shards := make([][]byte, len(g.members)+g.parity)
	for i := range g.members {
		m := &g.members[i]
		b := make([]byte, width)
		n := int(min(max(m.size-at, 0), int64(width)))
		if n > 0 {
			got, err := s.read(ctx, m.name(), b[:n], at)
			if err != nil {
				return nil, err
			}
			if got < n || sumOf(b[:n]) != m.sums[row] {
				continue
			}
		}
		shards[i] = b
	}
	for i := range g.parity {
		b := make([]byte, width)
		got, err := s.read(ctx, g.name, b, g.data+at*int64(g.parity)+int64(i*width))
		if err != nil {
			return nil, err
		}
		if got == width && sumOf(b) == g.sums[row*g.parity+i] {
			shards[len(g.members)+i] = b
		}
	}
	return shards, nil
}
