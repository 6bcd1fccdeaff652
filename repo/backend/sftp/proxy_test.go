//go:build unix

package sftp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/proxytest"
)

// behind starts a proxy in front of a server. It returns the proxy's port and options for ssh,
// which notices after two seconds that a line is dead.
func (s *sshd) behind(t *testing.T) (*proxytest.Proxy, int, Options) {
	t.Helper()
	p := proxytest.Start(t, net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)))
	_, text, _ := net.SplitHostPort(p.Addr)
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	s.write(t, "known-proxy", fmt.Sprintf("[127.0.0.1]:%d %s", port, s.read(t, "host.pub")))
	opts := s.options("user", "known-proxy")
	opts.Args += " -oServerAliveInterval=1 -oServerAliveCountMax=1 -oConnectTimeout=2"
	return p, port, opts
}

// TestInteropBadLine reaches a server over lines that are slow, end or stop.
func TestInteropBadLine(t *testing.T) {
	if testing.Short() {
		t.Skip("logging in takes time")
	}
	s := startSSHD(t)
	p, port, opts := s.behind(t)
	c := s.folder(t)
	direct := create(t, c, Options{Command: opensshServer(t)})
	c.Port = port
	proxytest.Run(t, proxytest.Store{
		Proxy:    p,
		Direct:   direct,
		Open:     func(t testing.TB) (backend.Backend, error) { return Open(t.Context(), c, opts) },
		Patience: 2*time.Second + patienceAtEnd + 3*time.Second,
		Sample:   6,
	})
}

// TestInteropDeadLine opens a store on lines that are dead or end before the server has said
// anything. Without a limit for connecting, ssh would wait forever.
func TestInteropDeadLine(t *testing.T) {
	t.Parallel()
	s := startSSHD(t)
	p, port, opts := s.behind(t)
	c := s.folder(t)
	c.Port = port
	for _, x := range []proxytest.Toxic{
		{Type: "timeout", Stream: "upstream"},
		{Type: "timeout"},
		{Type: "limit_data"},
		{Type: "reset_peer"},
		{Type: "limit_data", Attributes: map[string]int{"bytes": 1000}},
	} {
		p.Heal()
		p.Add(x)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		b, err := Open(ctx, c, opts)
		cancel()
		if err == nil {
			_ = b.Close()
		}
		if !backend.Temporary(err) || !errors.Is(err, backend.ErrOutOfReach) {
			t.Errorf("%+v: %v", x, err)
		}
	}
}
