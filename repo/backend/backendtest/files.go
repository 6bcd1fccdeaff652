package backendtest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/snap-backup/snap/repo/backend"
)

// content returns n random bytes. Two calls with the same n return the same bytes.
func content(n int) []byte {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], uint64(n))
	data := make([]byte, n)
	_, _ = rand.NewChaCha8(seed).Read(data) // never fails
	return data
}

// verifyFile checks with every method that a file exists with this content.
func (p *probe) verifyFile(name string, want []byte) {
	info, err := p.b.Stat(p.ctx, name)
	if err != nil || info.Name != name || info.Size != int64(len(want)) {
		p.failf("Stat(%q) = %+v, %v, want %d bytes", name, info, err, len(want))
	}
	got, err := backend.ReadAll(p.ctx, p.b, name, int64(len(want)))
	if err != nil || !bytes.Equal(got, want) {
		p.failf("content of %q: %d bytes, %v, differs from the %d put", name, len(got), err, len(want))
	}
	if !slices.ContainsFunc(p.list(""), func(listed backend.Info) bool {
		return listed.Name == name && listed.Size == info.Size && sameTime(listed, info)
	}) {
		p.failf("List shows no %q of %d bytes, put at %v", name, len(want), info.Modified)
	}
}

// verifyNoFile checks with every method that a file does not exist.
func (p *probe) verifyNoFile(name string) {
	if info, err := p.b.Stat(p.ctx, name); !isNotExist(err) || info != (backend.Info{}) {
		p.failf("Stat(%q) = %+v, %v, want ErrNotExist", name, info, err)
	}
	for _, buf := range [][]byte{make([]byte, 1), nil} {
		if n, err := p.b.ReadAt(p.ctx, name, buf, 0); n != 0 || !isNotExist(err) {
			p.failf("ReadAt(%q, %d bytes) = %d, %v, want ErrNotExist", name, len(buf), n, err)
		}
	}
	if slices.Contains(names(p.list("")), name) {
		p.failf("List shows %q, which does not exist", name)
	}
}

func isNotExist(err error) bool {
	return errors.Is(err, backend.ErrNotExist) && errors.Is(err, fs.ErrNotExist)
}

func isExist(err error) bool {
	return errors.Is(err, backend.ErrExist) && errors.Is(err, fs.ErrExist)
}

func putStoresContent(p *probe) {
	files := map[string]int{
		"config":                               0,
		"keys/0a1b":                            1,
		"locks/x_y-z.0":                        1000,
		"index/ff":                             65536,
		"snapshots/a/b/c":                      4097,
		"packs/ab/" + strings.Repeat("0f", 32): 3<<20 + 1,
	}
	for name, size := range files {
		p.put(name, content(size))
	}
	for name, size := range files {
		p.verifyFile(name, content(size))
	}
	longest := strings.Repeat("0123456789abcdef/", 20)[:backend.MaxNameLength-1] + "z"
	p.put(longest, content(3))
	p.verifyFile(longest, content(3))
}

func putCopiesData(p *probe) {
	want := content(5000)
	data := bytes.Clone(want)
	p.put("keys/a", data)
	if !bytes.Equal(data, want) {
		p.failf("Put changed the data that it was given")
	}
	clear(data)
	p.verifyFile("keys/a", want)

	got := make([]byte, len(want))
	if _, err := p.b.ReadAt(p.ctx, "keys/a", got, 0); err != nil {
		p.failf("ReadAt = %v", err)
	}
	clear(got)
	p.verifyFile("keys/a", want)
}

func putNeverOverwrites(p *probe) {
	want := content(100)
	p.put("packs/ab/one", want)
	for _, other := range [][]byte{nil, content(5), want, content(200)} {
		if err := p.b.Put(p.ctx, "packs/ab/one", other); !isExist(err) {
			p.failf("second Put = %v, want ErrExist", err)
		}
		p.verifyFile("packs/ab/one", want)
	}
	p.put("packs/ab/empty", nil)
	if err := p.b.Put(p.ctx, "packs/ab/empty", want); !isExist(err) {
		p.failf("Put over an empty file = %v, want ErrExist", err)
	}
	p.verifyFile("packs/ab/empty", nil)
}

