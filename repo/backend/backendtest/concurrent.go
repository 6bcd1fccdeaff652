package backendtest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/snap-backup/snap/repo/backend"
)

// runTogether runs n goroutines that start at the same time.
func runTogether(n int, run func(i int)) {
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			run(i)
		})
	}
	close(start)
	wg.Wait()
}

func concurrentPuts(p *probe) {
	const writers = 8
	for round := range 10 {
		name := fmt.Sprintf("packs/%02d/same", round)
		var won atomic.Int32
		won.Store(-1)
		runTogether(writers, func(i int) {
			err := p.b.Put(p.ctx, name, content(1000+i))
			switch {
			case err == nil && !won.CompareAndSwap(-1, int32(i)):
				p.failf("two Puts of %q succeeded", name)
			case err != nil && !isExist(err):
				p.failf("Put of %q = %v, want nil or ErrExist", name, err)
			}
		})
		if i := won.Load(); i < 0 {
			p.failf("no Put of %q succeeded", name)
		} else {
			p.verifyFile(name, content(1000+int(i)))
		}
	}
}

func concurrentDeletes(p *probe) {
	for round := range 10 {
		name := fmt.Sprintf("locks/%02d", round)
		p.put(name, content(10))
		var deleted atomic.Int32
		runTogether(8, func(int) {
			switch err := p.b.Delete(p.ctx, name); {
			case err == nil:
				deleted.Add(1)
			case !isNotExist(err):
				p.failf("Delete of %q = %v, want nil or ErrNotExist", name, err)
			}
		})
		if n := deleted.Load(); n < 1 {
			p.failf("%d of 8 Deletes of %q succeeded", n, name)
		}
		p.verifyNoFile(name)
	}
}

func concurrentUse(p *probe) {
	p.put("config", content(5000))
	runTogether(8, func(i int) {
		for j := range 10 {
			// All goroutines make the same folders.
			name := fmt.Sprintf("packs/%02d/%d", j, i)
			want := content(100*i + j)
			p.put(name, want)
			got, err := backend.ReadAll(p.ctx, p.b, name, 1000)
			if err != nil || !bytes.Equal(got, want) {
				p.failf("%q read after its Put: %d bytes, %v", name, len(got), err)
			}
			buf := make([]byte, 100)
			if _, err := p.b.ReadAt(p.ctx, "config", buf, int64(10*j)); err != nil {
				p.failf("ReadAt(config) = %v", err)
			}
			found := false
			_ = p.b.List(p.ctx, "packs/", func(info backend.Info) error {
				found = found || info.Name == name
				return nil
			})
			if !found {
				p.failf("%q is not listed after its Put", name)
			}
			if j%2 == 0 {
				if err := p.b.Delete(p.ctx, name); err != nil {
					p.failf("Delete(%q) = %v", name, err)
				}
			}
		}
	})
	if got := len(p.list("packs/")); got != 40 {
		p.failf("%d files remain, want 40", got)
	}
}

// neverPartial reads and lists files while they are being put.
func neverPartial(p *probe) {
	const size = 2 << 20
	want := content(size)
	done := make(chan struct{})
	var watchers sync.WaitGroup
	readNew := func(name string) {
		got, err := backend.ReadAll(p.ctx, p.b, name, size)
		if err == nil && !bytes.Equal(got, want) {
			p.failf("%q was read with %d bytes that differ from the %d being put", name, len(got), size)
		}
		if err != nil && !isNotExist(err) {
			p.failf("reading %q while it is being put: %v", name, err)
		}
	}
	watchers.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			readNew("packs/ab/3")
			err := p.b.List(p.ctx, "", func(info backend.Info) error {
				if !strings.HasPrefix(info.Name, "packs/ab/") || info.Size != size {
					return errors.New("it shows " + fmt.Sprint(info))
				}
				return nil
			})
			if err != nil {
				p.failf("List while files are being put: %v", err)
			}
		}
	})
	runTogether(2, func(i int) {
		for j := range 4 {
			p.put(fmt.Sprintf("packs/ab/%d", 4*i+j), want)
		}
	})
	close(done)
	watchers.Wait()
}
