package local

import (
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/snap-backup/snap/repo/backend"
)

// folderReads notes which folders are read.
type folderReads struct {
	disk
	read []string
}

func (d *folderReads) readDir(name string) ([]fs.DirEntry, error) {
	d.read = append(d.read, name)
	return d.disk.readDir(name)
}

// A listing of a range reads no folder in which no name of the range can be. The packs are in
// hundreds of folders, and a backup asks for all the others.
func TestListRangeReadsLittle(t *testing.T) {
	t.Parallel()
	b, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for _, name := range []string{"config", "keys/k", "packs/ab/p", "packs/cd/q", "snapshots/s"} {
		if err := b.Put(t.Context(), name, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct{ after, before, read, names string }{
		{"packs0", "", ". snapshots", "snapshots/s"},
		{"", "packs/", ". keys", "config keys/k"},
		{"packs/ab/p", "", ". packs packs/ab packs/cd snapshots", "packs/cd/q snapshots/s"},
		{"packs/b", "packs/d", ". packs packs/cd", "packs/cd/q"},
	} {
		d := &folderReads{disk: b.disk}
		counted := newBackend(b.dir, d, nil, io.NopCloser(nil).Close)
		var names []string
		err := counted.ListRange(t.Context(), test.after, test.before, func(f backend.Info) error { names = append(names, f.Name); return nil })
		read := slices.DeleteFunc(d.read, func(name string) bool { return name == "tmp" })
		if err != nil || strings.Join(names, " ") != test.names || strings.Join(read, " ") != test.read {
			t.Errorf("after %q, before %q: read %q, shows %q, %v", test.after, test.before, read, names, err)
		}
	}
}
