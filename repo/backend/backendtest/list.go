package backendtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/snap-backup/snap/repo/backend"
)

func listPrefix(p *probe) {
	if got := p.list(""); len(got) != 0 {
		p.failf("List of an empty store shows %q", names(got))
	}
	for i, name := range []string{"config", "packs/ab/1", "packs/ab/2", "packs/ac/1", "packs-old/ab/1", "packsx", "snapshots/1"} {
		p.put(name, content(i))
	}
	tests := []struct {
		prefix string
		want   []string
	}{
		{"", []string{"config", "packs-old/ab/1", "packs/ab/1", "packs/ab/2", "packs/ac/1", "packsx", "snapshots/1"}},
		{"packs/", []string{"packs/ab/1", "packs/ab/2", "packs/ac/1"}},
		{"packs/ab/", []string{"packs/ab/1", "packs/ab/2"}},
		{"packs/a/", nil},
		{"keys/", nil},
		{"keys/a/b/", nil},
	}
	for _, tt := range tests {
		if got := names(p.list(tt.prefix)); !slices.Equal(got, tt.want) {
			p.failf("List(%q) shows %q, want %q", tt.prefix, got, tt.want)
		}
	}
	err := p.b.List(p.ctx, "config/", func(info backend.Info) error { p.failf("List of config/ shows %+v", info); return nil })
	if err != nil && !errors.Is(err, backend.ErrNotFolder) {
		p.failf("List of config/ = %v, want nil or ErrNotFolder", err)
	}
	for _, info := range p.list("packs/") {
		if stat, err := p.b.Stat(p.ctx, info.Name); err != nil || stat.Name != info.Name || stat.Size != info.Size || !sameTime(stat, info) {
			p.failf("List shows %+v, Stat %+v, %v", info, stat, err)
		}
	}
}

func listSorted(p *probe) {
	// "-" and "." sort before "/", digits and letters after it.
	want := []string{"a", "b-c/d", "b.c", "b/a/z", "b/a0", "b/c", "b0", "b_/c", "c"}
	for _, i := range []int{3, 8, 0, 5, 7, 2, 6, 1, 4} {
		p.put(want[i], content(i))
	}
	if got := names(p.list("")); !slices.Equal(got, want) {
		p.failf("List shows %q, want %q", got, want)
	}
}

func listRange(p *probe) {
	b, ok := p.b.(backend.RangeLister)
	if !ok || errors.Is(b.ListRange(p.ctx, "", "", func(backend.Info) error { return nil }), errors.ErrUnsupported) {
		return
	}
	all := []string{"a", "b-c/d", "b.c", "b/a/z", "b/a0", "b/c", "b0", "b_/c", "c"}
	for i, name := range all {
		p.put(name, content(i))
	}
	for _, r := range [][2]string{{"", ""}, {"", "b/"}, {"b/", "b0"}, {"b0", ""}, {"b/b", "b_/d"}, {"c", ""}, {"d", "a"}, {"", "a"}} {
		want := slices.DeleteFunc(slices.Clone(all), func(name string) bool { return name <= r[0] || r[1] != "" && name >= r[1] })
		var got []backend.Info
		err := b.ListRange(p.ctx, r[0], r[1], func(info backend.Info) error { got = append(got, info); return nil })
		if err != nil || !slices.Equal(names(got), want) {
			p.failf("ListRange(%q, %q) shows %q, want %q; error %v", r[0], r[1], names(got), want, err)
		}
	}
	stop := errors.New("stop")
	if err := b.ListRange(p.ctx, "", "", func(backend.Info) error { return stop }); err != stop { //nolint:errorlint // unchanged
		p.failf("ListRange returns %v, want the error of its caller", err)
	}
}

// largeList is a number of files that servers cannot list in one response: they
// commonly list at most 1000.
const largeList = 1100

