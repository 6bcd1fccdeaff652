package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/simulator/synthetic"
)

// TestImportsBesidePrunes imports two devices at the same time, day after day, while
// other processes forget and prune. No process is refused or has to wait. At the end
// every listed snapshot equals its backup. SNAP_TEST_TOGETHER sets the number of
// days.
func TestImportsBesidePrunes(t *testing.T) {
	if testing.Short() {
		t.Skip("it imports for several days")
	}
	t.Parallel()
	days := numberFrom(t, "SNAP_TEST_TOGETHER", amount(6, 2, 2))
	dir := t.TempDir()
	s := newShell(t, filepath.Join(dir, "repo"), "SNAP_BACKUP_PASSWORD="+synthetic.DefaultPassword, packSizeVariable+"=200000")
	s.run(0, "init", "--parity", "10%")

	var mu sync.Mutex // guards want and last
	want, last := map[string]fingerprints{}, map[string]string{}
	importAll := func(seed uint64) error {
		series, err := synthetic.New(synthetic.Config{Seed: seed, Scale: synthetic.Tiny, Encryption: synthetic.Encryption(seed % 2), StateDir: dir})
		if err != nil {
			return err
		}
		defer series.Close()
		folder, udid := filepath.Join(dir, fmt.Sprint("backup", seed)), series.Devices()[0].UDID
		for range days {
			if err := series.Next(t.Context(), folder); err != nil {
				return err
			}
			f, err := fingerprint(filepath.Join(folder, udid))
			if err != nil {
				return err
			}
			key := listedSnapshot{UDID: udid, Time: series.Time(0, series.Day())}.key()
			mu.Lock()
			want[key], last[udid] = f, key
			mu.Unlock()
			if err := s.try("import", folder); err != nil {
				return err
			}
		}
		return nil
	}
	var importers, pruner sync.WaitGroup
	over, failed := make(chan struct{}), make(chan error, 3)
	for seed := range uint64(2) {
		importers.Go(func() { failed <- importAll(seed + 1) })
	}
	prunes := 0
	pruner.Go(func() {
		for ; ; prunes++ {
			select {
			case <-over:
				if prunes >= 2 {
					failed <- nil
					return
				}
			default:
			}
			for _, args := range [][]string{{"forget", "--keep-last", "2"}, {"prune", "--max-unused", "0"}} {
				if err := s.try(args...); err != nil {
					failed <- err
					return
				}
			}
		}
	})
	begun := time.Now()
	importers.Wait()
	close(over)
	pruner.Wait()
	for range 3 {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d imports of two devices and %d prunes in %v", days, prunes, time.Since(begun).Round(time.Second))
	if t.Failed() {
		return
	}
	// Check the repository as the processes left it, and again after a final prune.
	for range 2 {
		var list []listedSnapshot
		s.json(&list, "snapshots")
		var report struct {
			Clean    bool  `json:"clean"`
			Problems []any `json:"problems"`
		}
		s.json(&report, "check", "--read-data")
		if !report.Clean || len(report.Problems) > 0 {
			t.Errorf("check finds %v", report.Problems)
		}
		listed := map[string]bool{}
		for _, snap := range list {
			listed[snap.key()] = true
			out := filepath.Join(dir, "out")
			s.run(0, "materialize", snap.ID, out)
			got, err := fingerprint(filepath.Join(out, snap.UDID))
			if err == nil {
				err = want[snap.key()].compare(got)
			}
			if err != nil {
				t.Errorf("snapshot %s: %v", snap.key(), err)
			}
			if err := os.RemoveAll(out); err != nil {
				t.Fatal(err)
			}
		}
		for udid, key := range last {
			if !listed[key] {
				t.Errorf("the newest snapshot of %s is not listed: %v", udid, listed)
			}
		}
		s.run(0, "forget", "--keep-last", "1", "--prune", "--max-unused", "0")
	}
}
