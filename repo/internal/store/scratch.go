package store

import "sync"

// scratchPool lends memory for sealed bytes and dictionaries, which are needed
// for a moment, once a block.
type scratchPool struct{ pool sync.Pool } // of *[]byte

// Scratch is lent memory of the length that was asked for. Its bytes are
// whatever the last user left. The zero value is none.
type Scratch struct {
	B    []byte
	pool *sync.Pool
	from *[]byte
}

// scratchStep is what lent memory is a multiple of, in bytes.
const scratchStep = 256 << 10

// Take lends n bytes of memory.
func (p *scratchPool) Take(n int) Scratch {
	from, _ := p.pool.Get().(*[]byte)
	if from == nil {
		from = new([]byte)
	}
	if cap(*from) < n {
		// With some room it is likely to be enough for who comes next.
		*from = make([]byte, n, (n+scratchStep-1)/scratchStep*scratchStep)
	}
	return Scratch{(*from)[:n], &p.pool, from}
}

// Free gives the memory back. Nobody may use it afterwards.
func (s Scratch) Free() {
	if s.from != nil {
		s.pool.Put(s.from)
	}
}
