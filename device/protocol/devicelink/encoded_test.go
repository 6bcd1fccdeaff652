package devicelink

import (
	"io"
	"reflect"
	"testing"

	"github.com/snap-backup/snap/device/protocol/plist"
)

func TestWriteEncoded(t *testing.T) {
	host, device := pair(t, Options{})
	list, err := plist.EncodeBinary([]any{"Name", "text"})
	if err != nil {
		t.Fatal(err)
	}
	halves := func(b []byte) func(io.Writer) error {
		return func(w io.Writer) error {
			if _, err := w.Write(b[:10]); err != nil {
				return err
			}
			_, err := w.Write(b[10:])
			return err
		}
	}
	go host.WriteEncoded(int64(len(list)), halves(list))
	if m, err := device.ReadMessage(); err != nil || !reflect.DeepEqual(m, Message{"Name", "text"}) {
		t.Fatal(m, err)
	}
	for _, test := range []struct {
		size int64
		b    []byte
	}{
		{int64(len(list)) - 1, list},
		{int64(len(list)) + 1, list},
		{0, list},
		{1 << 32, list},
	} {
		host, device := pair(t, Options{})
		go io.Copy(io.Discard, device.c)
		if err := host.WriteEncoded(test.size, halves(test.b)); err == nil {
			t.Errorf("%d bytes were sent as %d", len(test.b), test.size)
		}
	}
}
