package fault

import (
	"io"
	"strings"

	"github.com/snap-backup/snap/repo/backend"
)

// merge asks all plans, so that those that count miss nothing, and takes the
// first answer.
func merge(plans []Plan) Plan {
	return func(c Call) Action {
		var chosen Action
		for _, plan := range plans {
			if plan == nil {
				continue
			}
			if a := plan(c); chosen.isZero() {
				chosen = a
			}
		}
		return chosen
	}
}

// Once refuses the n-th operation of all, counted from 1, with err.
func Once(n int, err error) Plan {
	return func(c Call) Action {
		if c.N == n {
			return Action{Before: err}
		}
		return Action{}
	}
}

// OnceAfter carries the n-th operation of all out, but reports err: what a
// caller sees when the answer of a server is lost.
func OnceAfter(n int, err error) Plan {
	return func(c Call) Action {
		if c.N == n {
			return Action{After: err}
		}
		return Action{}
	}
}

// From refuses the n-th operation of all and every later one, as a disk that
// was pulled out does.
func From(n int, err error) Plan {
	return func(c Call) Action {
		if c.N >= n {
			return Action{Before: err}
		}
		return Action{}
	}
}

// On applies plan only to operations of one kind on names that begin with
// prefix, and counts (N and OfOp) only those.
func On(op Op, prefix string, plan Plan) Plan {
	n := 0
	return func(c Call) Action {
		if c.Op != op || !strings.HasPrefix(c.Name, prefix) {
			return Action{}
		}
		n++
		c.N, c.OfOp = n, n
		return plan(c)
	}
}

// Full lets Puts through until they have brought more than the given number
// of bytes; the one that goes beyond, and later ones that do not fit in what
// is left, fail with [backend.ErrNoSpace]. Deleting gives nothing back.
func Full(bytes int64) Plan {
	left := bytes
	return func(c Call) Action {
		if c.Op != Put {
			return Action{}
		}
		if int64(c.Size) > left {
			return Action{Before: backend.ErrNoSpace}
		}
		left -= int64(c.Size)
		return Action{}
	}
}

// FlipBit inverts one bit of a file's content whenever it is read: bit 0 to 7
// of the byte at offset.
func FlipBit(name string, offset int64, bit uint) Plan {
	return onRead(name, func(p []byte, off int64, n int, err error) (int, error) {
		if i := offset - off; i >= 0 && i < int64(n) {
			p[i] ^= 1 << (bit % 8)
		}
		return n, err
	})
}

// Truncate makes a file look as if it ended at size whenever it is read. Stat
// and List still show its whole size.
func Truncate(name string, size int64) Plan {
	return onRead(name, func(p []byte, off int64, n int, err error) (int, error) {
		if left := max(size-off, 0); left < int64(n) {
			clear(p[left:n])
			return int(left), io.EOF
		}
		return n, err
	})
}

// ShortRead makes every read of a file of more than one byte give only half of
// it, without an error: a store that breaks the contract of ReadAt.
func ShortRead(name string) Plan {
	return onRead(name, func(p []byte, _ int64, n int, err error) (int, error) {
		if n < 2 {
			return n, err
		}
		clear(p[n/2 : n])
		return n / 2, nil
	})
}

func onRead(name string, read func(p []byte, off int64, n int, err error) (int, error)) Plan {
	return func(c Call) Action {
		if c.Op != ReadAt || c.Name != name {
			return Action{}
		}
		return Action{Read: read}
	}
}
