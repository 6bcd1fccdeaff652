package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/simulator/synthetic"
)

// try runs snap and returns an error unless it ends with 0. Unlike run it may be
// used by any goroutine.
func (s *shell) try(args ...string) error {
	cmd, out := s.command(args...)
	_ = cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != 0 || bytes.Contains(out.Bytes(), []byte("warning")) {
		return fmt.Errorf("snap %s: exit code %d\n%s", strings.Join(args, " "), code, out)
	}
	return nil
}

// TestImportsBesidePrunes lets two processes import, each a device of its own, day
// after day, while a third one forgets and prunes all the time. Nobody is refused
// or waits, and everything that is listed in the end comes back byte for byte.
// SNAP_TEST_TOGETHER sets how many days.
func TestImportsBesidePrunes(t *testing.T) {
	days := numberFrom(t, "SNAP_TEST_TOGETHER", 6)
	if testing.Short() {
		days = min(days, 2)
	}
	dir := t.TempDir()
	s := &shell{t: t, repo: filepath.Join(dir, "repo"), env: []string{
		"SNAP_BACKUP_PASSWORD=" + synthetic.DefaultPassword, packSizeVariable + "=200000"}}
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
			key := killedSnapshot{UDID: udid, Time: series.Time(0, series.Day())}.key()
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
				failed <- nil
				return
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
	if prunes < 2 {
		t.Errorf("only %d prunes", prunes)
	}
	if t.Failed() {
		return
	}
	// Once as it was left, and once more when all waste has gone.
	for range 2 {
		g := &killRig{shell: s}
		var list []killedSnapshot
		g.json(&list, "snapshots")
		var report struct {
			Clean    bool  `json:"clean"`
			Problems []any `json:"problems"`
		}
		g.json(&report, "check", "--read-data")
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
				t.Errorf("the last snapshot of %s is not listed: %v", udid, listed)
			}
		}
		s.run(0, "forget", "--keep-last", "1", "--prune", "--max-unused", "0")
	}
}
