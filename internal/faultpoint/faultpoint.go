// Package faultpoint chooses the points of failure that a test tries.
//
// A test that makes an operation fail at each of its steps, or interrupts it
// there, is thorough but slow. By default it tries a random sample of the steps.
// If SNAP_TEST_ALL is set, as in CI, it tries every step. With -short it tries a
// smaller sample. A sample depends on the test's name and on a seed, which the
// test logs. To repeat a sample, set SNAP_TEST_SEED to that seed.
package faultpoint

import (
	"hash/fnv"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
)

// With -short, the size of a sample is divided by shortDivisor, but is at least shortLeast.
const (
	shortDivisor = 8
	shortLeast   = 2
)

// seed is the seed of all samples of this process.
var seed = sync.OnceValue(func() uint64 {
	if s := os.Getenv("SNAP_TEST_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			panic("SNAP_TEST_SEED is not a number: " + s)
		}
		return n
	}
	return rand.Uint64()
})

// All reports whether SNAP_TEST_ALL is set: whether tests should try every point of
// failure, or, if they have none, all of their cases and their largest sizes.
func All() bool { return os.Getenv("SNAP_TEST_ALL") != "" }

// Rand returns the source of a test's random choices, and logs the seed that
// repeats them.
func Rand(t testing.TB) *rand.Rand {
	t.Helper()
	t.Logf("random choices of this test: SNAP_TEST_SEED=%d", seed())
	h := fnv.New64a()
	_, _ = h.Write([]byte(t.Name()))
	return rand.New(rand.NewPCG(seed(), h.Sum64()))
}

// Choose returns the points to try, sorted, out of the n points 0 to n-1. If All
// returns true, these are all n points. Otherwise they are want points, or fewer
// with -short: the last point, and others chosen at random.
func Choose(t testing.TB, n, want int) []int {
	t.Helper()
	if n == 0 || want <= 0 && !All() {
		return nil
	}
	// Always try the last step, since it is the one that commits.
	return append(sample(t, n-1, shorten(want)-1), n-1)
}

// Sample is like Choose, but chooses all points at random.
func Sample(t testing.TB, n, want int) []int {
	t.Helper()
	return sample(t, n, shorten(want))
}

// shorten returns the size of a sample, which is smaller with -short.
func shorten(want int) int {
	if testing.Short() {
		return max(min(want, shortLeast), want/shortDivisor)
	}
	return want
}

func sample(t testing.TB, n, want int) []int {
	t.Helper()
	points := make([]int, n)
	for i := range points {
		points[i] = i
	}
	if All() || want >= n {
		return points
	}
	rng := Rand(t)
	rng.Shuffle(n, func(i, j int) { points[i], points[j] = points[j], points[i] })
	points = points[:want]
	slices.Sort(points)
	return points
}
