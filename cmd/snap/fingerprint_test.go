package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// fingerprint returns the fingerprints of all files and folders in a folder.
func fingerprint(dir string) (fingerprints, error) {
	f := fingerprints{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		sum := ""
		if !e.IsDir() {
			if sum, err = hashFile(path); err != nil {
				return err
			}
		}
		f[rel] = fmt.Sprintf("%v %d %s", e.IsDir(), info.ModTime().UnixNano(), sum)
		return nil
	})
	return f, err
}

func hashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	return fmt.Sprintf("%d %x", n, h.Sum(nil)), err
}
