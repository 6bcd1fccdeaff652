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

// maxRemade is the maximum length of a group's parity that Heal makes again, in bytes.
// Groups that this program makes have at most a quarter of this length.
const maxRemade = 1 << 30

// HealOptions are the options of Heal.
type HealOptions struct {
	DryRun   bool
	Progress func(done, total int) // groups; may be nil
}

// HealReport says what Heal has found and done. After a dry run it says what Heal
// would do.
type HealReport struct {
	Files    int      `json:"files"`    // protected files that were read
	Healed   []string `json:"healed"`   // files that were damaged or missing, and are now good
	Unhealed []string `json:"unhealed"` // files that have a stripe with too many bad shards
	Remade   int      `json:"remade"`   // number of damaged parity files that were made again
	// Skipped are parity files that were not used: their headers contradict files
	// that are good, or they are damaged and making them again would take too much
	// memory.
	Skipped []string `json:"skipped"`
	// Aside are the new names of folders, links and other things that had the names of files.
	Aside []string `json:"aside,omitempty"`
}

// Heal reads all protected files, replaces damaged ones and restores missing packs.
// It does not restore missing snapshot records, since they may have been forgotten.
// The caller must be the only user of the repository.
func Heal(ctx context.Context, be backend.Backend, opts HealOptions) (*HealReport, error) {
	var aside []string
	if !opts.DryRun {
		var err error
		if aside, err = replace.Finish(ctx, be); err != nil {
			return nil, err
		}
	}
	s, err := Load(ctx, be)
	if err != nil {
		return nil, err
	}
	h := &healer{s, opts, &HealReport{Healed: []string{}, Unhealed: []string{}, Skipped: []string{}, Aside: aside}}
	for i, g := range s.groups {
		if opts.Progress != nil {
			opts.Progress(i, len(s.groups))
		}
		if err := h.heal(ctx, g); err != nil {
			return nil, err
		}
	}
	return h.report, nil
}

// healer holds the state of one call of Heal.
type healer struct {
	*Set
	opts   HealOptions
	report *HealReport
}

// errContradiction is the error for a header that contradicts a good file.
var errContradiction = errors.New("parity header contradicts a file")

// heal heals the files of a group, and then its parity file.
func (h *healer) heal(ctx context.Context, loaded *group) error {
	g, err := h.reload(ctx, loaded)
	if errors.Is(err, ErrDamaged) {
		h.report.Skipped = append(h.report.Skipped, loaded.name) // damaged since Load
		return nil
	}
	if err != nil {
		return err
	}
	complete := true
	for i := range g.files {
		good, err := h.healFile(ctx, g, i)
		if errors.Is(err, errContradiction) {
			h.report.Skipped = append(h.report.Skipped, g.name)
			return nil
		}
		if err != nil {
			return err
		}
		complete = complete && good
	}
	if !complete {
		return nil // the group's parity cannot be computed
	}
	return h.remake(ctx, g)
}

// healFile heals a file of a group if it is damaged, or is a missing pack. It
// reports whether the file is good afterwards, or would be without DryRun.
func (h *healer) healFile(ctx context.Context, g *group, index int) (good bool, err error) {
	f := &g.files[index]
	h.report.Files++
	size, good, err := h.verify(ctx, f.name(), f.id)
	switch {
	case err != nil:
		return false, err
	case good && size == f.size:
		return true, nil
	case good:
		return false, errContradiction
	case size < 0 && f.kind != 0:
		return false, nil // forgotten
	}
	b, err := h.rebuild(ctx, g, index)
	if err != nil {
		return false, err
	}
	if b == nil {
		h.report.Unhealed = append(h.report.Unhealed, f.name())
		return false, nil
	}
	h.report.Healed = append(h.report.Healed, f.name())
	if h.opts.DryRun {
		return true, nil
	}
	return true, replace.Put(ctx, h.be, f.name(), b)
}

