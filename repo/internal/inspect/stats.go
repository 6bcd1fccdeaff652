// Package inspect describes for people what a repository holds, and how much space that
// takes. It changes nothing.
package inspect

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/snap-backup/snap/internal/words"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/internal/store"
)

// Stats says what a repository holds and how much space that takes. Sizes are in bytes.
type Stats struct {
	Snapshots    int           `json:"snapshots"`
	LogicalBytes int64         `json:"logical_bytes"` // of all snapshots, as backup folders
	StoredBytes  int64         `json:"stored_bytes"`  // of all repository files except the reserve
	Ratio        float64       `json:"ratio"`         // LogicalBytes / StoredBytes
	Packs        int           `json:"packs"`
	ContentBytes int64         `json:"content_bytes"`  // packs of file content
	MetaBytes    int64         `json:"metadata_bytes"` // packs of trees
	IndexBytes   int64         `json:"index_bytes"`
	OtherBytes   int64         `json:"other_bytes"`   // snapshots, keys, config, packs in no index
	ReserveBytes int64         `json:"reserve_bytes"` // not in StoredBytes; see MakeReserve
	Chunks       int           `json:"chunks"`
	Devices      []DeviceStats `json:"devices"`
}

// DeviceStats is the part of Stats for one device.
type DeviceStats struct {
	UDID         string    `json:"udid"`
	Name         string    `json:"name"`
	Snapshots    int       `json:"snapshots"`
	First        time.Time `json:"first"`
	Last         time.Time `json:"last"`
	NewestBytes  int64     `json:"newest_bytes"`  // of the newest snapshot
	LogicalBytes int64     `json:"logical_bytes"` // of all snapshots
	StoredBytes  int64     `json:"stored_bytes"`  // what its snapshots added when they were stored
}

// Count counts the snapshots in list, which has the order of record.List, and the
// files of the repository. The index must have been loaded.
func Count(ctx context.Context, r *store.Store, list []*record.Snapshot) (*Stats, error) {
	st := &Stats{Chunks: r.Index.Len(), Devices: []DeviceStats{}}
	err := r.Backend.List(ctx, "", func(f backend.Info) error {
		if f.Name == layout.ReserveName {
			st.ReserveBytes = f.Size
			return nil
		}
		st.StoredBytes += f.Size
		switch {
		case strings.HasPrefix(f.Name, layout.IndexDir):
			st.IndexBytes += f.Size
		case strings.HasPrefix(f.Name, layout.PacksDir):
			st.Packs++
			id, _ := layout.ParseFileID(f.Name)
			p, known := r.Index.Pack(pack.ID(id))
			switch {
			case !known:
				st.OtherBytes += f.Size
			case p.Kind == pack.Metadata:
				st.MetaBytes += f.Size
			default:
				st.ContentBytes += f.Size
			}
		default:
			st.OtherBytes += f.Size
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("measure the repository: %w", err)
	}
	at := map[string]int{}
	for _, s := range list {
		i, ok := at[record.PlainUDID(s.Device.UDID)]
		if !ok {
			i = len(st.Devices)
			at[record.PlainUDID(s.Device.UDID)] = i
			st.Devices = append(st.Devices, DeviceStats{UDID: s.Device.UDID, First: s.Time})
		}
		d := &st.Devices[i]
		d.Name, d.Last, d.NewestBytes = s.Device.Name, s.Time, s.Bytes
		d.Snapshots++
		d.LogicalBytes += s.Bytes
		d.StoredBytes += s.StoredBytes
		st.Snapshots++
		st.LogicalBytes += s.Bytes
	}
	if st.StoredBytes > 0 {
		st.Ratio = float64(st.LogicalBytes) / float64(st.StoredBytes)
	}
	slices.SortFunc(st.Devices, func(a, b DeviceStats) int {
		return cmp.Or(words.Compare(a.Name, b.Name), strings.Compare(a.UDID, b.UDID))
	})
	return st, nil
}
