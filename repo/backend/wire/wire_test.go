package wire_test

import (
	"net/http"
	"testing"

	"github.com/snap-backup/snap/repo/backend/wire"
)

func FuzzPartOf(f *testing.F) {
	f.Add("bytes 0-9/100", "10", int64(0), 10)
	f.Add("", "100", int64(0), 10)
	f.Add("bytes 95-99/100", "5", int64(95), 10)
	f.Fuzz(func(t *testing.T, contentRange, length string, off int64, size int) {
		if off < 0 || size <= 0 {
			return
		}
		n, err := wire.PartOf(http.Header{"Content-Range": {contentRange}, "Content-Length": {length}}, off, size)
		if n < 0 || n > size || err != nil && n != 0 {
			t.Errorf("PartOf(%q, %q, %d, %d) = %d, %v", contentRange, length, off, size, n, err)
		}
	})
}

func FuzzRetryAfter(f *testing.F) {
	f.Add("7")
	f.Add("Fri, 31 Dec 1999 23:59:59 GMT")
	f.Fuzz(func(t *testing.T, header string) {
		if d := wire.RetryAfter(header); d < 0 || d.Minutes() > 5 {
			t.Errorf("RetryAfter(%q) = %v", header, d)
		}
	})
}
