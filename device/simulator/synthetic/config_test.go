package synthetic

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestTimes(t *testing.T) {
	t.Parallel()
	start := time.Date(2025, 3, 1, 4, 0, 0, 999, time.FixedZone("x", 3600))
	dir := t.TempDir()
	s := newSeries(t, Config{Devices: 2, Start: start})
	advance(t, s, dir, 2)
	for i, d := range s.Devices() {
		at := s.Time(i, 1)
		if want := start.Truncate(time.Second).Add(24*time.Hour + time.Duration(i)*17*time.Minute); !at.Equal(want) {
			t.Errorf("device %d runs at %v, want %v", i, at, want)
		}
		info, err := os.Stat(filepath.Join(dir, d.UDID, "Status.plist"))
		if err != nil {
			t.Fatal(err)
		}
		if late := info.ModTime().Sub(at); late < 0 || late > time.Hour {
			t.Errorf("Status.plist was written %v after the start", late)
		}
		var status struct {
			SnapshotState, Version, UUID string
			Date                         time.Time
		}
		readPlist(t, filepath.Join(dir, d.UDID, "Status.plist"), &status)
		if status.SnapshotState != "finished" || status.Version != "3.3" || len(status.UUID) != 36 || !status.Date.Before(info.ModTime().Add(time.Second)) {
			t.Errorf("Status.plist %+v", status)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, conf := range []Config{{Devices: -1}, {Devices: maxDevices + 1}, {Scale: lastScale + 1}, {PasswordChangeDay: 1}} {
		if _, err := New(conf); !errors.Is(err, errConfig) {
			t.Errorf("%+v: %v", conf, err)
		}
	}
	dir := t.TempDir()
	s := newSeries(t, Config{})
	if err := os.Mkdir(filepath.Join(dir, s.Devices()[0].UDID), 0o755); err != nil {
		t.Fatal(err)
	}
	err := s.Next(context.Background(), dir)
	if !errors.Is(err, os.ErrExist) {
		t.Errorf("a folder that exists: %v", err)
	}
	if again := s.Next(context.Background(), t.TempDir()); again != err {
		t.Errorf("after an error: %v", again)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := newSeries(t, Config{}).Next(ctx, t.TempDir()); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Next(context.Background(), dir); !errors.Is(err, errClosed) {
		t.Errorf("closed: %v", err)
	}
	if left, err := os.ReadDir(s.conf.StateDir); err != nil || len(left) != 0 {
		t.Errorf("Close leaves %v, %v", left, err)
	}
}

func TestRelativeStateDir(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir("state ?#%", 0o755); err != nil {
		t.Skip("the file system refuses the name:", err)
	}
	if _, err := Generate(context.Background(), "out", Config{StateDir: "state ?#%"}, 1); err != nil {
		t.Error(err)
	}
}

func TestScaleNames(t *testing.T) {
	t.Parallel()
	for s := Tiny; s <= lastScale; s++ {
		if back, err := ParseScale(s.String()); err != nil || back != s {
			t.Errorf("%v: %v, %v", s, back, err)
		}
	}
	if _, err := ParseScale("huge"); err == nil {
		t.Error("huge is a scale")
	}
}
