package bplist_test

import (
	"bytes"
	"math"
	"testing"
	"time"

	"howett.net/plist"

	"github.com/snap-backup/snap/device/protocol/bplist"
)

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	data, err := plist.Marshal(v, plist.BinaryFormat)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestValues reads values that an independent encoder wrote.
func TestValues(t *testing.T) {
	date := time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)
	long := bytes.Repeat([]byte{7}, 70000)
	data := marshal(t, map[string]any{
		"int": -3, "big": uint64(math.MaxUint64), "real": 2.25, "yes": true, "date": date, "data": long,
		"ascii": "plain", "wide": "ä€😀", "uid": plist.UID(300), "list": []any{1, 2, "three"}, "sub": map[string]any{"k": "v"},
	})
	d, err := bplist.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Validate(); err != nil {
		t.Fatal(err)
	}
	top, ok := d.Dict(d.Top())
	if !ok || top.Keys.Len() != 11 || top.Values.Len() != 11 {
		t.Fatalf("the root has %d keys", top.Keys.Len())
	}
	ref := func(name string) bplist.Ref {
		t.Helper()
		r, ok := d.Lookup(top, name)
		if !ok {
			t.Fatalf("%s is missing", name)
		}
		return r
	}
	if v, ok := d.Int(ref("int")); !ok || v != -3 {
		t.Errorf("int %d, %v", v, ok)
	}
	if v, ok := d.Uint(ref("big")); !ok || v != math.MaxUint64 {
		t.Errorf("big %d, %v", v, ok)
	}
	if v, ok := d.Int(ref("big")); ok {
		t.Errorf("big as signed: %d", v)
	}
	if v, ok := d.Real(ref("real")); !ok || v != 2.25 {
		t.Errorf("real %v, %v", v, ok)
	}
	if v, ok := d.Bool(ref("yes")); !ok || !v {
		t.Errorf("yes %v, %v", v, ok)
	}
	if v, ok := d.Date(ref("date")); !ok || !v.Equal(date) {
		t.Errorf("date %v, %v", v, ok)
	}
	if v, ok := d.Data(ref("data")); !ok || !bytes.Equal(v, long) {
		t.Errorf("data of %d bytes, %v", len(v), ok)
	}
	for name, want := range map[string]string{"ascii": "plain", "wide": "ä€😀"} {
		if v, ok := d.String(ref(name)); !ok || v != want {
			t.Errorf("%s %q, %v", name, v, ok)
		}
	}
	if v, ok := d.UID(ref("uid")); !ok || v != 300 {
		t.Errorf("uid %d, %v", v, ok)
	}
	list, ok := d.Array(ref("list"))
	if !ok || list.Len() != 3 {
		t.Fatalf("list of %d, %v", list.Len(), ok)
	}
	if v, ok := d.String(list.At(2)); !ok || v != "three" {
		t.Errorf("list contains %q, %v", v, ok)
	}
	sub, _ := d.Dict(ref("sub"))
	if _, ok := d.Lookup(sub, "none"); ok {
		t.Error("a missing key was found")
	}
	// No value is returned as another type.
	if _, ok := d.Int(ref("ascii")); ok {
		t.Error("a text was read as a number")
	}
	if _, ok := d.Data(ref("list")); ok {
		t.Error("a list was read as data")
	}
	if _, ok := d.Bool(ref("int")); ok {
		t.Error("a number was read as a boolean")
	}
}

func TestDamage(t *testing.T) {
	data := marshal(t, map[string]any{"a": []any{"text", 1, []byte("data"), map[string]any{"b": 2.5}}})
	for cut := range data {
		if _, err := bplist.Parse(data[:cut]); err == nil {
			t.Errorf("accepted when cut to %d of %d bytes", cut, len(data))
		}
	}
	for at := range data {
		for _, v := range []byte{0, 0xff, data[at] ^ 0x80, data[at] + 1} {
			bad := bytes.Clone(data)
			bad[at] = v
			visit(bad)
		}
	}
}

// visit reads every object as every type.
func visit(data []byte) {
	d, err := bplist.Parse(data)
	if err != nil {
		return
	}
	d.Validate()
	for i := range min(d.Len(), 1000) {
		r := bplist.Ref(i)
		d.Int(r)
		d.Uint(r)
		d.Bool(r)
		d.Real(r)
		d.Date(r)
		d.Data(r)
		d.UID(r)
		d.String(r)
		d.ASCII(r)
		if list, ok := d.Array(r); ok && list.Len() > 0 {
			d.Int(list.At(list.Len() - 1))
		}
		if dict, ok := d.Dict(r); ok {
			d.Lookup(dict, "a")
		}
	}
	d.Int(math.MaxUint32)
}

func FuzzDoc(f *testing.F) {
	f.Add(marshal(f, map[string]any{"a": []any{"text", 1, []byte("data"), map[string]any{"b": 2.5}}}))
	f.Add(marshal(f, []any{"ä", true, uint64(1 << 63), time.Unix(0, 0)}))
	f.Add([]byte("bplist00"))
	f.Fuzz(func(t *testing.T, data []byte) { visit(data) })
}
