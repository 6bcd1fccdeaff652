package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

const (
	// gcPercent is a compromise: 50 took up to a tenth more CPU time in imports, and
	// without memoryLimit larger values would take much more memory.
	gcPercent = 200
	// memoryLimit is what the program takes at most, unless more is in use. Backups also
	// run on small NAS boxes, beside other work.
	memoryLimit = 220 << 20
)

// limitMemory limits the memory of the process. GOGC and GOMEMLIMIT in the environment
// take precedence.
func limitMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
		followHeap()
	}
}

// limitFor returns the memory limit for a number of bytes in use. Some memory beyond these
// must be free: a limit near them would make the garbage collector run without a rest.
// The 48 MiB are for what is not in the heap, and for buffers that come and go.
func limitFor(live uint64) int64 {
	return max(memoryLimit, int64(live+live/8)+48<<20)
}

// followHeap sets the memory limit anew after each garbage collection.
func followHeap() {
	// The garbage collector finds this unused at its next run. It has a pointer, so that
	// it does not share its memory with other small objects, which may be in use.
	type canary struct{ _ *canary }
	runtime.AddCleanup(&canary{}, func(struct{}) {
		live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		metrics.Read(live)
		const little = 4 << 20
		if now, want := debug.SetMemoryLimit(-1), limitFor(live[0].Value.Uint64()); max(now-want, want-now) > little {
			debug.SetMemoryLimit(want)
		}
		followHeap()
	}, struct{}{})
}
