package s3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/backendtest"
	"github.com/snap-backup/snap/repo/backend/retry"
	"github.com/snap-backup/snap/repo/backend/s3"
	"github.com/snap-backup/snap/repo/backend/s3test"
)

// openBucket returns a store in a bucket of the gateway, which it makes.
func openBucket(t *testing.T, g *s3test.Gateway, bucketAndPrefix string) *s3.Backend {
	t.Helper()
	cfg, err := s3.Parse("s3:http://" + g.Addr + "/" + bucketAndPrefix)
	if err != nil {
		t.Fatal(err)
	}
	b, err := s3.Create(t.Context(), cfg, s3.Options{Keys: testKeys, MakeBucket: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// TestInteropVersitygw checks each sentence of the contract with a real server.
// patient repeats what the server fails to do: versitygw answers 500 to some of several
// Deletes of one object at the same time.
func patient(b backend.Backend) backend.Backend {
	return retry.New(b, retry.Options{First: 10 * time.Millisecond, Total: time.Minute})
}

func TestInteropVersitygw(t *testing.T) {
	g := s3test.Start(t)
	n := 0
	backendtest.Run(t, func(t *testing.T) backend.Backend {
		n++
		return patient(openBucket(t, g, fmt.Sprintf("bucket/a store %d", n)))
	})
	t.Run("WithoutPrefix", func(t *testing.T) {
		backendtest.RunSmall(t, func(t *testing.T) backend.Backend {
			n++
			return patient(openBucket(t, g, fmt.Sprintf("bucket-%d", n)))
		})
	})
	t.Run("Features", func(t *testing.T) {
		f, err := openBucket(t, g, "bucket").Probe(t.Context())
		if want := (s3.Features{ConditionalPut: true, Versioning: s3.Off, ObjectLock: s3.Off}); err != nil || f != want {
			t.Errorf("Probe = %+v, %v, want %+v", f, err, want)
		}
	})
	t.Run("Refusals", func(t *testing.T) { gatewayRefusals(t, g) })
}

func gatewayRefusals(t *testing.T, g *s3test.Gateway) {
	for _, tt := range []struct {
		name, bucket string
		opts         s3.Options
		want         error
		text         string
	}{
		{"no bucket", "absent", s3.Options{Keys: testKeys}, s3.ErrNoBucket, "make it first"},
		{"wrong secret", "bucket", s3.Options{Keys: &s3.Keys{ID: "test", Secret: "other"}}, s3.ErrRefused, "the secret of the access key is wrong"},
		{"unknown key", "bucket", s3.Options{Keys: &s3.Keys{ID: "other", Secret: "other"}}, s3.ErrRefused, "does not know this access key"},
		{"wrong region", "bucket", s3.Options{Keys: testKeys, Region: "eu-central-1"}, s3.ErrRefused, "AWS_REGION=us-east-1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg, err := s3.Parse("s3:http://" + g.Addr + "/" + tt.bucket)
			if err != nil {
				t.Fatal(err)
			}
			_, err = s3.Open(t.Context(), cfg, tt.opts)
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) || backend.Temporary(err) {
				t.Errorf("Open = %v, want %q", err, tt.text)
			}
		})
	}
}

// TestInteropVersitygwRace lets several clients put one name at a time, over connections of
// their own.
func TestInteropVersitygwRace(t *testing.T) {
	g := s3test.Start(t)
	var clients []*s3.Backend
	for range 6 {
		clients = append(clients, openBucket(t, g, "bucket/race"))
	}
	for round := range 30 {
		name := fmt.Sprintf("locks/%d", round)
		var won atomic.Int32
		var winner atomic.Int32
		var wg sync.WaitGroup
		for i, b := range clients {
			wg.Go(func() {
				switch err := b.Put(t.Context(), name, bytes.Repeat([]byte{byte(i)}, 1+i*50000)); {
				case err == nil:
					won.Add(1)
					winner.Store(int32(i))
				case !errors.Is(err, backend.ErrExist) && !backend.Temporary(err):
					t.Errorf("Put = %v", err)
				}
			})
		}
		wg.Wait()
		i := int(winner.Load())
		got, err := backend.ReadAll(t.Context(), clients[0], name, 1<<20)
		if won.Load() != 1 || err != nil || !bytes.Equal(got, bytes.Repeat([]byte{byte(i)}, 1+i*50000)) {
			t.Errorf("round %d: %d Puts succeeded, then %d bytes, %v", round, won.Load(), len(got), err)
		}
	}
}

// TestInteropVersitygwKilled kills the server in the middle of operations. Whatever
// succeeded before must be there afterwards, and no file is partial.
func TestInteropVersitygwKilled(t *testing.T) {
	g := s3test.Start(t)
	rng := faultpoint.Rand(t)
	state := map[string][]byte{} // nil: deleted
	for round := range 4 {
		b := openBucket(t, g, "bucket/killed")
		var mu sync.Mutex
		unsure := map[string][]byte{}
		var wg sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		for worker := range 4 {
			seed := rng.Uint64()
			wg.Go(func() { churn(ctx, t, b, fmt.Sprintf("packs/%d%d/", round, worker), seed, &mu, state, unsure) })
		}
		time.Sleep(time.Duration(50+rng.IntN(300)) * time.Millisecond)
		g.Kill()
		cancel()
		wg.Wait()
		g.Start()
		verifyChurn(t, openBucket(t, g, "bucket/killed"), state, unsure)
	}
	if len(state) < 20 {
		t.Errorf("only %d files were put or deleted before the kills", len(state))
	}
}

// churn puts, lists and deletes until an operation fails. It notes what is certain in state,
// and the bytes of the last operation, which may have been carried out, in unsure.
func churn(ctx context.Context, t *testing.T, b *s3.Backend, dir string, seed uint64, mu *sync.Mutex, state, unsure map[string][]byte) {
	rng := rand.New(rand.NewPCG(seed, 1))
	for i := 0; ; i++ {
		name := fmt.Sprintf("%s%d", dir, i)
		data := bytes.Repeat([]byte(name), 1+rng.IntN(20000))
		err := b.Put(ctx, name, data)
		note := func(to map[string][]byte, data []byte) { mu.Lock(); to[name] = data; mu.Unlock() }
		if err != nil {
			note(unsure, data)
			mustBeLost(ctx, t, err)
			return
		}
		note(state, data)
		if err := b.List(ctx, dir, func(backend.Info) error { return nil }); err != nil {
			mustBeLost(ctx, t, err)
			return
		}
		if i%3 == 0 {
			if err := b.Delete(ctx, name); err != nil {
				note(unsure, data)
				mustBeLost(ctx, t, err)
				return
			}
			note(state, nil)
		}
	}
}

func mustBeLost(ctx context.Context, t *testing.T, err error) {
	if ctx.Err() == nil && (!backend.Temporary(err) || !errors.Is(err, backend.ErrOutOfReach)) {
		t.Errorf("an operation during a crash of the server = %v, want a temporary error of a store out of reach", err)
	}
}

func verifyChurn(t *testing.T, b *s3.Backend, state, unsure map[string][]byte) {
	listed := map[string]int64{}
	if err := b.List(t.Context(), "", func(info backend.Info) error { listed[info.Name] = info.Size; return nil }); err != nil {
		t.Fatal(err)
	}
	for name, want := range unsure {
		got, err := backend.ReadAll(t.Context(), b, name, 1<<20)
		if errors.Is(err, backend.ErrNotExist) {
			want = nil
		} else if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s, whose operation was interrupted, has %d of %d bytes, %v", name, len(got), len(want), err)
		}
		state[name] = want
	}
	for name, want := range state {
		if size, ok := listed[name]; ok != (want != nil) || size != int64(len(want)) {
			t.Errorf("%s is listed %v with %d bytes, want %v, %d", name, ok, size, want != nil, len(want))
		}
		if want == nil {
			continue
		}
		if got, err := backend.ReadAll(t.Context(), b, name, 1<<20); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s has %d of %d bytes, %v", name, len(got), len(want), err)
		}
	}
}

