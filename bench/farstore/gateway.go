package farstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// Key and Secret are the access key of the store.
const Key, Secret = "bench", "benchbench"

// Gateway is versitygw, an object store in a folder.
type Gateway struct {
	cmd  *exec.Cmd
	Addr string
}

// Start starts versitygw, which keeps its objects in a folder, and waits until it answers.
func Start(ctx context.Context, program, dir string) (*Gateway, error) {
	data := filepath.Join(dir, "objects")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, err
	}
	var conf net.ListenConfig
	free, err := conf.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	g := &Gateway{Addr: free.Addr().String()}
	if err := free.Close(); err != nil {
		return nil, err
	}
	var log bytes.Buffer
	g.cmd = exec.CommandContext(ctx, program, "--port", g.Addr, "--quiet", "posix", data)
	g.cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+Key, "ROOT_SECRET_KEY="+Secret)
	g.cmd.Stdout, g.cmd.Stderr = &log, &log
	if err := g.cmd.Start(); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", g.Addr)
		if err == nil {
			return g, conn.Close()
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			g.Stop()
			return nil, errors.Join(fmt.Errorf("versitygw does not answer: %w: %s", err, log.String()), ctx.Err())
		}
	}
}

// Stop ends the process.
func (g *Gateway) Stop() {
	_ = g.cmd.Process.Kill()
	_ = g.cmd.Wait()
}
