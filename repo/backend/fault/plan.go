package fault

import (
	"io"
	"slices"
	"strings"

	"github.com/snap-backup/snap/repo/backend"
)

// merge returns a plan that calls all plans, since they may count operations, and
// returns their first Action that is not zero.
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

// Once refuses the n-th operation, counted from 1, with err.
func Once(n int, err error) Plan {
	return func(c Call) Action {
		if c.N == n {
			return Action{Before: err}
		}
		return Action{}
	}
}

// OnceAfter runs the n-th operation but returns err, as if the response of a server
// was lost.
func OnceAfter(n int, err error) Plan {
	return func(c Call) Action {
		if c.N == n {
			return Action{After: err}
		}
		return Action{}
	}
}

// From refuses the n-th operation and all later ones, like a disk that was
// disconnected.
func From(n int, err error) Plan {
	return func(c Call) Action {
		if c.N >= n {
			return Action{Before: err}
		}
		return Action{}
	}
}

// On applies plan only to operations of one kind on names that begin with prefix. N and
// OfOp count only these operations.
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

// Full simulates a store with room for the given number of bytes: Puts that do not fit
// fail with [backend.ErrNoSpace]. Deleting frees nothing.
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

// Unreadable makes the given operations on one file fail with err, each time. Reads fail
// if no operation is given. Other files can be read: only a sector of the disk is bad, or
// the file belongs to another user. A file that replaces it, after a Delete, can be read.
func Unreadable(name string, err error, ops ...Op) Plan {
	if len(ops) == 0 {
		ops = []Op{ReadAt}
	}
	deleted := false
	return func(c Call) Action {
		if c.Name == name && c.Op == Delete {
			deleted = true
		}
		if c.Name != name || deleted || !slices.Contains(ops, c.Op) {
			return Action{}
		}
		return Action{Before: err}
	}
}

// FlipBit inverts a bit, 0 to 7, of the byte at offset whenever a file is read.
func FlipBit(name string, offset int64, bit uint) Plan {
	return onRead(name, func(p []byte, off int64, n int, err error) (int, error) {
		if i := offset - off; i >= 0 && i < int64(n) {
			p[i] ^= 1 << (bit % 8)
		}
		return n, err
	})
}

// Overwrite inverts a bit of each of 16 bytes from an offset on whenever a file is read.
func Overwrite(name string, offset int64) Plan {
	return onRead(name, func(p []byte, off int64, n int, err error) (int, error) {
		for i := max(offset-off, 0); i < min(offset+16-off, int64(n)); i++ {
			p[i] ^= 8
		}
		return n, err
	})
}

// Truncate makes a file end at size whenever it is read. Stat and List still show its
// full size.
func Truncate(name string, size int64) Plan {
	return onRead(name, func(p []byte, off int64, n int, err error) (int, error) {
		if left := max(size-off, 0); left < int64(n) {
			clear(p[left:n])
			return int(left), io.EOF
		}
		return n, err
	})
}

// ShortRead makes every read of more than one byte of a file return only half of the
// bytes, without an error. This breaks the contract of ReadAt.
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
