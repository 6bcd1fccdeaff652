package s3_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/s3"
	"github.com/snap-backup/snap/repo/backend/s3test"
)

// openLocked returns a store in a bucket with Object Lock, which it makes.
func openLocked(t *testing.T, g *s3test.Gateway, bucketAndPrefix string) *s3.Backend {
	t.Helper()
	cfg, err := s3.Parse("s3:http://" + g.Addr + "/" + bucketAndPrefix)
	if err != nil {
		t.Fatal(err)
	}
	b, err := s3.Create(t.Context(), cfg, s3.Options{
		Keys: testKeys, MakeBucket: true, ObjectLock: true,
		Protects: func(name string) bool { return !strings.HasPrefix(name, "locks/") },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func versionsOf(t *testing.T, b *s3.Backend, name string) (list []backend.Version) {
	t.Helper()
	err := b.Versions(t.Context(), func(v backend.Version) error {
		if v.Name == name {
			list = append(list, v)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortStableFunc(list, func(x, y backend.Version) int { return y.Modified.Compare(x.Modified) })
	return list
}

// TestInteropProtection protects files in a real store, removes and replaces them as somebody
// with the same access key can, and brings them back.
func TestInteropProtection(t *testing.T) {
	g := s3test.Start(t)
	b := openLocked(t, g, "locked/a store")
	ctx := t.Context()
	if p, err := b.Protection(ctx); p.Period != 0 || err != nil {
		t.Fatalf("Protection of a new store = %v, %v", p, err)
	}
	rule := backend.Protection{Period: time.Hour}
	if err := b.SetProtection(ctx, rule); err != nil {
		t.Fatal(err)
	}
	b = openLocked(t, g, "locked/a store") // another process
	if p, err := b.Protection(ctx); p != rule || err != nil {
		t.Fatalf("Protection = %v, %v", p, err)
	}
	for _, name := range []string{"packs/a", "locks/a"} {
		if err := b.Put(ctx, name, []byte(name)); err != nil {
			t.Fatal(err)
		}
		until, err := b.ProtectedUntil(ctx, versionsOf(t, b, name)[0])
		if left := time.Until(until); err != nil || (name == "packs/a") != (left > 59*time.Minute && left <= time.Hour) || (name == "locks/a") != until.IsZero() {
			t.Errorf("%s is protected until %v, %v", name, until, err)
		}
	}
	good := versionsOf(t, b, "packs/a")[0]
	client, err := minio.New(g.Addr, &minio.Options{Creds: credentials.NewStaticV4(s3test.ID, s3test.Secret, "")})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.RemoveObject(ctx, "locked", "a store/packs/a", minio.RemoveObjectOptions{VersionID: good.ID}); err == nil {
		t.Error("a protected version can be removed")
	}
	until := time.Now().Add(2 * time.Hour)
	if err := b.Protect(ctx, good, until, false); err != nil {
		t.Fatal(err)
	}
	if got, err := b.ProtectedUntil(ctx, good); err != nil || got.Sub(until).Abs() > time.Second {
		t.Errorf("protected until %v, %v, want %v", got, err, until)
	}
	if err := b.Protect(ctx, good, time.Now().Add(time.Minute), false); err == nil {
		t.Error("a protection can be shortened")
	}
	bringBack(t, b, client, good)
}

// noRemoval is a transport for an access key that may not remove versions.
type noRemoval struct{ http.RoundTripper }

func (n noRemoval) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodDelete && r.URL.Query().Has("versionId") {
		return &http.Response{
			StatusCode: http.StatusForbidden, Request: r, Header: http.Header{},
			Body: io.NopCloser(strings.NewReader("<Error><Code>AccessDenied</Code></Error>")),
		}, nil
	}
	return n.RoundTripper.RoundTrip(r)
}

// Files come back also with an access key that may not remove versions.
func TestInteropBringBackByCopy(t *testing.T) {
	g := s3test.Start(t)
	owner := openLocked(t, g, "locked/a store")
	rule := backend.Protection{Period: time.Hour, Compliance: true}
	if err := errors.Join(owner.SetProtection(t.Context(), rule), owner.Put(t.Context(), "packs/a", []byte("packs/a"))); err != nil {
		t.Fatal(err)
	}
	b, err := s3.Open(t.Context(), owner.Config(), s3.Options{Keys: testKeys, Transport: noRemoval{http.DefaultTransport}})
	if err != nil {
		t.Fatal(err)
	}
	client, err := minio.New(g.Addr, &minio.Options{Creds: credentials.NewStaticV4(s3test.ID, s3test.Secret, "")})
	if err != nil {
		t.Fatal(err)
	}
	bringBack(t, b, client, versionsOf(t, b, "packs/a")[0])
}

// Files that are protected in the mode compliance stay so if the mode is changed, and their
// protection is extended like that of others.
func TestInteropModeChanges(t *testing.T) {
	g := s3test.Start(t)
	b := openLocked(t, g, "locked/a store")
	for _, compliance := range []bool{false, true} {
		name := fmt.Sprint("packs/", compliance)
		rule := backend.Protection{Period: time.Hour, Compliance: compliance}
		if err := errors.Join(b.SetProtection(t.Context(), rule), b.Put(t.Context(), name, nil)); err != nil {
			t.Fatal(err)
		}
		v, until := versionsOf(t, b, name)[0], time.Now().Add(2*time.Hour)
		if err := b.Protect(t.Context(), v, until, false); err != nil {
			t.Error(err)
		}
		if got, err := b.ProtectedUntil(t.Context(), v); err != nil || got.Sub(until).Abs() > time.Second {
			t.Errorf("compliance %v: protected until %v, %v, want %v", compliance, got, err, until)
		}
		if err := b.Protect(t.Context(), v, time.Now().Add(time.Minute), false); err == nil {
			t.Errorf("compliance %v: a protection can be shortened", compliance)
		}
	}
}

func bringBack(t *testing.T, b *s3.Backend, client *minio.Client, good backend.Version) {
	ctx := t.Context()
	for _, step := range []struct {
		what   string
		attack func() error
	}{
		{"deleted", func() error { return b.Delete(ctx, "packs/a") }},
		{"replaced", func() error {
			_, err := client.PutObject(ctx, "locked", "a store/packs/a", strings.NewReader("junk!!!"), 7, minio.PutObjectOptions{})
			return err
		}},
	} {
		if err := step.attack(); err != nil {
			t.Fatal(err)
		}
		list := versionsOf(t, b, "packs/a")
		t.Logf("%s: %+v", step.what, list)
		if !list[0].Latest || list[0].Hides != (step.what == "deleted") {
			t.Errorf("%s: the newest version is %+v", step.what, list[0])
		}
		if data, err := b.ReadVersion(ctx, good); err != nil || string(data) != "packs/a" {
			t.Errorf("%s: the old version is %q, %v", step.what, data, err)
		}
		if err := b.BringBack(ctx, good, list[:slices.IndexFunc(list, func(v backend.Version) bool { return v.ID == good.ID })]); err != nil {
			t.Fatal(err)
		}
		if data, err := backend.ReadAll(ctx, b, "packs/a", 100); err != nil || !bytes.Equal(data, []byte("packs/a")) {
			t.Errorf("%s: brought back %q, %v", step.what, data, err)
		}
		newest := versionsOf(t, b, "packs/a")[0]
		if until, err := b.ProtectedUntil(ctx, newest); err != nil || time.Until(until) < 59*time.Minute {
			t.Errorf("%s: then it is protected until %v, %v", step.what, until, err)
		}
	}
}

// A bucket without Object Lock cannot protect anything, and nothing is changed.
func TestInteropNoObjectLock(t *testing.T) {
	g := s3test.Start(t)
	b := openBucket(t, g, "plain/store")
	if err := b.SetProtection(t.Context(), backend.Protection{Period: time.Hour}); !errors.Is(err, s3.ErrNoObjectLock) {
		t.Errorf("SetProtection = %v", err)
	}
	if err := b.Put(t.Context(), "packs/a", nil); err != nil {
		t.Error(err)
	}
	if p, err := b.Protection(t.Context()); p.Period != 0 || err != nil {
		t.Errorf("Protection = %v, %v", p, err)
	}
}
