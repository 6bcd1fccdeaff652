package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/foldertest"
	"github.com/snap-backup/snap/repo"
)

// The folders in which Apple's programs keep backups need not exist. A folder that
// cannot be read is named, and the backups in other folders are found.
func TestPlacesOfBackups(t *testing.T) {
	t.Parallel()
	good := filepath.Dir(foldertest.New(t).Dir)
	empty, missing := t.TempDir(), filepath.Join(t.TempDir(), "missing")
	moved := filepath.Join(t.TempDir(), "Backup")
	if err := os.Symlink(missing, moved); err != nil {
		t.Skip(err)
	}
	for name, c := range map[string]struct {
		places  []string
		backups int
		faults  int
		err     error
	}{
		"good and missing":         {[]string{missing, good, empty}, 1, 0, nil},
		"nothing":                  {[]string{missing, empty}, 0, 0, mobilesync.ErrNoBackup},
		"the disk is gone":         {[]string{moved}, 0, 0, mobilesync.ErrDeadLink},
		"one of two disks is gone": {[]string{good, moved}, 1, 1, nil},
		"same place twice":         {[]string{good, good}, 1, 0, nil},
	} {
		found, err := findInPlaces(c.places)
		if !errors.Is(err, c.err) {
			t.Errorf("%s: %v", name, err)
		}
		faults := 0
		for _, f := range found {
			if f.Err != nil {
				faults++
			}
		}
		if faults != c.faults || len(found)-faults != c.backups {
			t.Errorf("%s: %v", name, found)
		}
	}
	if _, err := findInPlaces(nil); !isA[usageError](err) {
		t.Errorf("no places: %v", err)
	}
}

// --allow-incomplete accepts files that cannot be read, but no other damage.
func TestDamageBesidesUnreadable(t *testing.T) {
	t.Parallel()
	finds := func(kinds ...string) *repo.Snapshot {
		s := &repo.Snapshot{Findings: []repo.Finding{{Kind: finding.Stray, Consequence: repo.Remark}}}
		for _, kind := range kinds {
			s.Findings = append(s.Findings, repo.Finding{Kind: kind, Consequence: repo.Damage})
		}
		return s
	}
	for _, c := range []struct {
		s    *repo.Snapshot
		want bool
	}{
		{finds(), false},
		{finds(finding.Unreadable, finding.Unreadable), false},
		{finds(finding.Missing), true},
		{finds(finding.Unreadable, finding.Digest), true},
	} {
		if got := damagedBesides(c.s, finding.Unreadable); got != c.want {
			t.Errorf("%+v: %v", c.s.Findings, got)
		}
	}
}
