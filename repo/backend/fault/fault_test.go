package fault_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/backendtest"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
)

var ctx = context.Background()

func TestContractWithoutFaults(t *testing.T) {
	t.Parallel()
	backendtest.Run(t, func(*testing.T) backend.Backend {
		return fault.New(memory.New(), nil, fault.Once(0, fault.ErrInjected))
	})
}

// steps has one operation of each kind.
var steps = []struct {
	op  fault.Op
	run func(b backend.Backend) error
}{
	{fault.Put, func(b backend.Backend) error { return b.Put(ctx, "keys/a", []byte("x")) }},
	{fault.Stat, func(b backend.Backend) error { _, err := b.Stat(ctx, "keys/a"); return err }},
	{fault.ReadAt, func(b backend.Backend) error { _, err := b.ReadAt(ctx, "keys/a", make([]byte, 1), 0); return err }},
	{fault.List, func(b backend.Backend) error {
		return b.List(ctx, "keys/", func(backend.Info) error { return nil })
	}},
	{fault.Delete, func(b backend.Backend) error { return b.Delete(ctx, "keys/a") }},
}

func exists(b backend.Backend) bool { _, err := b.Stat(ctx, "keys/a"); return err == nil }

func TestOnce(t *testing.T) {
	t.Parallel()
	for i, step := range steps {
		for _, after := range []bool{false, true} {
			plan := fault.Once(i+1, fault.ErrInjected)
			if after {
				plan = fault.OnceAfter(i+1, fault.ErrInjected)
			}
			inner := memory.New()
			b := fault.New(inner, plan)
			for j, s := range steps[:i+1] {
				before := exists(inner)
				err := s.run(b)
				if (j == i) != errors.Is(err, fault.ErrInjected) {
					t.Errorf("fault at %v (after: %v): %v = %v", step.op, after, s.op, err)
				}
				if j == i && (exists(inner) != before) != (after && (s.op == fault.Put || s.op == fault.Delete)) {
					t.Errorf("fault at %v (after: %v): the file existed: %v, and exists now: %v", step.op, after, before, exists(inner))
				}
			}
			if b.Count() != i+1 || b.Count(step.op) != 1 {
				t.Errorf("counted %d operations, %d of %v", b.Count(), b.Count(step.op), step.op)
			}
			if err := b.List(ctx, "", func(backend.Info) error { return nil }); err != nil {
				t.Errorf("after the fault: %v", err)
			}
		}
	}
}

func TestOwnErrorBeatsAfter(t *testing.T) {
	t.Parallel()
	b := fault.New(memory.New(), fault.OnceAfter(1, fault.ErrInjected))
	if _, err := b.Stat(ctx, "keys/a"); !errors.Is(err, backend.ErrNotExist) {
		t.Errorf("Stat = %v, want the store's own error", err)
	}
}

func TestFrom(t *testing.T) {
	t.Parallel()
	b := fault.New(memory.New(), fault.From(2, fault.ErrInjected))
	for i, step := range steps {
		if err := step.run(b); (i >= 1) != errors.Is(err, fault.ErrInjected) {
			t.Errorf("operation %d: %v", i+1, err)
		}
	}
}

func TestOnCountsItsOwn(t *testing.T) {
	t.Parallel()
	inner := memory.New()
	b := fault.New(inner, fault.On(fault.Put, "packs/", fault.Once(2, fault.ErrInjected)))
	for i, name := range []string{"packs/1", "index/1", "index/2", "packs/2", "packs/3"} {
		if _, err := b.Stat(ctx, "packs/1"); i > 0 && err != nil {
			t.Error(err)
		}
		if err := b.Put(ctx, name, nil); (name == "packs/2") != errors.Is(err, fault.ErrInjected) {
			t.Errorf("Put(%s) = %v", name, err)
		}
	}
}

