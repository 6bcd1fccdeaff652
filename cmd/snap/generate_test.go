package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/snap-backup/snap/device/mobilesync/foldertest"
)

// generatedFolders remembers what "snap generate" has made. Most scripts begin with the
// same few backup folders, and copying a folder costs a tenth of making it.
type generatedFolders struct {
	dir  string
	mu   sync.Mutex
	made map[string]func() (string, error) // returns the folder to copy, by flags
}

func newGeneratedFolders(t *testing.T) *generatedFolders {
	return &generatedFolders{dir: t.TempDir(), made: map[string]func() (string, error){}}
}

// generate is "generate [FLAG]... FOLDER": it makes what "snap generate" makes.
func (g *generatedFolders) generate(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: generate [FLAG]... FOLDER")
	}
	flags := args[:len(args)-1]
	key := strings.Join(flags, " ")
	g.mu.Lock()
	folder := g.made[key]
	if folder == nil {
		dir := filepath.Join(g.dir, strconv.Itoa(len(g.made)))
		folder = sync.OnceValues(func() (string, error) {
			var stderr strings.Builder
			a := &app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: &stderr}
			if a.run(context.Background(), append(append([]string{"generate"}, flags...), dir)) != 0 {
				return "", errors.New(stderr.String())
			}
			return dir, nil
		})
		g.made[key] = folder
	}
	g.mu.Unlock()
	from, err := folder()
	ts.Check(err)
	ts.Check(copyWithTimes(from, ts.MkAbs(args[len(args)-1])))
}

// manyFiles makes the backup folder of a device with so many small files that a command
// reads them in several batches.
func manyFiles(t testing.TB) string {
	t.Helper()
	m := foldertest.New(t)
	for i := range 800 {
		m.Put("HomeDomain", fmt.Sprint("many/", i), foldertest.Noise(byte(i), i))
	}
	const chats = "Library/SMS/sms.db" // is no real database
	m.Check(os.Remove(m.Blob("HomeDomain", chats)))
	delete(m.Records, "HomeDomain-"+chats)
	m.Finish(1)
	return m.Dir
}

// newManyFiles returns the command "many FOLDER", which makes a backup folder of many
// files; see manyFiles.
func newManyFiles(t *testing.T) func(*testscript.TestScript, bool, []string) {
	made := sync.OnceValue(func() string { return manyFiles(t) })
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) != 1 {
			ts.Fatalf("usage: many FOLDER")
		}
		ts.Check(copyWithTimes(made(), ts.MkAbs(args[0])))
	}
}

// copyWithTimes copies a folder of folders and files with their times of modification.
func copyWithTimes(from, to string) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := to + strings.TrimPrefix(path, from)
		if e.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		return errors.Join(os.WriteFile(target, b, info.Mode()), os.Chtimes(target, info.ModTime(), info.ModTime()))
	})
}
