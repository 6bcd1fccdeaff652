package local

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
)

// The disk must return the same results as a store in memory.
func TestLikeMemory(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := t.TempDir()
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		dir := filepath.Join(base, fmt.Sprint(n))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		d := newRootDisk(root)
		disk := newBackend(dir, unflushed{d}, rand.Reader, d.close)
		defer disk.Close()
		model := memory.New()
		both := func(what string, run func(b backend.Backend) (any, error)) {
			got, errGot := run(disk)
			want, errWant := run(model)
			if kind(errGot) != kind(errWant) || fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("%s: %v, %v, in memory %v, %v", what, got, errGot, want, errWant)
			}
		}
		names := rapid.SampledFrom([]string{"config", "a/b", "a/c", "a/d/e", "a-b", "f/g/h/i", "tmp/x", "B", ""})
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				name, data := names.Draw(t, "name"), rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "data")
				both("put "+name, func(b backend.Backend) (any, error) { return nil, b.Put(ctx, name, data) })
			},
			"delete": func(t *rapid.T) {
				name := names.Draw(t, "name")
				both("delete "+name, func(b backend.Backend) (any, error) { return nil, b.Delete(ctx, name) })
			},
			"read": func(t *rapid.T) {
				name, off, size := names.Draw(t, "name"), rapid.Int64Range(-2, 22).Draw(t, "off"), rapid.IntRange(0, 22).Draw(t, "size")
				both("read "+name, func(b backend.Backend) (any, error) {
					p := make([]byte, size)
					n, err := b.ReadAt(ctx, name, p, off)
					return bytes.Clone(p[:n]), err
				})
			},
			"": func(t *rapid.T) {
				for _, prefix := range []string{"", "a/", "f/g/", "tmp/"} {
					both("list "+prefix, func(b backend.Backend) (any, error) {
						var infos []backend.Info
						err := b.List(ctx, prefix, func(info backend.Info) error {
							info.Modified = time.Time{} // each has its own clock
							infos = append(infos, info)
							return nil
						})
						return infos, err
					})
				}
			},
		})
	})
}

func kind(err error) string {
	for _, known := range []error{backend.ErrExist, backend.ErrNotExist, backend.ErrInvalidName} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	if err != nil && err.Error() != "EOF" {
		return "other"
	}
	return fmt.Sprint(err)
}
