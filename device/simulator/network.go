package simulator

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"
)

// portOpen is how long the port of a service waits for a host on the network to
// connect.
const portOpen = time.Minute

// network is a link's address on the network. libimobiledevice connects to devices on
// the network directly, not through usbmuxd.
type network struct {
	ctx  context.Context
	stop context.CancelFunc
	ip   netip.Addr
}

// AttachNetwork attaches a device by network at an IPv4 address of this machine, such
// as one of 127.0.0.0/8 on Linux. The device's lockdownd listens at its usual port
// until ctx ends or the link is detached. If a device is attached with Attach instead,
// hosts can reach it only through usbmuxd.
func (s *Simulator) AttachNetwork(ctx context.Context, d *Device, ip netip.Addr) (*Link, error) {
	if !ip.Is4() {
		return nil, fmt.Errorf("attach %s by network: %v is not an IPv4 address", d.Name(), ip)
	}
	ctx, cancel := context.WithCancel(ctx)
	n := &network{ctx: ctx, stop: cancel, ip: ip}
	ln, err := n.listen(lockdownPort)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("attach %s by network: %w", d.Name(), err)
	}
	l := s.attach(d, Network, n)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				cancel()
				return
			}
			go l.serveDirect(c, lockdownPort)
		}
	}()
	return l, nil
}

// listen opens a port, which is closed when the link ends.
func (n *network) listen(port uint16) (net.Listener, error) {
	var conf net.ListenConfig
	ln, err := conf.Listen(n.ctx, "tcp4", net.JoinHostPort(n.ip.String(), strconv.Itoa(int(port))))
	if err == nil {
		context.AfterFunc(n.ctx, func() { ln.Close() })
	}
	return ln, err
}

// offer opens the port of a service and accepts one connection to it.
func (l *Link) offer(port uint16) error {
	ln, err := l.network.listen(port)
	if err != nil {
		return err
	}
	go func() {
		defer ln.Close()
		if ln, ok := ln.(*net.TCPListener); ok {
			_ = ln.SetDeadline(time.Now().Add(portOpen))
		}
		if c, err := ln.Accept(); err == nil {
			go l.serveDirect(c, port)
		}
	}()
	return nil
}

// serveDirect serves a connection that bypasses usbmuxd.
func (l *Link) serveDirect(c net.Conn, number uint16) {
	select {
	case l.sim.room <- struct{}{}:
		defer func() { <-l.sim.room }()
	default:
		c.Close()
		return
	}
	p, ok := l.dev.connectTo(number)
	if !ok {
		c.Close()
		return
	}
	l.serve(l.network.ctx, c, p)
}

// sockaddr returns the link's address in the form of macOS: 16 bytes, which begin with
// the length and the address family.
func (l *Link) sockaddr() []byte {
	ip := [4]byte{127, 0, 0, 1}
	if l.network != nil {
		ip = l.network.ip.As4()
	}
	return append([]byte{16, 2, 0, 0, ip[0], ip[1], ip[2], ip[3]}, make([]byte, 8)...)
}
