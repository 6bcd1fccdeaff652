package ingest

import (
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/device/mobilesync/foldertest"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
	"howett.net/plist"
)

// A wrong clock does not decide which snapshot is the latest. What the backup
// states is noted.
func TestDates(t *testing.T) {
	t.Parallel()
	right := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	future := time.Date(2038, 1, 19, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		status, info time.Time // zero: none
		want         time.Time // zero: the time of storing
		note         string
	}{
		"right":                {right, right, right, ""},
		"clock of the device":  {future, right, right, "impossible date 2038-01-19 00:00 UTC; its other date 2026-01-02 03:04 UTC counts"},
		"device lost its time": {time.Unix(0, 0), time.Time{}, time.Time{}, "impossible date 1970-01-01 00:00 UTC; the time of storing counts"},
		"both clocks":          {future, future, time.Time{}, "impossible date 2038-01-19 00:00 UTC; the time of storing counts"},
		"no date":              {time.Time{}, time.Time{}, time.Time{}, "states no date; the time of storing counts"},
	} {
		m := foldertest.New(t)
		put := func(file string, format int, key string, date time.Time, v map[string]any) {
			if !date.IsZero() {
				v[key] = date
			}
			m.Plist(file, format, v)
		}
		put("Status.plist", plist.BinaryFormat, "Date", c.status, map[string]any{"Version": "3.3", "SnapshotState": "finished"})
		put("Info.plist", plist.XMLFormat, "Last Backup Date", c.info, map[string]any{"Target Identifier": foldertest.UDID})
		m.Plist("Manifest.plist", plist.BinaryFormat, map[string]any{"Version": "10.0", "IsEncrypted": false, "BackupKeyBag": []byte("bag")})
		r := createRepo(t, memory.New())
		s := mustImport(t, r, m.Dir, Options{Workers: 1}).Snapshot
		if c.want.IsZero() {
			if s.Time.Sub(s.StoredAt).Abs() > time.Hour {
				t.Errorf("%s: %v, stored at %v", name, s.Time, s.StoredAt)
			}
		} else if !s.Time.Equal(c.want) {
			t.Errorf("%s: %v", name, s.Time)
		}
		var note string
		for _, f := range s.Findings {
			if f.Kind == finding.Date {
				note += f.Text
				if f.Consequence != repo.Remark {
					t.Errorf("%s: %+v", name, f)
				}
			}
		}
		if !s.Complete || (note == "") != (c.note == "") || !strings.HasSuffix(note, c.note) {
			t.Errorf("%s: %q, complete %v", name, note, s.Complete)
		}
		if loaded, err := r.LoadSnapshot(t.Context(), s.ID); err != nil || !loaded.Time.Equal(s.Time) || len(loaded.Problems) > 0 {
			t.Errorf("%s: read again: %v, %v", name, loaded, err)
		}
	}
}