func putBesideFolder(p *probe) {
	p.put("a/b", content(10))
	p.put("c", content(20))
	for _, name := range []string{"a", "c/d", "c/d/e"} {
		if err := p.b.Put(p.ctx, name, content(30)); err != nil && !isExist(err) && !errors.Is(err, backend.ErrNotFolder) {
			p.failf("Put(%q) = %v, want nil, ErrExist or ErrNotFolder", name, err)
		}
	}
	p.verifyFile("a/b", content(10))
	p.verifyFile("c", content(20))
}

func readAtRanges(p *probe) {
	want := content(1000)
	p.put("packs/ab/cd", want)
	p.put("packs/ab/empty", nil)
	tests := []struct {
		name string
		off  int64
		size int
		n    int
		end  bool // whether the error is io.EOF, not nil
	}{
		{"packs/ab/cd", 0, 1000, 1000, false},
		{"packs/ab/cd", 0, 1, 1, false},
		{"packs/ab/cd", 500, 500, 500, false},
		{"packs/ab/cd", 999, 1, 1, false},
		{"packs/ab/cd", 0, 1001, 1000, true},
		{"packs/ab/cd", 999, 2, 1, true},
		{"packs/ab/cd", 1000, 1, 0, true},
		{"packs/ab/cd", 1001, 1, 0, true},
		{"packs/ab/cd", 1 << 40, 10, 0, true},
		{"packs/ab/cd", 1<<63 - 1, 10, 0, true},
		{"packs/ab/cd", 0, 0, 0, false},
		{"packs/ab/cd", 1000, 0, 0, false},
		{"packs/ab/cd", 5000, 0, 0, false},
		{"packs/ab/empty", 0, 0, 0, false},
		{"packs/ab/empty", 0, 1, 0, true},
	}
	for _, tt := range tests {
		buf := make([]byte, tt.size)
		n, err := p.b.ReadAt(p.ctx, tt.name, buf, tt.off)
		if n != tt.n || tt.end != errors.Is(err, io.EOF) || !tt.end && err != nil {
			p.failf("ReadAt(%q, %d bytes, %d) = %d, %v, want %d, end %v", tt.name, tt.size, tt.off, n, err, tt.n, tt.end)
			continue
		}
		if n > 0 && !bytes.Equal(buf[:n], want[tt.off:tt.off+int64(n)]) {
			p.failf("ReadAt(%q, %d bytes, %d) returned other bytes than were put", tt.name, tt.size, tt.off)
		}
	}
	for _, off := range []int64{-1, -1000, -1 << 63} {
		n, err := p.b.ReadAt(p.ctx, "packs/ab/cd", make([]byte, 10), off)
		if n != 0 || err == nil || errors.Is(err, io.EOF) {
			p.failf("ReadAt at offset %d = %d, %v, want an error that is not io.EOF", off, n, err)
		}
	}
}

func notExist(p *probe) {
	absent := func(name string) {
		p.verifyNoFile(name)
		if err := p.b.Delete(p.ctx, name); !isNotExist(err) {
			p.failf("Delete(%q) = %v, want ErrNotExist", name, err)
		}
	}
	absent("config")
	absent("packs/ab/cd")
	p.put("config", content(10))
	p.put("packs/ab/cd", content(20))
	for _, name := range []string{"packs", "packs/ab", "packs/ab/c", "packs/ab/cde", "packs/ac/cd", "config/x", "config/x/y"} {
		absent(name)
	}
	p.verifyFile("config", content(10))
	p.verifyFile("packs/ab/cd", content(20))
}

