package ingest

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/folder"
	"github.com/snap-backup/snap/device/mobilesync/foldertest"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
)

// badDisk is a folder on a disk of which some places cannot be read.
type badDisk struct {
	dir  string
	list map[string]error // folders that cannot be listed
	open map[string]error // files that cannot be opened
	read map[string]error // files of which only the first half can be read
}

func (d badDisk) Open(path string) (folder.Content, error) {
	if err := d.open[path]; err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f, err := os.Open(filepath.Join(d.dir, path))
	if err != nil {
		return nil, err
	}
	if err := d.read[path]; err != nil {
		return badFile{f, err}, nil
	}
	return f, nil
}

func (d badDisk) Stat(path string) (folder.File, error) {
	info, err := os.Lstat(filepath.Join(d.dir, path))
	if err != nil {
		return folder.File{}, err
	}
	return fileOf(path, info), nil
}

func (d badDisk) List(path string) ([]folder.File, error) {
	if err := d.list[path]; err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	found, err := os.ReadDir(filepath.Join(d.dir, path))
	var out []folder.File
	for _, e := range found {
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		name := e.Name()
		if path != "" {
			name = path + "/" + name
		}
		out = append(out, fileOf(name, info))
	}
	return out, err
}

func fileOf(path string, info fs.FileInfo) folder.File {
	return folder.File{Path: path, Dir: info.IsDir(), Mode: info.Mode(), Size: info.Size(), ModTime: info.ModTime()}
}

type badFile struct {
	*os.File
	err error
}

func (f badFile) Read(b []byte) (int, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0, err
	}
	if at >= info.Size()/2 {
		return 0, &os.PathError{Op: "read", Path: f.Name(), Err: f.err}
	}
	return f.File.Read(b[:min(int64(len(b)), info.Size()/2-at)])
}

// What cannot be read is left out and named if that is allowed. Otherwise the error
// says what cannot be read and what can. Everything else is stored.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	m := foldertest.New(t)
	blob := func(path string) string {
		id := foldertest.FileID("CameraRollDomain", path)
		return id[:2] + "/" + id
	}
	a, b := blob("Media/DCIM/a.jpg"), blob("Media/DCIM/b.jpg")
	whole := mustImport(t, createRepo(t, memory.New()), m.Dir, Options{Workers: 1}).Snapshot
	for name, c := range map[string]struct {
		disk badDisk
		lost []string // blobs
		says string
	}{
		"folder, EIO":       {badDisk{list: map[string]error{a[:2]: syscall.EIO}}, []string{a}, "open " + a[:2]},
		"folder, EACCES":    {badDisk{list: map[string]error{a[:2]: syscall.EACCES}}, []string{a}, "open " + a[:2]},
		"two folders":       {badDisk{list: map[string]error{a[:2]: syscall.EIO, b[:2]: syscall.EACCES}}, []string{a, b}, "(and 1 more)"},
		"file, EACCES":      {badDisk{open: map[string]error{a: syscall.EACCES}}, []string{a}, "open " + a},
		"file, EIO":         {badDisk{read: map[string]error{b: syscall.EIO}}, []string{b}, "read "},
		"folder and a file": {badDisk{list: map[string]error{a[:2]: syscall.EIO}, read: map[string]error{b: syscall.EIO}}, []string{a, b}, "open " + a[:2]},
	} {
		t.Run(name, func(t *testing.T) {
			be := memory.New()
			r := createRepo(t, be)
			c.disk.dir = m.Dir
			attempt := func(allow bool) (*Result, error) {
				bad, err := mobilesync.OpenStore(t.Context(), c.disk, filepath.Base(m.Dir))
				if err != nil {
					t.Fatal(err)
				}
				defer bad.Close()
				return Import(t.Context(), r, bad, Options{Workers: 1, AllowIncomplete: allow})
			}
			_, err := attempt(false)
			var e *UnreadableError
			if !errors.As(err, &e) || !errors.Is(err, ErrUnreadable) || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("refused with %v", err)
			}
			if len(c.disk.list) > 0 && !strings.Contains(err.Error(), "files can be read") {
				t.Errorf("it does not say what can be read: %v", err)
			}
			res, err := attempt(true)
			if err != nil {
				t.Fatal(err)
			}
			s := res.Snapshot
			if s.Complete || !s.Damaged() || s.Files != whole.Files-int64(len(c.lost)) {
				t.Errorf("complete %v, damaged %v, %d files of %d", s.Complete, s.Damaged(), s.Files, whole.Files)
			}
			var names []string
			for _, f := range s.Findings {
				switch f.Kind {
				case finding.Unreadable:
					if f.Consequence != repo.Damage {
						t.Errorf("%+v", f)
					}
					names = append(names, f.Names...)
				case finding.Missing:
					t.Errorf("%+v", f)
				}
			}
			for _, path := range c.lost {
				if !slices.ContainsFunc(names, func(n string) bool {
					return strings.Contains(n, path[3:]) && strings.HasPrefix(n, "CameraRollDomain/Media/DCIM/")
				}) {
					t.Errorf("%s is not named in %q", path, names)
				}
			}
			want := foldertest.MustRead(t, m.Dir)
			for _, path := range c.lost {
				delete(want, path)
			}
			if err := wantSame(mustOpen(t, be, seed(2)), s, want); err != nil {
				t.Error(err)
			}
			// When the disk is sound again, nothing is missing.
			good := mustImport(t, r, m.Dir, Options{Workers: 1}).Snapshot
			if !good.Complete || good.Files != whole.Files {
				t.Errorf("%+v", good)
			}
		})
	}
}
