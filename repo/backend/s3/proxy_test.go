package s3_test

import (
	"testing"
	"time"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/proxytest"
	"github.com/snap-backup/snap/repo/backend/s3"
	"github.com/snap-backup/snap/repo/backend/s3test"
)

// TestInteropBadLine reaches a store over lines that are slow, end or stop.
func TestInteropBadLine(t *testing.T) {
	g := s3test.Start(t)
	p := proxytest.Start(t, g.Addr)
	direct := openBucket(t, g, "bucket/line")
	// Tests of leaks must not count connections that wait for more requests.
	cfg, err := s3.Parse("s3:http://" + p.Addr + "/bucket/line")
	if err != nil {
		t.Fatal(err)
	}
	const stall = 400 * time.Millisecond
	proxytest.Run(t, proxytest.Store{
		Proxy:  p,
		Direct: patient(direct),
		Open: func(t testing.TB) (backend.Backend, error) {
			return s3.Open(t.Context(), cfg, s3.Options{Keys: testKeys, Stall: stall})
		},
		// A put that was lost asks whether its object is there.
		Patience: 3*stall + time.Second,
		Sample:   12,
	})
}
