package sftp

import (
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/snap-backup/snap/repo/backend"
)

// latency is the time that the answers of the server take in BenchmarkRoundTrips.
const latency = 20 * time.Millisecond

// farReader delivers what it reads after some time.
type farReader struct{ *io.PipeReader }

func far(r io.Reader) io.Reader {
	type piece struct {
		data []byte
		due  time.Time
	}
	pieces := make(chan piece, 10_000)
	out, in := io.Pipe()
	go func() {
		defer close(pieces)
		for {
			p := make([]byte, 64<<10)
			n, err := r.Read(p)
			if err != nil {
				return
			}
			pieces <- piece{p[:n], time.Now().Add(latency)}
		}
	}()
	go func() {
		defer in.Close()
		for p := range pieces {
			time.Sleep(time.Until(p.due))
			if _, err := in.Write(p.data); err != nil {
				return
			}
		}
	}()
	return farReader{out}
}

// BenchmarkRoundTrips measures how many round trips each operation waits for.
func BenchmarkRoundTrips(b *testing.B) {
	server := opensshServer(b)
	store := create(b, folder(b), Options{dial: func() (link, error) {
		l, err := process([]string{server}, false)
		l.out = far(l.out)
		return l, err
	}})
	put(b, store, "packs/ab/0", "content")
	ctx, n := b.Context(), 0
	for _, op := range []struct {
		name string
		run  func() error
	}{
		{"put", func() error { n++; return store.Put(ctx, fmt.Sprintf("packs/ab/%d", n), make([]byte, 1000)) }},
		{"put16MiB", func() error { n++; return store.Put(ctx, fmt.Sprintf("packs/ab/%d", n), make([]byte, 16<<20)) }},
		{"firstRead", func() error {
			store.current.open.drop("packs/ab/1")
			_, err := store.ReadAt(ctx, "packs/ab/1", make([]byte, 10), 5)
			return err
		}},
		{"read", func() error { _, err := store.ReadAt(ctx, "packs/ab/1", make([]byte, 10), 5); return err }},
		{"stat", func() error { _, err := store.Stat(ctx, "packs/ab/1"); return err }},
		{"list", func() error { return store.List(ctx, "packs/ab/", func(backend.Info) error { return nil }) }},
		{"delete", func() error { n--; return store.Delete(ctx, fmt.Sprintf("packs/ab/%d", n+1)) }},
	} {
		b.Run(op.name, func(b *testing.B) {
			for b.Loop() {
				if err := op.run(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(latency), "roundtrips/op")
			b.ReportMetric(0, "ns/op")
		})
	}
}
