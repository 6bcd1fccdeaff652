package materialize

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/snap-backup/snap/internal/filesystem"
)

// syncEach flushes each file and folder below dir. unflushed says that the file system
// cannot flush files.
func syncEach(dir string) (unflushed bool, err error) {
	flags := os.O_RDONLY
	if runtime.GOOS == "windows" {
		flags = os.O_RDWR // flushing needs the right to write
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return syncDir(path)
		}
		f, err := os.OpenFile(path, flags, 0)
		if err != nil {
			return err
		}
		err = filesystem.Sync(f)
		if cerr := filesystem.Close(f); err == nil {
			err = cerr
		}
		if filesystem.IsUnsupported(err) {
			unflushed = true
			return nil
		}
		return err
	})
	return unflushed, err
}

// syncDir makes names in a folder durable, if the system can flush folders.
func syncDir(dir string) error {
	if !filesystem.FoldersCanSync {
		return nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return filesystem.SyncFolder(f)
}
