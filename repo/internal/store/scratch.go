package store

import "sync"

// scratchPool lends memory for sealed bytes and dictionaries, which each block
// needs briefly.
type scratchPool struct{ pool sync.Pool } // of *[]byte

// Scratch is lent memory. Its bytes are left from the last user. The zero value has
// no memory.
type Scratch struct {
	B    []byte
	pool *sync.Pool
	from *[]byte
}

// scratchStep is the multiple of bytes to which capacities are rounded up.
const scratchStep = 256 << 10

// Take lends n bytes of memory.
func (p *scratchPool) Take(n int) Scratch {
	from, _ := p.pool.Get().(*[]byte)
	if from == nil {
		from = new([]byte)
	}
	if cap(*from) < n {
		// Round up, so that the next user can probably use it, too.
		*from = make([]byte, n, (n+scratchStep-1)/scratchStep*scratchStep)
	}
	return Scratch{(*from)[:n], &p.pool, from}
}

// Free returns the memory to the pool. It must not be used afterwards.
func (s Scratch) Free() {
	if s.from != nil {
		s.pool.Put(s.from)
	}
}
