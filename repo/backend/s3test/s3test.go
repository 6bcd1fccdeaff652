// Package s3test starts an object store for tests.
package s3test

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// ID and Secret are the access key of the store.
const ID, Secret = "test", "testtest"

// Gateway is a running versitygw, an object store in a folder.
type Gateway struct {
	t    testing.TB
	path string // of the program
	args []string
	Addr string // host and port
	cmd  *exec.Cmd
}

// Start starts versitygw, which SNAP_TEST_VERSITYGW or PATH names.
func Start(t testing.TB) *Gateway {
	t.Helper()
	path := os.Getenv("SNAP_TEST_VERSITYGW")
	if path == "" {
		var err error
		if path, err = exec.LookPath("versitygw"); err != nil {
			if os.Getenv("SNAP_TEST_INTEROP") != "" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	dir := t.TempDir()
	for _, sub := range []string{"data", "versions", "users"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &Gateway{t: t, path: path, Addr: l.Addr().String()}
	_ = l.Close()
	g.args = []string{"--port", g.Addr, "--quiet", "--iam-dir", filepath.Join(dir, "users"), "posix", "--versioning-dir", filepath.Join(dir, "versions"), filepath.Join(dir, "data")}
	g.Start()
	t.Cleanup(g.Kill)
	return g
}

// Start starts the process and waits until it answers.
func (g *Gateway) Start() {
	g.t.Helper()
	var log bytes.Buffer
	g.cmd = exec.CommandContext(context.Background(), g.path, g.args...)
	g.cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+ID, "ROOT_SECRET_KEY="+Secret)
	g.cmd.Stdout, g.cmd.Stderr = &log, &log
	if err := g.cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", g.Addr)
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(deadline) {
			g.t.Fatalf("versitygw does not answer: %v\n%s", err, log.String())
		}
	}
}

// AddUser adds an access key that may do nothing until the policy of a bucket lets it.
func (g *Gateway) AddUser(id, secret string) {
	g.t.Helper()
	cmd := exec.CommandContext(g.t.Context(), g.path, "admin", "--access", ID, "--secret", Secret,
		"--endpoint-url", "http://"+g.Addr, "create-user", "--access", id, "--secret", secret, "--role", "user")
	if out, err := cmd.CombinedOutput(); err != nil {
		g.t.Fatalf("add a user: %v\n%s", err, out)
	}
}

// Kill ends the process at once, as a crash does.
func (g *Gateway) Kill() {
	if g.cmd != nil {
		_ = g.cmd.Process.Kill()
		_ = g.cmd.Wait()
		g.cmd = nil
	}
}
