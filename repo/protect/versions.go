package protect

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
)

// file is all versions of a file, the newest first.
type file struct {
	name     string
	versions []backend.Version
}

// collect returns the versions of all files, sorted by name.
func collect(ctx context.Context, s backend.Protector) ([]file, error) {
	var all []file
	err := s.Versions(ctx, func(v backend.Version) error {
		if n := len(all); n == 0 || all[n-1].name != v.Name {
			all = append(all, file{name: v.Name})
		}
		f := &all[len(all)-1]
		f.versions = append(f.versions, v)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, f := range all {
		// Stores do not agree on the order of versions and of notes that hide them.
		slices.SortStableFunc(f.versions, func(a, b backend.Version) int {
			if a.Latest != b.Latest {
				if a.Latest {
					return -1
				}
				return 1
			}
			return b.Modified.Compare(a.Modified)
		})
	}
	return all, nil
}

// hidden reports whether the store does not show the file.
func (f file) hidden() bool { return f.versions[0].Hides || !f.versions[0].Latest }

// same reports whether two versions have the same bytes, as far as the store tells.
func same(a, b backend.Version) bool {
	return !a.Hides && !b.Hides && a.Size == b.Size && a.Tag == b.Tag
}

// others returns the versions whose bytes differ from those that the store shows. A file of a
// repository never changes, except for config: a repair puts a good one in its place.
func (f file) others() (list []backend.Version) {
	for _, v := range f.versions[1:] {
		if !v.Hides && !same(v, f.versions[0]) && f.name != layout.ConfigName {
			list = append(list, v)
		}
	}
	return list
}

// at returns the version that the store showed at a time, and those that are newer. ok is
// false if it showed none.
func (f file) at(t time.Time) (v backend.Version, newer []backend.Version, ok bool) {
	for i, v := range f.versions {
		if !v.Modified.After(t) {
			return v, f.versions[:i], !v.Hides
		}
	}
	return v, nil, false
}

// Removal is protected files that were hidden at about the same time.
type Removal struct {
	From      time.Time `json:"from"`
	To        time.Time `json:"to"`
	Snapshots int       `json:"snapshots"` // how many of the files are records of snapshots
	Count
}

// pause is the time without removals after which the next one is another Removal.
const pause = 10 * time.Minute

// removals returns when the files that are hidden now were hidden.
func removals(all []file) []Removal {
	type hiding struct {
		at   time.Time
		what backend.Version
	}
	var list []hiding
	for _, f := range all {
		i := slices.IndexFunc(f.versions, func(v backend.Version) bool { return !v.Hides })
		if i > 0 && f.hidden() && Includes(f.name) {
			list = append(list, hiding{f.versions[i-1].Modified, f.versions[i]})
		}
	}
	slices.SortStableFunc(list, func(a, b hiding) int { return a.at.Compare(b.at) })
	found := []Removal{}
	for _, h := range list {
		if n := len(found); n == 0 || h.at.Sub(found[n-1].To) > pause {
			found = append(found, Removal{From: h.at})
		}
		r := &found[len(found)-1]
		r.To = h.at
		r.add(h.what)
		if strings.HasPrefix(h.what.Name, layout.SnapshotsDir) {
			r.Snapshots++
		}
	}
	return found
}