// remake makes the parity file of a group again if it is damaged.
func (h *healer) remake(ctx context.Context, g *group) error {
	_, good, err := h.verifyParity(ctx, g.name)
	if err != nil || good {
		return err
	}
	if int64(g.parity)*g.length() > maxRemade {
		h.report.Skipped = append(h.report.Skipped, g.name)
		return nil
	}
	h.report.Remade++
	if h.opts.DryRun {
		return nil
	}
	header := *g.Header
	header.files = slices.Clone(header.files)
	parity, bad, err := h.compute(ctx, &header)
	if err != nil || len(bad) > 0 {
		return err
	}
	b := header.encode(parity)
	if hash := hashOf(b); fmt.Sprintf("%s%x", Dir, hash) != g.name {
		return nil // another program made this parity file; the next Refresh replaces it
	}
	return replace.Put(ctx, h.be, g.name, b)
}

// reload reads the header of a group again, with all hashes.
func (s *Set) reload(ctx context.Context, g *group) (*group, error) {
	info, err := s.be.Stat(ctx, g.name)
	if errors.Is(err, backend.ErrNotExist) || backend.Unreadable(ctx, s.be, err) {
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", g.name, err)
	}
	full, err := s.load(ctx, info)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", g.name, err)
	}
	return full, nil
}

// verifyParity reports whether a parity file exists and has the hash of its name.
func (s *Set) verifyParity(ctx context.Context, name string) (exists, good bool, err error) {
	id, err := hex.DecodeString(strings.TrimPrefix(name, Dir))
	if err != nil || len(id) != 32 {
		return true, false, nil
	}
	size, good, err := s.verify(ctx, name, [32]byte(id))
	return size >= 0, good, err
}

// Verify reads all parity files and returns the names of damaged ones.
func (s *Set) Verify(ctx context.Context) ([]string, error) {
	bad := append([]string{}, s.damaged...)
	for _, g := range s.groups {
		exists, good, err := s.verifyParity(ctx, g.name)
		if err != nil {
			return nil, err
		}
		if exists && !good {
			bad = append(bad, g.name)
		}
	}
	return bad, nil
}

// verify returns the length of a file, and whether the file has the hash id. The length
// is -1 if the file does not exist.
func (s *Set) verify(ctx context.Context, name string, id [32]byte) (size int64, good bool, err error) {
	info, err := s.be.Stat(ctx, name)
	if errors.Is(err, backend.ErrNotExist) {
		return -1, false, nil
	}
	if backend.Unreadable(ctx, s.be, err) {
		return 0, false, nil
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

// rebuild returns the bytes of a file. It reads the good shards of the file, and
// computes the bad ones from the other shards of their stripes. It returns nil if too
// many shards are bad.
func (s *Set) rebuild(ctx context.Context, g *group, index int) ([]byte, error) {
	f := &g.files[index]
	code, err := reedsolomon.New(len(g.files), g.parity, reedsolomon.WithCauchyMatrix())
	if err != nil {
		return nil, err
	}
	out := make([]byte, f.size)
	for stripe := range f.sums {
		at := int64(stripe) * int64(g.shard)
		own := out[at:min(at+int64(g.shard), f.size)]
		n, err := s.read(ctx, f.name(), own, at)
		if err != nil {
			return nil, err
		}
		if n == len(own) && sumOf(own) == f.sums[stripe] {
			continue
		}
		shards, err := s.stripe(ctx, g, stripe)
		if err != nil {
			return nil, err
		}
		shards[index] = nil
		need := make([]bool, len(g.files)+g.parity)
		need[index] = true
		if err := code.ReconstructSome(shards, need); err != nil {
			return nil, nil // too few shards are good
		}
		if copy(own, shards[index]); sumOf(own) != f.sums[stripe] {
			return nil, nil
		}
	}
	if hashOf(out) != f.id {
		return nil, nil
	}
	return out, nil
}

// stripe reads the shards of a stripe. Bad shards are nil.
func (s *Set) stripe(ctx context.Context, g *group, stripe int) ([][]byte, error) {
	width := g.width(stripe)
	at := int64(stripe) * int64(g.shard)
	shards := make([][]byte, len(g.files)+g.parity)
	for i := range g.files {
		f := &g.files[i]
		b := make([]byte, width)
		n := int(min(max(f.size-at, 0), int64(width)))
		if n > 0 {
			got, err := s.read(ctx, f.name(), b[:n], at)
			if err != nil {
				return nil, err
			}
			if got < n || sumOf(b[:n]) != f.sums[stripe] {
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
		if got == width && sumOf(b) == g.sums[stripe*g.parity+i] {
			shards[len(g.files)+i] = b
		}
	}
	return shards, nil
}
