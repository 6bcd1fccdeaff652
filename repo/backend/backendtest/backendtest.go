// Package backendtest holds every implementation of backend.Backend to its
// contract: one check for every sentence that stands there. An implementation
// calls [Run] from a test of its own, and runs it under the race detector.
//
// What a single process cannot see, durability above all, is not checked here.
package backendtest

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/snap-backup/snap/repo/backend"
)

// Run runs all checks as sub-tests. open returns an empty store and registers
// with t.Cleanup what is to be done with it at the end; it is called once for
// each check.
func Run(t *testing.T, open func(t *testing.T) backend.Backend) {
	t.Helper()
	for _, c := range checks() {
		t.Run(c.name, func(t *testing.T) {
			for _, failure := range run(t.Context(), c, open(t)) {
				t.Error(failure)
			}
		})
	}
}

// check is one part of the contract. It reports to a probe and not to a
// testing.T, so that this package's own test can see a check fail.
type check struct {
	name string
	run  func(p *probe)
}

func checks() []check {
	return []check{
		{"PutStoresContent", putStoresContent},
		{"PutCopiesData", putCopiesData},
		{"PutNeverOverwrites", putNeverOverwrites},
		{"PutBesideFolder", putBesideFolder},
		{"ReadAtRanges", readAtRanges},
		{"NotExist", notExist},
		{"InvalidNames", invalidNames},
		{"ListPrefix", listPrefix},
		{"ListSorted", listSorted},
		{"ListLarge", listLarge},
		{"ListEndsWithError", listEndsWithError},
		{"ListCallsBack", listCallsBack},
		{"Delete", deletes},
		{"Cancelled", cancelled},
		{"CancelledWhileListing", cancelledWhileListing},
		{"ConcurrentPutsOfOneName", concurrentPuts},
		{"ConcurrentDeletesOfOneName", concurrentDeletes},
		{"ConcurrentUse", concurrentUse},
		{"NeverPartial", neverPartial},
	}
}

// maxFailures bounds what one check reports: a store that gets one thing wrong
// often gets it wrong a thousand times.
const maxFailures = 20

func run(ctx context.Context, c check, b backend.Backend) []string {
	p := &probe{ctx: ctx, b: b}
	c.run(p)
	return p.failures
}

// probe is the store under test and the list of what was wrong with it.
type probe struct {
	ctx context.Context
	b   backend.Backend

	mu       sync.Mutex
	failures []string
}

func (p *probe) failf(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.failures) < maxFailures {
		p.failures = append(p.failures, fmt.Sprintf(format, args...))
	}
}

// put stores a file whose name must be free.
func (p *probe) put(name string, data []byte) {
	if err := p.b.Put(p.ctx, name, data); err != nil {
		p.failf("Put(%q, %d bytes) = %v", name, len(data), err)
	}
}

// list returns what List shows under prefix.
func (p *probe) list(prefix string) []backend.Info {
	var infos []backend.Info
	err := p.b.List(p.ctx, prefix, func(info backend.Info) error {
		infos = append(infos, info)
		return nil
	})
	if err != nil {
		p.failf("List(%q) = %v", prefix, err)
	}
	return infos
}

func names(infos []backend.Info) []string {
	list := make([]string, len(infos))
	for i, info := range infos {
		list[i] = info.Name
	}
	return list
}