func listLarge(p *probe) {
	want := make([]string, largeList)
	for i := range want {
		want[i] = fmt.Sprintf("packs/%02x/%04x", i%7, i)
	}
	var wg sync.WaitGroup
	for part := range slices.Chunk(want, 140) {
		wg.Go(func() {
			for _, name := range part {
				p.put(name, []byte(name))
			}
		})
	}
	wg.Wait()
	slices.Sort(want)
	if got := names(p.list("packs/")); !slices.Equal(got, want) {
		p.failf("List of %d files shows %d, or other files, or is not sorted", len(want), len(got))
	}
}

func listEndsWithError(p *probe) {
	for _, name := range []string{"a", "b/1", "b/2", "c"} {
		p.put(name, nil)
	}
	stop := errors.New("enough")
	for _, last := range []string{"a", "b/1", "c"} {
		var seen string
		err := p.b.List(p.ctx, "", func(info backend.Info) error {
			if seen == last {
				p.failf("List continued with %q after an error at %q", info.Name, last)
			}
			if seen = info.Name; seen == last {
				return stop
			}
			return nil
		})
		if err != stop { //nolint:errorlint // the error must not be wrapped
			p.failf("List = %v, want the unchanged error of its callback", err)
		}
	}
}

func listCallsBack(p *probe) {
	for _, name := range []string{"packs/aa/1", "packs/aa/2", "packs/ab/1", "packs/ac/1"} {
		p.put(name, content(10))
	}
	var seen []string
	err := p.b.List(p.ctx, "packs/", func(info backend.Info) error {
		seen = append(seen, info.Name)
		if _, err := p.b.ReadAt(p.ctx, info.Name, make([]byte, 10), 0); err != nil {
			return err
		}
		if err := p.b.Put(p.ctx, "index/"+fmt.Sprint(len(seen)), nil); err != nil {
			return err
		}
		return p.b.Delete(p.ctx, info.Name)
	})
	if err != nil || len(seen) != 4 {
		p.failf("List with a callback that reads, puts and deletes = %v, showed %q", err, seen)
	}
	if got := len(p.list("packs/")); got != 0 {
		p.failf("%d files remain after deleting all", got)
	}
	if got := len(p.list("index/")); got != 4 {
		p.failf("%d files exist, want the 4 put while listing", got)
	}
}

func cancelled(p *probe) {
	p.put("config", content(10))
	ctx, cancel := context.WithCancel(p.ctx)
	cancel()
	_, errStat := p.b.Stat(ctx, "config")
	_, errRead := p.b.ReadAt(ctx, "config", make([]byte, 1), 0)
	for method, err := range map[string]error{
		"Put":                     p.b.Put(ctx, "keys/a", content(10)),
		"Put of a taken name":     p.b.Put(ctx, "config", content(10)),
		"Stat":                    errStat,
		"ReadAt":                  errRead,
		"Delete":                  p.b.Delete(ctx, "config"),
		"List":                    p.b.List(ctx, "", func(backend.Info) error { return errors.New("called") }),
		"List of an empty folder": p.b.List(ctx, "keys/", func(backend.Info) error { return errors.New("called") }),
	} {
		if !errors.Is(err, context.Canceled) {
			p.failf("%s with a cancelled context = %v, want context.Canceled", method, err)
		}
	}
	p.verifyNoFile("keys/a")
	p.verifyFile("config", content(10))

	expired, cancel := context.WithTimeout(p.ctx, 0)
	defer cancel()
	if err := p.b.Put(expired, "keys/a", nil); !errors.Is(err, context.DeadlineExceeded) {
		p.failf("Put after the deadline = %v, want context.DeadlineExceeded", err)
	}
	p.verifyNoFile("keys/a")
}

func cancelledWhileListing(p *probe) {
	for i := range 50 {
		p.put(fmt.Sprintf("keys/%02d", i), nil)
	}
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	n := 0
	err := p.b.List(ctx, "", func(backend.Info) error {
		n++
		cancel()
		return nil
	})
	// The contract allows a running List to complete.
	if err == nil && n != 50 || err != nil && !errors.Is(err, context.Canceled) {
		p.failf("List cancelled by its callback showed %d of 50 and returned %v", n, err)
	}
}
