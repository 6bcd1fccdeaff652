package ingest

import (
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/mobilesync/folder"
)

func TestItems(t *testing.T) {
	t.Parallel()
	digits := strings.Repeat("5", 40)
	late := time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC)
	files := []folder.File{
		{Path: "00", Dir: true, Mode: fs.ModeDir | 0o755, ModTime: time.Unix(1, 2)},
		{Path: "00/00" + digits[:38], Mode: 0o644, Size: 1 << 40, ModTime: late, Inode: 1<<64 - 1, ChangeTime: -5},
		{Path: "00/00" + digits[:37], Mode: 0o600, ModTime: time.Unix(-3, 4)}, // too short for a blob
		{Path: "55/" + digits, Mode: 0o400, Size: 16, ModTime: time.Unix(5, 0), Inode: 7, ChangeTime: 8},
		{Path: "Info.plist", Mode: 0o644, Size: 3, ModTime: time.Unix(5, 0)},
		{Path: "ab/ab" + digits[:38], Mode: fs.ModeSymlink | 0o777, ModTime: time.Unix(5, 0), Skipped: "symbolic link"},
		{Path: digits, Mode: 0o644, Size: 4, ModTime: time.Unix(5, 0)},
		{Path: "12/12" + digits[:38], Mode: 0o644, ModTime: time.Unix(6, 0)}, // not in order
	}
	for _, flat := range []bool{false, true} {
		l := &items{flat: flat}
		for _, f := range files {
			l.add(f)
		}
		find := l.finder()
		for i, want := range files {
			it := l.at(i)
			got := l.file(it)
			if !got.ModTime.Equal(want.ModTime) {
				t.Errorf("flat %v: %s: time %v, want %v", flat, want.Path, got.ModTime, want.ModTime)
			}
			got.ModTime = want.ModTime
			if got != want || l.path(it) != want.Path {
				t.Errorf("flat %v: %+v became %+v", flat, want, got)
			}
			if found, ok := find.take(want.Path); !ok || found != it {
				t.Errorf("flat %v: %s is not found", flat, want.Path)
			}
			if _, ok := find.take(want.Path); ok {
				t.Errorf("flat %v: %s is found twice", flat, want.Path)
			}
		}
		for _, path := range []string{"", "99/99" + digits[:38], "Info", strings.Repeat("9", 40)} {
			if _, ok := find.take(path); ok {
				t.Errorf("flat %v: %q is found", flat, path)
			}
		}
		if l.len() != len(files) || find.left != 0 {
			t.Errorf("flat %v: %d items, %d left", flat, l.len(), find.left)
		}
	}
}
