package simulator

import (
	"context"
	"net"
	"time"

	"github.com/snap-backup/snap/device/simulator/message"
)

// How many intervals a host may take to answer (heartbeatPatience), and to start a
// heartbeat (heartbeatStart).
const (
	heartbeatPatience = 3
	heartbeatStart    = 10
)

// expectHeartbeat breaks the connections of a network link if the link has no
// heartbeat for too long.
func (l *Link) expectHeartbeat(ctx context.Context) {
	for missed := 0; sleep(ctx, l.dev.spec.HeartbeatInterval); {
		if l.addHeartbeats(0) > 0 {
			missed = 0
		} else if missed++; missed == heartbeatStart {
			l.dev.Log(Heartbeat, "lost", "")
			l.drop()
			return
		}
	}
}

// serveHeartbeat asks the host for a sign of life in every interval. If a host on the
// network does not answer, it loses all connections an interval later, unless it
// starts another heartbeat before then.
func (d *Device) serveHeartbeat(ctx context.Context, c net.Conn) {
	interval := d.spec.HeartbeatInterval
	var link *Link
	if c, ok := c.(*conn); ok && c.link != nil && c.link.Transport == Network {
		link = c.link
	}
	link.addHeartbeats(1)
	for d.beat(c, interval) {
		if !sleep(ctx, interval) {
			break
		}
	}
	c.Close()
	if link.addHeartbeats(-1) == 0 && link != nil && sleep(ctx, interval) && link.addHeartbeats(0) == 0 {
		d.Log(Heartbeat, "lost", "")
		link.drop()
	}
}

// beat asks once for a sign of life, and reports whether the host answers in time.
func (d *Device) beat(c net.Conn, interval time.Duration) bool {
	seconds := max(1, int(interval/time.Second))
	if message.Write(c, map[string]any{"Command": "Marco", "Interval": seconds}) != nil {
		return false
	}
	_ = c.SetReadDeadline(time.Now().Add(heartbeatPatience * interval))
	reply, err := message.Read(c)
	if err != nil {
		d.framing(Heartbeat, err)
		return false
	}
	if reply["Command"] != "Polo" {
		d.Violate("%s: %v, want Polo", Heartbeat, reply["Command"])
		return false
	}
	d.Log(Heartbeat, "Polo", "")
	return true
}

// addHeartbeats changes the number of running heartbeats of a link by delta, and returns the
// new number. For a nil link it returns 0.
func (l *Link) addHeartbeats(delta int) int {
	if l == nil {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hearts += delta
	return l.hearts
}

// sleep waits for the time d. It returns false if ctx ends earlier.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
