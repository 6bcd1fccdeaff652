package repo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo/backend"
)

const (
	pruneMagic   = "snappl01"
	pruneVersion = 1
	maxPruneSize = 64 << 20
	// maxPrunePacks is how many packs one list names at most: about 17 MB.
	maxPrunePacks = 1 << 18
)

// pruneList names packs that nothing may rely on any more, and that are removed
// once every process that has not read the list has ended.
type pruneList struct {
	ID      FileID    `json:"-"`
	Version int       `json:"version"`
	Created time.Time `json:"created"`
	Packs   []FileID  `json:"packs"`
}

func (r *Repo) putPruneList(ctx context.Context, packs []FileID) (pruneList, error) {
	l := pruneList{Version: pruneVersion, Created: r.opts.Now().UTC(), Packs: packs}
	if len(packs) > maxPrunePacks {
		return l, fmt.Errorf("a list of %d packs to remove", len(packs))
	}
	plain, err := json.Marshal(l)
	if err != nil {
		return l, err
	}
	b, err := r.prunes.Seal([]byte(pruneMagic), plain, nil)
	if err != nil {
		return l, err
	}
	if l.ID, err = r.putNamed(ctx, prunesDir, b); err != nil {
		return l, fmt.Errorf("store a list of packs to remove: %w", err)
	}
	return l, nil
}

// pruneLists reads the lists of packs that are about to be removed. One that is
// damaged or gone removes nothing, so it is passed over.
func (r *Repo) pruneLists(ctx context.Context) ([]pruneList, error) {
	var out []pruneList
	err := r.be.List(ctx, prunesDir, func(f backend.Info) error {
		l, err := r.readPruneList(ctx, f.Name)
		if errors.Is(err, ErrDamaged) {
			return nil
		}
		if err == nil {
			out = append(out, l)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the lists of packs to remove: %w", err)
	}
	return out, nil
}

// announcedPacks returns the packs that prune lists name.
func (r *Repo) announcedPacks(ctx context.Context) (map[FileID]bool, error) {
	lists, err := r.pruneLists(ctx)
	announced := map[FileID]bool{}
	for _, l := range lists {
		for _, id := range l.Packs {
			announced[id] = true
		}
	}
	return announced, err
}

func (r *Repo) readPruneList(ctx context.Context, name string) (pruneList, error) {
	b, err := r.readNamed(ctx, name, maxPruneSize)
	if err != nil {
		return pruneList{}, err
	}
	l, err := openPruneList(b, r.prunes)
	if err != nil {
		return l, &DamageError{name, err}
	}
	l.ID, err = fileID(name)
	return l, err
}

func openPruneList(b []byte, sealer *crypto.Sealer) (pruneList, error) {
	var l pruneList
	sealed, ok := hasMagic(b, pruneMagic)
	if !ok {
		return l, errors.New("bad magic")
	}
	plain, err := sealer.Open(nil, sealed, nil)
	if err != nil {
		return l, err
	}
	return parsePruneList(plain)
}

func parsePruneList(plain []byte) (pruneList, error) {
	var l pruneList
	if err := json.Unmarshal(plain, &l); err != nil {
		return l, err
	}
	if l.Version != pruneVersion {
		return l, fmt.Errorf("list version %d: %w", l.Version, ErrUnsupported)
	}
	return l, nil
}
