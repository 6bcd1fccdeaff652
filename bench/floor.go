package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync/atomic"

	"github.com/snap-backup/snap/device/simulator/synthetic"
	"golang.org/x/sync/errgroup"
)

// encoder encodes files. Its methods return the number of bytes that the result takes.
type encoder interface {
	// compress encodes a file without an earlier version.
	compress(ctx context.Context, name string, size int64) (int64, error)
	// delta encodes a file as a delta to an earlier version.
	delta(ctx context.Context, old, name string) (int64, error)
	// compressAll encodes many small files as one stream.
	compressAll(ctx context.Context, names []string) (int64, error)
}

// floorSize is the encoded size of a day's new content, in bytes.
type floorSize struct {
	// Each is the sum of all new files, encoded separately.
	Each int64 `json:"each"`
	// Together is the same sum, but with the day's new files that are shorter than
	// smallFile encoded as one stream. This compresses property lists far better.
	Together int64 `json:"together"`
}

// smallFile is the length below which files are also compressed together, in bytes.
const smallFile = 64 << 10

// floor computes the bytes that a day's changes need if each changed file is stored as
// a delta to the file at the same path on the day before, and each new file is
// compressed. Content that was seen before, under any name, counts 0 bytes, and so do
// names, metadata and encryption.
type floor struct {
	encode encoder
	before string // folder with yesterday's files
	known  map[content]bool
	last   contents
}

// newFloor returns a floor that uses xz and xdelta3. It makes dir for yesterday's files.
func newFloor(dir string) (*floor, error) {
	for _, program := range []string{"xz", "xdelta3"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("floor: %w", err)
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("floor: %w", err)
	}
	return &floor{encode: programs{}, before: dir, known: map[content]bool{}}, nil
}

// add adds a day and returns the size of its new content.
func (f *floor) add(ctx context.Context, live string, now contents) (floorSize, error) {
	var each, large atomic.Int64
	var small []string
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, path := range f.newContent(now) {
		item := now[path]
		name := filepath.Join(live, filepath.FromSlash(path))
		old, changed := f.last[path]
		isSmall := !changed && item.size < smallFile
		if isSmall {
			small = append(small, name)
		}
		g.Go(func() error {
			n, err := f.encode.compress(gctx, name, item.size)
			if err != nil {
				return err
			}
			if changed && !old.dir {
				delta, err := f.encode.delta(gctx, filepath.Join(f.before, filepath.FromSlash(path)), name)
				if err != nil {
					return err
				}
				n = min(n, delta)
			}
			n = min(n, item.size)
			each.Add(n)
			if !isSmall {
				large.Add(n)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return floorSize{}, fmt.Errorf("floor: %w", err)
	}
	size := floorSize{Each: each.Load(), Together: large.Load()}
	if len(small) > 0 {
		n, err := f.encode.compressAll(ctx, small)
		if err != nil {
			return floorSize{}, fmt.Errorf("floor: %w", err)
		}
		size.Together += n
	}
	size.Together = min(size.Together, size.Each)
	if err := f.remember(live, now); err != nil {
		return floorSize{}, fmt.Errorf("floor: keep yesterday: %w", err)
	}
	return size, nil
}

// newContent returns the sorted paths of files with new content, one path for each new
// content.
func (f *floor) newContent(now contents) []string {
	var paths []string
	for path := range now {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	return slices.DeleteFunc(paths, func(path string) bool {
		item := now[path]
		if item.dir || item.size == 0 || f.known[item] {
			return true
		}
		f.known[item] = true
		return false
	})
}

// remember copies the files of a day for comparison with the next day.
func (f *floor) remember(live string, now contents) error {
	for path, item := range now {
		if item.dir || f.last[path] == item {
			continue
		}
		if err := copyFile(filepath.Join(f.before, filepath.FromSlash(path)), filepath.Join(live, filepath.FromSlash(path))); err != nil {
			return err
		}
	}
	f.last = now
	return nil
}

func copyFile(to, from string) (err error) {
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}

// floorSeries computes the floor of a series day by day. If the devices encrypt, it
// uses unencrypted folders with the same content, since encryption hides what has
// changed.
type floorSeries struct {
	floor *floor
	plain *synthetic.Series // nil if the folders of the run are not encrypted
	dir   string
}

func newFloorSeries(c config) (*floorSeries, error) {
	f, err := newFloor(filepath.Join(c.dir, "floor"))
	if err != nil || c.series.Encryption == synthetic.EncryptNone {
		return &floorSeries{floor: f}, err
	}
	s := &floorSeries{floor: f, dir: filepath.Join(c.dir, "plain")}
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		return nil, err
	}
	c.series.Encryption = synthetic.EncryptNone
	s.plain, err = synthetic.New(c.series)
	return s, err
}

// next returns the floor of the next day, which is in live.
func (s *floorSeries) next(ctx context.Context, live string, now contents) (floorSize, error) {
	if s.plain != nil {
		if err := s.plain.Next(ctx, s.dir); err != nil {
			return floorSize{}, err
		}
		var err error
		if now, err = readContents(s.dir); err != nil {
			return floorSize{}, err
		}
		live = s.dir
	}
	return s.floor.add(ctx, live, now)
}

func (s *floorSeries) close() error {
	if s.plain == nil {
		return nil
	}
	return s.plain.Close()
}
