// Package backendtest tests implementations of backend.Backend: it has a check for each
// sentence of the contract. The tests of every implementation call [Run], and also run
// under the race detector.
//
// The package cannot check what a single process does not see, such as durability.
package backendtest

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/repo/backend"
)

// Run runs all checks as subtests. For each check, it calls open, which returns an
// empty store and closes it with t.Cleanup.
func Run(t *testing.T, open func(t *testing.T) backend.Backend) {
	t.Helper()
	runChecks(t, open, !testing.Short())
}

// RunSmall is Run without the check that stores many files, unless SNAP_TEST_ALL is
// set. Use it for variants of an implementation if another test calls Run for the
// implementation itself. With -short, Run omits that check, too.
func RunSmall(t *testing.T, open func(t *testing.T) backend.Backend) {
	t.Helper()
	runChecks(t, open, faultpoint.All())
}

func runChecks(t *testing.T, open func(t *testing.T) backend.Backend, large bool) {
	t.Helper()
	for _, c := range checks() {
		if c.name == "ListLarge" && !large {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			for _, failure := range run(t.Context(), c, open(t)) {
				t.Error(failure)
			}
		})
	}
}

// check tests one part of the contract. It reports to a probe instead of a testing.T,
// so that this package's own test can run checks that fail.
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
		{"ListRange", listRange},
		{"ListLarge", listLarge},
		{"ListEndsWithError", listEndsWithError},
		{"ListCallsBack", listCallsBack},
		{"Times", times},
		{"Delete", deletes},
		{"Cancelled", cancelled},
		{"CancelledWhileListing", cancelledWhileListing},
		{"ConcurrentPutsOfOneName", concurrentPuts},
		{"ConcurrentDeletesOfOneName", concurrentDeletes},
		{"ConcurrentUse", concurrentUse},
		{"NeverPartial", neverPartial},
	}
}

// maxFailures is the maximum number of failures that one check reports. A faulty store
// can fail thousands of times.
const maxFailures = 20

func run(ctx context.Context, c check, b backend.Backend) []string {
	p := &probe{ctx: ctx, b: b}
	c.run(p)
	return p.failures
}

// probe is a store under test and the failures found in it.
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

// put stores a file with a name that is not taken.
func (p *probe) put(name string, data []byte) {
	if err := p.b.Put(p.ctx, name, data); err != nil {
		p.failf("Put(%q, %d bytes) = %v", name, len(data), err)
	}
}

// list returns the files that List shows for a prefix.
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
