package backup2

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/protocol/devicelink"
	"github.com/snap-backup/snap/device/protocol/plist"
	"github.com/snap-backup/snap/internal/faultpoint"
)

// TestListing reads listings with a general decoder. Some numbers of items are
// just below and above the limits at which references become longer.
func TestListing(t *testing.T) {
	when := time.Date(2024, 1, 31, 12, 34, 56, 500e6, time.UTC)
	for _, n := range []int{0, 1, 2, 14, 15, 16, 61, 62, 255, 256, 16_000, 16_382} {
		var items []Item
		for i := range n {
			items = append(items, Item{Name: fmt.Sprintf("%040x", i), Size: int64(i) << 20, ModTime: when.Add(time.Duration(i) * time.Second)})
		}
		if n > 14 {
			items[3] = Item{Name: "Gäste 😀", Dir: true}
			items[4] = Item{Name: strings.Repeat("long", 1000), Size: -1}
			items[5] = Item{Name: "broken \xff"}
		}
		l := newListing(items)
		var b bytes.Buffer
		if err := l.write(&b); err != nil || int64(b.Len()) != l.size {
			t.Fatalf("%d items: %d bytes announced, %d written, %v", n, l.size, b.Len(), err)
		}
		v, err := plist.Decode(b.Bytes())
		if err != nil {
			t.Fatalf("%d items: %v", n, err)
		}
		m := devicelink.Message(v.([]any))
		code, _ := m.Int(1)
		text, _ := m.Text(2)
		names, ok := m.Dict(3)
		if len(m) != 4 || m.Name() != devicelink.StatusResponse || code != 0 || text != devicelink.NoText || !ok || len(names) != n {
			t.Fatalf("%d items: %v", n, m[:3])
		}
		for _, item := range items {
			kind := "DLFileTypeRegular"
			if item.Dir {
				kind = "DLFileTypeDirectory"
			}
			if item.ModTime.IsZero() {
				item.ModTime = time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)
			}
			got, _ := names[strings.ToValidUTF8(item.Name, "\uFFFD")].(map[string]any)
			date, _ := got["DLFileModificationDate"].(time.Time)
			if len(got) != 3 || got["DLFileType"] != kind || got["DLFileSize"] != max(item.Size, 0) || !date.Equal(item.ModTime) {
				t.Fatalf("%d items: %+v is listed as %v", n, item, got)
			}
		}
	}
}

// mostNames is the number of names in a folder of the largest devices.
const mostNames = 870_000

func manyItems(n int) []Item {
	items := make([]Item, n)
	for i := range items {
		items[i] = Item{Name: fmt.Sprintf("%040x", i), Size: int64(i), ModTime: time.Unix(int64(i), 0)}
	}
	return items
}

func TestListingMemory(t *testing.T) {
	n := mostNames / 10
	if faultpoint.All() {
		n = mostNames
	}
	items := manyItems(n)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	l := newListing(items)
	if err := l.write(io.Discard); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 40*uint64(n) {
		t.Errorf("a listing of %d names took %d bytes", n, took)
	}
	if l.size > devicelink.DefaultMaxMessage*int64(n)/mostNames {
		t.Errorf("the listing has %d bytes", l.size)
	}
}

func BenchmarkListing(b *testing.B) {
	items := manyItems(mostNames)
	b.ReportAllocs()
	for b.Loop() {
		l := newListing(items)
		b.SetBytes(l.size)
		if err := l.write(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}