func invalidNames(p *probe) {
	for _, name := range []string{
		"", "/", "/config", "config/", "packs//ab", ".", "..", "../config", "packs/../config", "packs/./ab",
		"Config", "c\x00nfig", "c nfig", "con\\fig", "c:onfig", "größe", ".config", "config.", "nul", "packs/con.txt",
		"tmp", "tmp/x", strings.Repeat("a", backend.MaxNameLength+1), strings.Repeat("a/", 5000) + "a",
	} {
		_, errStat := p.b.Stat(p.ctx, name)
		_, errRead := p.b.ReadAt(p.ctx, name, make([]byte, 1), 0)
		for method, err := range map[string]error{
			"Put":    p.b.Put(p.ctx, name, content(10)),
			"Stat":   errStat,
			"ReadAt": errRead,
			"Delete": p.b.Delete(p.ctx, name),
		} {
			if !errors.Is(err, backend.ErrInvalidName) || !errors.Is(err, fs.ErrInvalid) {
				p.failf("%s(%.40q) = %v, want ErrInvalidName", method, name, err)
			}
		}
	}
	p.put("packs/ab/cd", content(10))
	for _, prefix := range []string{"packs", "pa", "/", "/packs/", "packs//", "../", "packs/../", "tmp/", "Packs/"} {
		err := p.b.List(p.ctx, prefix, func(info backend.Info) error {
			p.failf("List(%q) shows %q", prefix, info.Name)
			return nil
		})
		if !errors.Is(err, backend.ErrInvalidName) {
			p.failf("List(%q) = %v, want ErrInvalidName", prefix, err)
		}
	}
	if got := names(p.list("")); !slices.Equal(got, []string{"packs/ab/cd"}) {
		p.failf("List shows %q after Puts of invalid names", got)
	}
}

// resolution is the coarsest resolution of a store's clock, that of FAT.
const resolution = 2 * time.Second

// sameTime reports whether the times of two descriptions of a file are the same.
func sameTime(x, y backend.Info) bool {
	return x.Modified.IsZero() == y.Modified.IsZero() && x.Modified.Sub(y.Modified).Abs() <= resolution
}

// times checks that the times of files follow their order.
func times(p *probe) {
	var last backend.Info
	for i := range 8 {
		// The names are in the opposite order.
		name := fmt.Sprintf("locks/%d", 9-i)
		p.put(name, content(i))
		info, err := p.b.Stat(p.ctx, name)
		switch {
		case err != nil:
			p.failf("Stat(%q) = %v", name, err)
		case i > 0 && info.Modified.IsZero() != last.Modified.IsZero():
			p.failf("the time of %q is %v, that of %q is %v", last.Name, last.Modified, name, info.Modified)
		case info.Modified.Before(last.Modified.Add(-resolution)):
			p.failf("%q, put at %v, is older than %q, put before it at %v", name, info.Modified, last.Name, last.Modified)
		}
		last = info
	}
	for _, info := range p.list("locks/") {
		if single, err := p.b.Stat(p.ctx, info.Name); err != nil || !sameTime(single, info) {
			p.failf("List says that %q was put at %v, Stat %v, %v", info.Name, info.Modified, single.Modified, err)
		}
	}
}

func deletes(p *probe) {
	all := []string{"config", "packs/ab/cd", "packs/ab/ce"}
	for i, name := range all {
		p.put(name, content(i+1))
	}
	for i, name := range all {
		if err := p.b.Delete(p.ctx, name); err != nil {
			p.failf("Delete(%q) = %v", name, err)
		}
		p.verifyNoFile(name)
		if err := p.b.Delete(p.ctx, name); !isNotExist(err) {
			p.failf("second Delete(%q) = %v, want ErrNotExist", name, err)
		}
		for j := i + 1; j < len(all); j++ {
			p.verifyFile(all[j], content(j+1))
		}
	}
	for _, name := range all {
		p.put(name, content(50))
		p.verifyFile(name, content(50))
	}
}