func TestFull(t *testing.T) {
	t.Parallel()
	b := fault.New(memory.New(), fault.Full(100))
	for i, tt := range []struct {
		size int
		fits bool
	}{{60, true}, {41, false}, {40, true}, {1, false}, {0, true}} {
		err := b.Put(ctx, fmt.Sprintf("packs/%d", i), make([]byte, tt.size))
		if (err == nil) != tt.fits || err != nil && !backend.IsNoSpace(err) {
			t.Errorf("Put %d of %d bytes = %v", i, tt.size, err)
		}
	}
}

func TestDamagedReads(t *testing.T) {
	t.Parallel()
	want := bytes.Repeat([]byte{0xf0}, 10)
	flipped := bytes.Clone(want)
	flipped[4] ^= 8
	tests := []struct {
		about string
		plan  fault.Plan
		off   int64
		size  int
		want  []byte
		err   error
	}{
		{"flip within", fault.FlipBit("f", 4, 3), 0, 10, flipped, nil},
		{"flip at an offset", fault.FlipBit("f", 4, 3), 4, 2, flipped[4:6], nil},
		{"flip elsewhere", fault.FlipBit("f", 4, 3), 5, 5, want[5:], nil},
		{"flip in another file", fault.FlipBit("g", 4, 3), 0, 10, want, nil},
		{"overwrite", fault.Overwrite("f", 9), 8, 2, []byte{want[8], want[9] ^ 8}, nil},
		{"flip behind the end", fault.FlipBit("f", 10, 3), 0, 20, want, io.EOF},
		{"truncate within", fault.Truncate("f", 6), 2, 8, want[2:6], io.EOF},
		{"truncate before", fault.Truncate("f", 6), 7, 2, nil, io.EOF},
		{"truncate behind", fault.Truncate("f", 6), 2, 4, want[2:6], nil},
		{"short", fault.ShortRead("f"), 0, 10, want[:5], nil},
		{"short, one byte", fault.ShortRead("f"), 0, 1, want[:1], nil},
	}
	for _, tt := range tests {
		inner := memory.New()
		if err := inner.Put(ctx, "f", want); err != nil {
			t.Fatal(err)
		}
		b := fault.New(inner, tt.plan)
		for range 2 { // every read is damaged, not only the first
			p := make([]byte, tt.size)
			n, err := b.ReadAt(ctx, "f", p, tt.off)
			if !bytes.Equal(p[:n], tt.want) || err != tt.err {
				t.Errorf("%s: %x, %v, want %x, %v", tt.about, p[:n], err, tt.want, tt.err)
			}
			if !bytes.Equal(p[n:], make([]byte, tt.size-n)) {
				t.Errorf("%s: the buffer has more than the %d bytes read", tt.about, n)
			}
		}
		if got, err := backend.ReadAll(ctx, inner, "f", 100); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: the store itself was damaged", tt.about)
		}
	}
}

func TestFirstPlanDecidesAndAllCount(t *testing.T) {
	t.Parallel()
	other := errors.New("other")
	b := fault.New(memory.New(), fault.Once(1, fault.ErrInjected), fault.On(fault.Put, "", fault.Once(1, other)), fault.On(fault.Put, "", fault.Once(2, other)))
	if err := b.Put(ctx, "a", nil); !errors.Is(err, fault.ErrInjected) {
		t.Errorf("first Put = %v", err)
	}
	if err := b.Put(ctx, "a", nil); !errors.Is(err, other) {
		t.Errorf("second Put = %v", err)
	}
	b.SetPlan()
	if b.Count() != 0 {
		t.Errorf("%d operations after SetPlan", b.Count())
	}
	if err := b.Put(ctx, "a", nil); err != nil || b.Count(fault.Put) != 1 {
		t.Errorf("Put without a plan = %v, counted %d", err, b.Count(fault.Put))
	}
}

func TestTexts(t *testing.T) {
	t.Parallel()
	b := fault.New(memory.New(), fault.Once(1, fault.ErrInjected))
	err := b.Put(ctx, "keys/a", nil)
	if err == nil || !strings.Contains(err.Error(), "put keys/a") {
		t.Errorf("error text %q does not name the operation", err)
	}
	if got := fault.Op(99).String(); got != "op(99)" {
		t.Errorf("unknown operation is called %q", got)
	}
}
