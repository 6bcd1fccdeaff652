package main

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/snap-backup/snap/device/simulator/synthetic"
)

// counted is an encoder whose sizes are easy to compute.
type counted struct{}

func (counted) compress(_ context.Context, _ string, size int64) (int64, error) { return size / 2, nil }

func (counted) delta(_ context.Context, old, name string) (int64, error) {
	a, err := os.ReadFile(old)
	if err != nil {
		return 0, err
	}
	b, err := os.ReadFile(name)
	n := int64(0)
	for i := range b {
		if i >= len(a) || a[i] != b[i] {
			n++
		}
	}
	return n, err
}

func (counted) compressAll(_ context.Context, names []string) (int64, error) {
	return int64(10 * len(names)), nil
}

// writeDay writes files and returns their contents.
func writeDay(t *testing.T, dir string, files map[string]string) contents {
	t.Helper()
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := readContents(dir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestFloorAddsUp(t *testing.T) {
	live := t.TempDir()
	f := &floor{encode: counted{}, before: t.TempDir(), known: map[content]bool{}}
	a, b, large := strings.Repeat("a", 100), strings.Repeat("b", 60), strings.Repeat("l", 2*smallFile)
	for day, tt := range []struct {
		write map[string]string
		want  floorSize
	}{
		// Half of each file. The copy of a and the empty file count 0 bytes.
		{map[string]string{"d/a": a, "d/a-again": a, "b": b, "large": large, "empty": ""}, floorSize{50 + 30 + smallFile, 2*10 + smallFile}},
		{nil, floorSize{}},
		// Three bytes at the end of one file, one in the other. The renamed b
		// counts 0 bytes.
		{map[string]string{"d/a": a + "xyz", "large": "L" + large[1:], "b-moved": b}, floorSize{4, 4}},
		// Compared with the day before, not with the first day.
		{map[string]string{"d/a": a + "xyZ"}, floorSize{1, 1}},
		// A rewritten file needs no more than a new one.
		{map[string]string{"b": strings.Repeat("c", 60)}, floorSize{30, 30}},
		// A restored earlier version counts 0 bytes.
		{map[string]string{"d/a": a}, floorSize{}},
	} {
		got, err := f.add(t.Context(), live, writeDay(t, live, tt.write))
		if err != nil || got != tt.want {
			t.Errorf("day %d: %+v, %v; want %+v", day, got, err, tt.want)
		}
	}
}

func TestFloorPrograms(t *testing.T) {
	if testing.Short() {
		t.Skip("compresses megabytes with xz, which takes most of a second")
	}
	if len(installed("xz", "xdelta3")) < 2 {
		t.Skip("xz or xdelta3 is not installed")
	}
	f, err := newFloor(filepath.Join(t.TempDir(), "floor"))
	if err != nil {
		t.Fatal(err)
	}
	r := rand.NewChaCha8([32]byte{1})
	noise := make([]byte, 1<<20)
	r.Read(noise)
	changed := append([]byte("inserted "), noise...)
	copy(changed[500_000:], "changed")
	zeros := make([]byte, 1<<20)
	live := t.TempDir()
	between := func(what string, got, low, high int64) {
		if got < low || got > high {
			t.Errorf("%s: %d, want %d to %d", what, got, low, high)
		}
	}
	day := func(files map[string]string) floorSize {
		size, err := f.add(t.Context(), live, writeDay(t, live, files))
		if err != nil {
			t.Fatal(err)
		}
		return size
	}
	size := day(map[string]string{"noise": string(noise)})
	between("noise is stored uncompressed", size.Each, 1<<20, 1<<20)
	size = day(map[string]string{"noise": string(changed)})
	between("a small change", size.Each, 16, 400)
	size = day(map[string]string{"zeros": string(zeros)})
	between("zeros", size.Each, 10, 1000)
	plist := bytes.Repeat([]byte("<key>of a property list</key><string>"), 20)
	many := map[string]string{}
	for i := range 50 {
		many[string(rune('A'+i))] = string(plist) + strings.Repeat("x", i)
	}
	size = day(many)
	between("small files one by one", size.Each, 50*30, 50*120)
	between("small files together", size.Together, 30, size.Each/4)
}

func TestFloorOfEncryptedDevicesIsThatOfPlainOnes(t *testing.T) {
	if testing.Short() {
		t.Skip("compresses a tiny series")
	}
	if len(installed("xz", "xdelta3")) < 2 {
		t.Skip("xz or xdelta3 is not installed")
	}
	c := config{dir: t.TempDir(), series: synthetic.Config{Seed: 3, Encryption: synthetic.EncryptAll, Scale: synthetic.Tiny}}
	s, err := newFloorSeries(c)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if _, err := s.next(t.Context(), "/nowhere", nil); err != nil {
		t.Fatal(err)
	}
	size, err := s.next(t.Context(), "/nowhere", nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.floor.last) == 0 || size.Each == 0 || size.Each > 1<<20 {
		t.Errorf("second day: %+v of %d files", size, len(s.floor.last))
	}
}

func TestCompare(t *testing.T) {
	files := map[string]string{"a": "text", "d/b": "more"}
	want := writeDay(t, t.TempDir(), files)
	if bytes, n := want.bytes(); bytes != 8 || n != 2 {
		t.Errorf("%d bytes in %d files", bytes, n)
	}
	for _, tt := range []struct {
		change func(dir string) error
		want   string
	}{
		{func(string) error { return nil }, ""},
		{func(dir string) error { return os.Remove(filepath.Join(dir, "a")) }, "a is missing"},
		{func(dir string) error { return os.WriteFile(filepath.Join(dir, "a"), []byte("tex!"), 0o600) }, "other bytes"},
		{func(dir string) error { return os.Truncate(filepath.Join(dir, "a"), 3) }, "3 bytes, want 4"},
		{func(dir string) error { return os.Mkdir(filepath.Join(dir, "empty"), 0o700) }, "empty should not exist"},
		{func(dir string) error {
			return os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "d", "a"))
		}, "missing"},
		{func(dir string) error {
			if err := os.Remove(filepath.Join(dir, "a")); err != nil {
				return err
			}
			return os.Mkdir(filepath.Join(dir, "a"), 0o700)
		}, "restored as a folder"},
	} {
		dir := t.TempDir()
		writeDay(t, dir, files)
		if err := tt.change(dir); err != nil {
			t.Fatal(err)
		}
		got, err := readContents(dir)
		if err != nil {
			t.Fatal(err)
		}
		err = want.compare(got)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%v, want %q", err, tt.want)
		}
	}
}
