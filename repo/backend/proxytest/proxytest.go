// Package proxytest puts a bad network between a store and a test, with toxiproxy: latency,
// connections that are reset or stop, and lines that are slow or gone for a while.
package proxytest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"testing"
	"time"
)

// Proxy is a running toxiproxy with one proxy.
type Proxy struct {
	t                   testing.TB
	path, api, upstream string
	Addr                string // host and port that lead to the store

	mu  sync.Mutex // held while the process changes
	cmd *exec.Cmd  // nil while it does not run
}

// Toxic is what the network does.
type Toxic struct {
	// Type is a kind of toxiproxy, such as "latency", "reset_peer", "timeout", "bandwidth",
	// "limit_data", "slow_close" or "slicer".
	Type string
	// Stream is "upstream", to the store, or "downstream", which is the default.
	Stream string
	// Attributes are those of the kind.
	Attributes map[string]int
	// Share is the share of connections that it happens to; 0 means all.
	Share float64
}

// Start starts toxiproxy, which SNAP_TEST_TOXIPROXY or PATH names, in front of an address.
func Start(t testing.TB, upstream string) *Proxy {
	t.Helper()
	path := os.Getenv("SNAP_TEST_TOXIPROXY")
	if path == "" {
		var err error
		if path, err = exec.LookPath("toxiproxy-server"); err != nil {
			if os.Getenv("SNAP_TEST_INTEROP") != "" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	p := &Proxy{t: t, path: path, api: freeAddr(t), upstream: upstream, Addr: freeAddr(t)}
	p.start()
	t.Cleanup(p.Down)
	return p
}

// start starts the process, and waits until it lets connections through.
func (p *Proxy) start() {
	p.t.Helper()
	host, port, err := net.SplitHostPort(p.api)
	if err != nil {
		p.t.Fatal(err)
	}
	p.cmd = exec.CommandContext(context.Background(), p.path, "-host", host, "-port", port)
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	proxy := map[string]any{"name": "p", "listen": p.Addr, "upstream": p.upstream, "enabled": true}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		err := p.post("/proxies", proxy)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			p.t.Errorf("toxiproxy does not answer: %v", err)
			return
		}
	}
}

func freeAddr(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Add adds toxics, which also apply to connections that exist.
func (p *Proxy) Add(toxics ...Toxic) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, x := range toxics {
		stream := x.Stream
		if stream == "" {
			stream = "downstream"
		}
		attributes := x.Attributes
		if attributes == nil {
			attributes = map[string]int{}
		}
		err := p.post("/proxies/p/toxics", map[string]any{
			"name": fmt.Sprint(x.Type, stream, i), "type": x.Type, "stream": stream, "toxicity": cmp.Or(x.Share, 1), "attributes": attributes,
		})
		if err != nil {
			p.t.Errorf("toxiproxy: %v", err)
		}
	}
}

// Down ends all connections and refuses new ones.
func (p *Proxy) Down() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down()
}

func (p *Proxy) down() {
	if p.cmd != nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		p.cmd = nil
	}
}

// Heal ends all connections, and lets new ones through without toxics. It restarts toxiproxy,
// which can hang if it removes a toxic from a connection on which bytes wait.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down()
	p.start()
}

// client keeps no connections, which would count as leaks of a test.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}

func (p *Proxy) post(path string, body any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://"+p.api+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s: %s", resp.Status, said)
	}
	return err
}

// NoLeaks calls run and fails unless all goroutines that it began end. No other test may
// run at the same time.
func NoLeaks(t testing.TB, run func()) {
	t.Helper()
	before := runtime.NumGoroutine()
	run()
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Errorf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), stacks[:runtime.Stack(stacks, true)])
			return
		}
	}
}
