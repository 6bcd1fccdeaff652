package s3_test

import (
	"bytes"
	"sync"
	"testing"
	"time"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/limit"
	"github.com/snap-backup/snap/repo/backend/s3"
	"github.com/snap-backup/snap/repo/backend/s3test"
)

// TestInteropLimit moves files over several connections that share limits. They need the time
// that the limits say, and a connection that waits for its turn is not taken for a stuck one.
func TestInteropLimit(t *testing.T) {
	t.Parallel()
	g := s3test.Start(t)
	openBucket(t, g, "bucket/limited")
	cfg, err := s3.Parse("s3:http://" + g.Addr + "/bucket/limited")
	if err != nil {
		t.Fatal(err)
	}
	const up, down, files, size = 2 << 20, 4 << 20, 4, 512 << 10
	b, err := s3.Open(t.Context(), cfg, s3.Options{Keys: testKeys, Limits: limit.New(up, down), Stall: 400 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	each := func(about string, rate float64, do func(name string, data []byte)) {
		start := time.Now()
		var wg sync.WaitGroup
		for i := range files {
			wg.Go(func() { do("packs/"+string(rune('a'+i)), bytes.Repeat([]byte{byte(i)}, size)) })
		}
		wg.Wait()
		// At the beginning, a tenth of a second is free.
		if took, least := time.Since(start).Seconds(), files*size/rate-0.1; took < least || took > least+5 {
			t.Errorf("%s took %.2f s, want %.2f s", about, took, least)
		}
	}
	each("putting", up, func(name string, data []byte) {
		if err := b.Put(t.Context(), name, data); err != nil {
			t.Error(err)
		}
	})
	each("getting", down, func(name string, data []byte) {
		if got, err := backend.ReadAll(t.Context(), b, name, size); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d of %d bytes of %s, %v", len(got), size, name, err)
		}
	})
}