// TestInteropVersitygwRetry kills and starts the server while a client that repeats goes on.
// Nothing fails, and each file has its bytes.
func TestInteropVersitygwRetry(t *testing.T) {
	g := s3test.Start(t)
	var failures atomic.Int32
	b := retry.New(openBucket(t, g, "bucket/retry"), retry.Options{First: 20 * time.Millisecond, Longest: 200 * time.Millisecond, Parallel: 4, Report: func(retry.Failure) { failures.Add(1) }})
	done := make(chan struct{})
	var wg sync.WaitGroup
	for worker := range 6 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				dir := fmt.Sprintf("packs/%d/", worker)
				name := fmt.Sprintf("%s%064x", dir, i%20)
				data := bytes.Repeat([]byte(name), 3000)
				if err := b.Put(t.Context(), name, data); err != nil {
					t.Errorf("Put = %v", err)
				}
				if got, err := backend.ReadAll(t.Context(), b, name, 1<<20); err != nil || !bytes.Equal(got, data) {
					t.Errorf("%s has %d of %d bytes, %v", name, len(got), len(data), err)
				}
				if err := b.List(t.Context(), dir, func(backend.Info) error { return nil }); err != nil {
					t.Errorf("List = %v", err)
				}
				if err := b.Delete(t.Context(), name); err != nil {
					t.Errorf("Delete = %v", err)
				}
			}
		})
	}
	for range 5 {
		time.Sleep(300 * time.Millisecond)
		g.Kill()
		time.Sleep(100 * time.Millisecond)
		g.Start()
	}
	close(done)
	wg.Wait()
	if failures.Load() < 5 {
		t.Errorf("only %d operations failed while the server was killed", failures.Load())
	}
}
