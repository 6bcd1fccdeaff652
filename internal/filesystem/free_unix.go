//go:build linux || darwin

package filesystem

import (
	"math/bits"

	"golang.org/x/sys/unix"
)

func measure(dir string) (space, error) {
	var st unix.Statfs_t
	if err := Retry(func() error { return unix.Statfs(dir, &st) }); err != nil {
		return space{}, err
	}
	size := fragment(&st)
	return space{times(st.Bavail, size), times(st.Blocks, size)}, nil
}

// times returns the product, or the largest number if the product is larger. Shares
// without a quota can report more than 64 bits hold.
func times(blocks, size uint64) uint64 {
	over, product := bits.Mul64(blocks, size)
	if over != 0 {
		return 1<<64 - 1
	}
	return product
}
