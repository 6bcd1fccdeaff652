package main

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func TestMemoryLimitFor(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ live, want uint64 }{
		{0, 220}, {100, 220}, {150, 220}, {200, 273}, {320, 408}, {4000, 4548},
	} {
		if got := limitFor(test.live << 20); got != int64(test.want)<<20 {
			t.Errorf("%d MiB in use: limit of %d MiB, want %d", test.live, got>>20, test.want)
		}
	}
}

// TestMemoryLimitFollowsHeap is not parallel, since the limit is that of the process. Tests
// before it may have left memory in use.
func TestMemoryLimitFollowsHeap(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(-1))
	debug.SetMemoryLimit(memoryLimit)
	followHeap()
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	without := limitFor(stats.HeapAlloc)
	const much = 400 << 20
	waitForLimit := func(what string, enough func(int64) bool) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); !enough(debug.SetMemoryLimit(-1)); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: the limit is %d MiB", what, debug.SetMemoryLimit(-1)>>20)
			}
			runtime.GC()
		}
	}
	held := make([]byte, much) // never written, so it takes no memory
	waitForLimit("much is in use", func(limit int64) bool { return limit > without && limit > much })
	runtime.KeepAlive(held)
	held = nil
	waitForLimit("it is no longer in use", func(limit int64) bool { return limit < without+much/2 })
}
