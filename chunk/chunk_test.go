package chunk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

const testPol = Polynomial(0x3DA3358B4DC173)

func cutAll(t testing.TB, c *Cutter, r io.Reader) [][]byte {
	t.Helper()
	if err := c.Reset(r); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, MaxSize)
	var out [][]byte
	for {
		p, err := c.Next(buf)
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, bytes.Clone(p))
	}
}

func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	s := [32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)}
	rand.NewChaCha8(s).Read(b)
	return b
}

func TestCutSizes(t *testing.T) {
	t.Parallel()
	c := NewCutter(testPol) // one cutter for all, to test Reset
	for _, n := range []int{0, 1, 15, 16, 4096, SQLiteSize, MinSize - 1, MinSize, MinSize + 1, 3 << 20, 20 << 20} {
		for _, db := range []bool{false, true} {
			data := random(uint64(n), n)
			if db {
				copy(data, sqliteMagic)
			}
			fixed := db && n >= len(sqliteMagic)
			got := cutAll(t, c, iotest.HalfReader(bytes.NewReader(data)))
			if !bytes.Equal(bytes.Join(got, nil), data) {
				t.Fatalf("%d bytes, database %v: chunks do not add up to the content", n, db)
			}
			for i, p := range got {
				last := i == len(got)-1
				switch {
				case len(p) == 0 || len(p) > MaxSize:
					t.Errorf("%d bytes: chunk of %d bytes", n, len(p))
				case fixed && !last && len(p) != SQLiteSize, fixed && last && len(p) > SQLiteSize:
					t.Errorf("%d bytes: database chunk %d has %d bytes", n, i, len(p))
				case !fixed && !last && len(p) < MinSize:
					t.Errorf("%d bytes: chunk %d has only %d bytes", n, i, len(p))
				}
			}
			if !fixed && n > 0 && n <= MinSize && len(got) != 1 {
				t.Errorf("%d bytes: %d chunks, want 1", n, len(got))
			}
		}
	}
}

// Photos and films are cut at fixed places, and by content if the cutter is told so.
func TestCutMedia(t *testing.T) {
	t.Parallel()
	c := NewCutter(testPol)
	for _, magic := range []string{"\xff\xd8\xff\xe0", "\x89PNG\r\n\x1a\n", "\x00\x00\x00\x24ftypheic", "\x00\x00\x00\x14ftypqt  "} {
		for _, n := range []int{len(magic), MinSize - 1, MinSize, MediaSize, MediaSize + 1, 5*MediaSize + 7} {
			media := random(uint64(n), n)
			copy(media, magic)
			got := cutAll(t, c, iotest.HalfReader(bytes.NewReader(media)))
			if !bytes.Equal(bytes.Join(got, nil), media) || len(got) != (n+MediaSize-1)/MediaSize {
				t.Errorf("%q, %d bytes: %d chunks", magic, n, len(got))
			}
			for _, p := range got[:len(got)-1] {
				if len(p) != MediaSize {
					t.Errorf("%q, %d bytes: a chunk of %d bytes", magic, n, len(p))
				}
			}
		}
	}
	media := random(1, 20<<20)
	other := bytes.Clone(media) // cut by content, since it has no magic
	copy(media, "\xff\xd8\xff")
	want := cutAll(t, c, bytes.NewReader(other))
	if err := c.Reset(bytes.NewReader(media)); err != nil || !c.Media() || c.BufferSize() != MediaSize {
		t.Fatalf("media: %v, %v, a buffer of %d", err, c.Media(), c.BufferSize())
	}
	c.CutMediaByContent()
	buf := make([]byte, c.BufferSize())
	for i := range want {
		if p, err := c.Next(buf); err != nil || len(p) != len(want[i]) || i > 0 && !bytes.Equal(p, want[i]) {
			t.Fatalf("by content: chunk %d has %d bytes, want %d; %v", i, len(p), len(want[i]), err)
		}
	}
	if _, err := c.Next(buf); err != io.EOF {
		t.Errorf("by content: %v after the last chunk", err)
	}
}

func TestInsertionMovesFewBoundaries(t *testing.T) {
	t.Parallel()
	data := random(1, 30<<20)
	changed := append([]byte("something new in front"), data...)
	c := NewCutter(testPol)
	h := NewHasher([32]byte{1})
	seen := map[ID]bool{}
	before := cutAll(t, c, bytes.NewReader(data))
	for _, p := range before {
		seen[h.ID(p)] = true
	}
	changedCount := 0
	for _, p := range cutAll(t, c, bytes.NewReader(changed)) {
		if !seen[h.ID(p)] {
			changedCount++
		}
	}
	if len(before) < 10 || changedCount > 2 {
		t.Errorf("an insertion in front changed %d of %d chunks", changedCount, len(before))
	}
}

func TestReadErrorsAreReported(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	for _, n := range []int{0, 100, MinSize, 2 << 20} {
		for _, magic := range []string{"", sqliteMagic, "\xff\xd8\xff"} {
			data := random(7, n)
			copy(data, magic)
			c := NewCutter(testPol)
			err := c.Reset(io.MultiReader(bytes.NewReader(data), iotest.ErrReader(boom)))
			buf := make([]byte, MaxSize)
			for err == nil {
				_, err = c.Next(buf)
			}
			if !errors.Is(err, boom) {
				t.Errorf("%d bytes, magic %q: got %v", n, magic, err)
			}
		}
	}
}

func TestIDDependsOnKeyAndContent(t *testing.T) {
	t.Parallel()
	a, b := NewHasher([32]byte{1}), NewHasher([32]byte{2})
	first, again := a.ID([]byte("x")), a.ID([]byte("x"))
	if first != again || first == a.ID([]byte("y")) || first == b.ID([]byte("x")) {
		t.Error("an ID does not depend on exactly the key and the content")
	}
}

func TestIDText(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		id := ID(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "id"))
		text, _ := id.MarshalText()
		var back ID
		if err := back.UnmarshalText(text); err != nil || back != id {
			t.Fatalf("%s was parsed as %s, %v", id, back, err)
		}
	})
	for _, bad := range []string{"", "00", "zz", string(make([]byte, 64))} {
		if _, err := ParseID(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func BenchmarkCut(b *testing.B) {
	data := random(3, 64<<20)
	c := NewCutter(testPol)
	buf := make([]byte, MaxSize)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if err := c.Reset(bytes.NewReader(data)); err != nil {
			b.Fatal(err)
		}
		for {
			if _, err := c.Next(buf); err != nil {
				break
			}
		}
	}
}

func BenchmarkID(b *testing.B) {
	h := NewHasher([32]byte{1})
	for _, n := range []int{4 << 10, 64 << 10, 1 << 20} {
		data := random(5, n)
		b.Run(fmt.Sprintf("%dKiB", n>>10), func(b *testing.B) {
			b.SetBytes(int64(n))
			for b.Loop() {
				h.ID(data)
			}
		})
	}
}
