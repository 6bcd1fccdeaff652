//go:build !linux

package materialize

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// syncTree makes everything below dir durable. Only Linux can flush one file system
// at once, so here each file is flushed.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && runtime.GOOS == "windows" {
			return nil // folders cannot be flushed there
		}
		flags := os.O_RDONLY
		if runtime.GOOS == "windows" {
			flags = os.O_RDWR // flushing needs the right to write
		}
		f, err := os.OpenFile(path, flags, 0)
		if err != nil {
			return err
		}
		err = f.Sync()
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		return err
	})
}
