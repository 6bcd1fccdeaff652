package protect

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/snap-backup/snap/crypto/blake"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
)

// RestoreReport is what [Restore] found and did.
type RestoreReport struct {
	BroughtBack Count `json:"brought_back"`
	// Lost are files that the repository had at that time, and of which no good version is
	// left.
	Lost []string `json:"lost"`
	// Set says that the protection of the store was set or changed.
	Set bool `json:"-"`
}

// Restore brings back all protected files that the store showed at a time, with the bytes that
// they had. Files that were put later stay: a repository can have more files than it needs.
// If a file that is named by its hash has versions with different bytes, Restore reads them
// and takes the one whose hash is right.
//
// It can be interrupted at any time, and run again.
func Restore(ctx context.Context, s backend.Protector, at time.Time, opts Options) (*RestoreReport, error) {
	r := &RestoreReport{Lost: []string{}}
	if opts.Protection.Period > 0 {
		var err error
		if _, r.Set, err = rule(ctx, s, opts); err != nil {
			return nil, err
		}
	}
	all, err := collect(ctx, s)
	if err != nil {
		return nil, err
	}
	var todo []file
	for _, f := range all {
		if _, _, ok := f.at(at); ok && Includes(f.name) && (f.hidden() || len(f.others()) > 0 || f.name == layout.ConfigName) {
			todo = append(todo, f)
		}
	}
	var mu sync.Mutex
	return r, each(ctx, todo, opts, func(ctx context.Context, f file) error {
		i, err := f.good(ctx, s, at)
		if err != nil {
			return err
		}
		needed := i >= 0 && !same(f.versions[0], f.versions[i])
		if needed && !opts.DryRun {
			if err := s.BringBack(ctx, f.versions[i], f.versions[:i]); err != nil {
				return err
			}
		}
		mu.Lock()
		defer mu.Unlock()
		if needed {
			r.BroughtBack.add(f.versions[i])
		} else if i < 0 {
			r.Lost = append(r.Lost, f.name)
		}
		return nil
	})
}

// good returns which version of a file is to be shown: one with the bytes that it had at a
// time. It returns -1 if there is none.
func (f file) good(ctx context.Context, s backend.Protector, at time.Time) (int, error) {
	shown, newer, _ := f.at(at)
	if _, err := layout.ParseFileID(f.name); err != nil || !f.ambiguous() {
		// Nothing else tells which version is right. Of config, a key does: see snap
		// repair config.
		for i, v := range f.versions {
			if same(v, shown) {
				return i, nil
			}
		}
		return len(newer), nil
	}
	var bad []backend.Version
	for _, i := range f.candidates(len(newer)) {
		v := f.versions[i]
		if v.Hides || slices.ContainsFunc(bad, func(b backend.Version) bool { return same(b, v) }) {
			continue
		}
		good, err := f.proven(ctx, s, v)
		if err != nil {
			return -1, err
		}
		if !good {
			bad = append(bad, v)
			continue
		}
		// The tags of equal bytes can differ.
		if first := f.versions[0]; i > 0 && !first.Hides && first.Size == v.Size && !same(first, v) {
			if good, err := f.proven(ctx, s, first); err != nil || good {
				return 0, err
			}
		}
		return i, nil
	}
	return -1, nil
}

// candidates returns the order in which versions are read: one that was shown, then from the
// oldest on. Nobody can have put junk before the file, since nobody knew its hash.
func (f file) candidates(shown int) []int {
	order := []int{shown}
	for i := len(f.versions) - 1; i >= 0; i-- {
		if i != shown {
			order = append(order, i)
		}
	}
	return order
}

// reading is held while a version is read, so that at most one is in memory.
var reading sync.Mutex

// proven reports whether the hash of a version is the name of the file.
func (f file) proven(ctx context.Context, s backend.Protector, v backend.Version) (bool, error) {
	id, err := layout.ParseFileID(f.name)
	if err != nil || v.Size > layout.MaxFileSize {
		return false, nil //nolint:nilerr // a file of another name is not one of the repository
	}
	reading.Lock()
	defer reading.Unlock()
	data, err := s.ReadVersion(ctx, v)
	return err == nil && blake.Sum(data) == [32]byte(id), err
}

// ambiguous reports whether the versions of a file have different bytes.
func (f file) ambiguous() bool {
	var first *backend.Version
	for i, v := range f.versions {
		switch {
		case v.Hides:
		case first == nil:
			first = &f.versions[i]
		case !same(v, *first):
			return true
		}
	}
	return false
}
