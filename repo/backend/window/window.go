// Package window reads packs of a distant store in larger pieces than it is asked for, so that
// reading many blocks of a pack takes few requests.
//
// The first read of a pack is exact: it may be the only one. With each further one, the
// piece that is read grows. The pieces are kept in memory, up to a limit, and the ones that
// were not used for longest are dropped.
//
// Only packs are read ahead. They never change, except that a heal replaces a damaged one: a
// Put or Delete by this process drops the pieces. What another process replaces may be
// returned as it was before; it is damaged then, and a caller that notices damage is told
// what was there when it was read.
package window

import (
	"context"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/snap-backup/snap/repo/backend"
)

const (
	packsFolder = "packs/"
	// second is the length of the second read of a pack. Each later one is four times as long.
	second int64 = 256 << 10
	// longest bounds a piece.
	longest = 8 << 20
	// defaultRoom bounds the bytes of all pieces.
	defaultRoom = 64 << 20
)

// Store is what [New] needs: a store as package retry returns it.
type Store interface {
	backend.Backend
	backend.AppendOnly
	backend.FileReader
	backend.Freer
	backend.NoFsyncer
	backend.Protector
	backend.RangeLister
}

// Backend reads ahead.
type Backend struct {
	Store

	room int64 // for the bytes of all pieces

	mu    sync.Mutex
	packs map[string]*pack
	used  []*piece // those that were used last are at the end
	bytes int64    // of the pieces in used
}

// pack is what is known of a pack.
type pack struct {
	name   string
	reads  int  // requests so far
	whole  bool // read it at once
	pieces []*piece
}

// piece is a range of a pack that was read, or is being read.
type piece struct {
	of   *pack
	off  int64
	size int64 // that is asked for
	done chan struct{}

	// These are set before done is closed.
	data []byte // shorter than size at the end of the pack
	err  error
}

func (p *piece) end() int64 { return p.off + p.size }

// New returns a backend that reads packs ahead.
func New(store Store) *Backend {
	return &Backend{Store: store, room: defaultRoom, packs: map[string]*pack{}}
}

// ReadAt implements [backend.Backend].
func (b *Backend) ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error) {
	if !strings.HasPrefix(name, packsFolder) || !backend.IsHashed(name) || off < 0 || len(p) == 0 || len(p) >= longest {
		return b.Store.ReadAt(ctx, name, p, off)
	}
	n := 0
	for n < len(p) {
		got, err := b.read(ctx, name, p[n:], off+int64(n))
		if err != nil || got == 0 {
			// The exact read finds out what is wrong, or where the pack ends.
			return b.Store.ReadAt(ctx, name, p, off)
		}
		n += got
	}
	return n, nil
}

// read copies the bytes from an offset on that are in one piece.
func (b *Backend) read(ctx context.Context, name string, p []byte, off int64) (int, error) {
	w, mine := b.piece(name, off, int64(len(p)))
	if mine {
		data := make([]byte, w.size)
		n, err := b.Store.ReadAt(ctx, name, data, w.off)
		if err == io.EOF { //nolint:errorlint // never wrapped
			err = nil
		}
		if data = data[:n]; n < int(w.size)/2 {
			data = slices.Clone(data) // the pack ends here
		}
		w.data, w.err = data, err
		close(w.done)
		b.keep(w)
	} else {
		select {
		case <-w.done:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	if w.err != nil || off-w.off >= int64(len(w.data)) {
		return 0, w.err
	}
	return copy(p, w.data[off-w.off:]), nil
}

// piece returns the piece of a pack that has the byte at an offset. If there is none, it
// returns a new one that the caller must read.
func (b *Backend) piece(name string, off, size int64) (w *piece, mine bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	pk := b.packs[name]
	if pk == nil {
		pk = &pack{name: name}
		b.packs[name] = pk
	}
	begin, end := int64(0), int64(-1) // of the gap around off; -1 for the end of the pack
	for _, w := range pk.pieces {
		switch {
		case w.off <= off && off < w.end():
			if i := slices.Index(b.used, w); i >= 0 {
				b.used = append(slices.Delete(b.used, i, i+1), w)
			}
			return w, false
		case w.end() <= off:
			begin = max(begin, w.end())
		case end < 0 || w.off < end:
			end = w.off
		}
	}
	length := size
	if pk.whole && len(pk.pieces) == 0 && off+size <= longest {
		off, length = 0, longest
	} else if pk.reads > 0 {
		length = max(size, min(second<<(2*min(pk.reads-1, 8)), int64(longest)))
	}
	w = &piece{of: pk, off: off, size: length, done: make(chan struct{})}
	switch {
	case end >= 0 && pk.reads > 0 && end-begin <= length:
		w.off, w.size = begin, end-begin
	case end >= 0:
		w.size = min(length, end-off)
	}
	pk.reads++
	pk.pieces = append(pk.pieces, w)
	return w, true
}

// keep adds a piece that was read to those that are kept, and drops others.
func (b *Backend) keep(w *piece) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if w.err != nil {
		w.of.remove(w)
		return
	}
	b.used = append(b.used, w)
	b.bytes += int64(len(w.data))
	for b.bytes > b.room {
		old := b.used[0]
		b.used = b.used[1:]
		b.bytes -= int64(len(old.data))
		old.of.remove(old)
	}
}

func (p *pack) remove(w *piece) {
	if i := slices.Index(p.pieces, w); i >= 0 {
		p.pieces = slices.Delete(p.pieces, i, i+1)
	}
}

// forget drops the pieces of a pack.
func (b *Backend) forget(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	pk := b.packs[name]
	if pk == nil {
		return
	}
	delete(b.packs, name)
	b.used = slices.DeleteFunc(b.used, func(w *piece) bool {
		if w.of == pk {
			b.bytes -= int64(len(w.data))
		}
		return w.of == pk
	})
}

// Kept implements [backend.Keeper]. There are no copies that outlive the process.
func (b *Backend) Kept(string) []string { return nil }

// ReadKept implements [backend.Keeper]. It reads a pack as a whole, unless that is long.
func (b *Backend) ReadKept(ctx context.Context, name string, p []byte, off int64) (int, error) {
	b.mu.Lock()
	if b.packs[name] == nil {
		b.packs[name] = &pack{name: name, whole: true}
	}
	b.mu.Unlock()
	return b.ReadAt(ctx, name, p, off)
}

// Put implements [backend.Backend].
func (b *Backend) Put(ctx context.Context, name string, data []byte) error {
	defer b.forget(name)
	return b.Store.Put(ctx, name, data)
}

// Delete implements [backend.Backend].
func (b *Backend) Delete(ctx context.Context, name string) error {
	defer b.forget(name)
	return b.Store.Delete(ctx, name)
}
