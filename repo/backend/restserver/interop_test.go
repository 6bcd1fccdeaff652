package restserver

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/backendtest"
	"github.com/snap-backup/snap/repo/backend/local"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/backend/rest"
	"github.com/snap-backup/snap/repo/backend/wire"
	"github.com/snap-backup/snap/repo/repotest"
)

// start runs a server over TLS, and returns a function that opens a repository on it as a user
// whose password is "pw".
func start(t *testing.T, be backend.Backend, opts Options, users ...string) func(user, path string) *rest.Backend {
	t.Helper()
	dir := t.TempDir()
	var file []byte
	for _, user := range users {
		var err error
		if file, _, err = SetPassword(file, user, "pw", 4); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "users")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if opts.Users, err = OpenUsers(path, func(err error) { t.Error(err) }); err != nil {
		t.Fatal(err)
	}
	cert, err := OwnCertificate(filepath.Join(dir, "serve.pem"), nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	on, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	opts.Log = slog.New(slog.DiscardHandler)
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- Serve(ctx, on, New(be, opts), &tls.Config{Certificates: []tls.Certificate{cert}}, time.Second)
	}()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return func(user, path string) *rest.Backend {
		t.Helper()
		cfg, err := rest.Parse("rest:https://" + user + ":pw@" + on.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := rest.Create(t.Context(), cfg, rest.Options{Connection: wire.TransportOptions{Fingerprint: Fingerprint(cert)}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		return b
	}
}

// The client and the server of docs/rest.md understand each other.
func TestClient(t *testing.T) {
	t.Parallel()
	backendtest.RunSmall(t, func(t *testing.T) backend.Backend {
		be, err := local.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { be.Close() })
		return start(t, inside{be, "p/"}, Options{}, "anna")("anna", "/p")
	})
}

// A computer that may only append backs up for weeks, and a prune by another one keeps
// everything whole.
func TestAppendOnlyBackups(t *testing.T) {
	t.Parallel()
	be := memory.New()
	open := start(t, be, Options{AppendOnly: func(user string) bool { return user == "anna" }}, "root", "anna")
	root := open("root", "/phones")
	repotest.Create(t, root)
	anna := open("anna", "/phones")
	days := make([]int, 20)
	for i := range days {
		days[i] = i + 1
		if _, err := repotest.StoreDay(t.Context(), anna, i+1); err != nil {
			t.Fatalf("day %d: %v", i+1, err)
		}
	}
	if err := repotest.Verify(anna, days...); err != nil {
		t.Error(err)
	}
	for _, dir := range []string{"snapshots/", "packs/", "keys/", "ledger/"} {
		for _, name := range repotest.FilesIn(t, anna, dir) {
			if err := anna.Delete(t.Context(), name); !errors.Is(err, backend.ErrAppendOnly) {
				t.Errorf("delete %s: %v", name, err)
			}
		}
	}
	if err := repotest.Verify(root, days...); err != nil {
		t.Error(err)
	}
}
