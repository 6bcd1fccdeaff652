package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
)

const (
	pruneMagic   = "snappl01"
	pruneVersion = 1
	maxPruneSize = 64 << 20
	// maxPrunePacks bounds how many packs one list names. A list with this many takes
	// about 17 MB.
	maxPrunePacks = 1 << 18
)

// PruneList names packs that nothing may rely on any more. The packs are removed
// once every running process has read the list.
type PruneList struct {
	ID      layout.FileID   `json:"-"`
	Version int             `json:"version"`
	Created time.Time       `json:"created"`
	Packs   []layout.FileID `json:"packs"`
}

// PutPruneList stores a prune list.
func (r *Store) PutPruneList(ctx context.Context, packs []layout.FileID) (PruneList, error) {
	l := PruneList{Version: pruneVersion, Created: r.Options.Now().UTC(), Packs: packs}
	if len(packs) > maxPrunePacks {
		return l, fmt.Errorf("a prune list of %d packs is too long", len(packs))
	}
	plain, err := json.Marshal(l)
	if err != nil {
		return l, err
	}
	b, err := r.PruneSealer.Seal([]byte(pruneMagic), plain, nil)
	if err != nil {
		return l, err
	}
	if l.ID, err = r.PutNamed(ctx, layout.PrunesDir, b); err != nil {
		return l, fmt.Errorf("store a prune list: %w", err)
	}
	return l, nil
}

// PruneLists reads all prune lists. It skips damaged lists: no pack is removed
// because of them.
func (r *Store) PruneLists(ctx context.Context) ([]PruneList, error) {
	var out []PruneList
	err := List(ctx, r.Backend, layout.PrunesDir, func(f backend.Info) error {
		l, err := r.ReadPruneList(ctx, f.Name)
		if errors.Is(err, ErrDamaged) {
			return nil
		}
		if err == nil {
			out = append(out, l)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the prune lists: %w", err)
	}
	return out, nil
}

// RetiredPacks returns the packs that prune lists name.
func (r *Store) RetiredPacks(ctx context.Context) (map[layout.FileID]bool, error) {
	lists, err := r.PruneLists(ctx)
	retired := map[layout.FileID]bool{}
	for _, l := range lists {
		for _, id := range l.Packs {
			retired[id] = true
		}
	}
	return retired, err
}

// ReadPruneList reads the prune list in a file.
func (r *Store) ReadPruneList(ctx context.Context, name string) (PruneList, error) {
	b, err := r.ReadNamed(ctx, name, maxPruneSize)
	if err != nil {
		return PruneList{}, err
	}
	l, err := openPruneList(b, r.PruneSealer)
	if err != nil {
		return l, &DamageError{name, err}
	}
	l.ID, err = layout.ParseFileID(name)
	return l, err
}

func openPruneList(b []byte, sealer *crypto.Sealer) (PruneList, error) {
	var l PruneList
	sealed, ok := CutMagic(b, pruneMagic)
	if !ok {
		return l, errors.New("bad magic")
	}
	plain, err := sealer.Open(nil, sealed, nil)
	if err != nil {
		return l, err
	}
	return parsePruneList(plain)
}

func parsePruneList(plain []byte) (PruneList, error) {
	var l PruneList
	if err := json.Unmarshal(plain, &l); err != nil {
		return l, err
	}
	if l.Version != pruneVersion {
		return l, fmt.Errorf("prune list version %d: %w", l.Version, ErrUnsupported)
	}
	return l, nil
}
