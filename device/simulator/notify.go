package simulator

import (
	"context"
	"net"
	"sync"

	"github.com/snap-backup/snap/device/simulator/message"
)

const (
	maxObserved = 256 // names that one connection observes
	maxName     = 256 // bytes of one name
	maxRelays   = 256 // notifications in the queue of one connection
)

// observer is a connection to notification_proxy.
type observer struct {
	mu    sync.Mutex
	names map[string]struct{}
	queue chan map[string]any
}

// notices holds the open connections to notification_proxy.
type notices struct {
	mu   sync.Mutex
	open map[*observer]struct{}
}

// Notify posts a notification on the device, such as SyncCancelRequest. It returns the
// number of connections that get the notification.
func (d *Device) Notify(name string) int {
	d.notices.mu.Lock()
	defer d.notices.mu.Unlock()
	n := 0
	for o := range d.notices.open {
		if o.relay(name) {
			n++
		}
	}
	return n
}

func (o *observer) relay(name string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := o.names[name]; !ok {
		return false
	}
	select {
	case o.queue <- map[string]any{"Command": "RelayNotification", "Name": name}:
		return true
	default: // the host does not read, so its queue is full
		return false
	}
}

// serveNotifications serves notification_proxy.
func (d *Device) serveNotifications(_ context.Context, conn net.Conn) {
	o := &observer{names: map[string]struct{}{}, queue: make(chan map[string]any, maxRelays)}
	d.notices.mu.Lock()
	if d.notices.open == nil {
		d.notices.open = map[*observer]struct{}{}
	}
	d.notices.open[o] = struct{}{}
	d.notices.mu.Unlock()

	var sending sync.WaitGroup
	sending.Go(func() {
		for msg := range o.queue {
			if message.Write(conn, msg) != nil {
				conn.Close()
				for range o.queue { // empty the queue, so that ProxyDeath has room in it
				}
			}
		}
	})
	died := d.readNotifications(conn, o)
	d.notices.mu.Lock()
	delete(d.notices.open, o)
	d.notices.mu.Unlock()
	if died {
		o.queue <- map[string]any{"Command": "ProxyDeath"}
	}
	close(o.queue)
	sending.Wait()
}

// readNotifications reads and executes a host's commands. It reports whether the host
// shut the service down.
func (d *Device) readNotifications(conn net.Conn, o *observer) bool {
	for {
		msg, err := message.Read(conn)
		if err != nil {
			d.framing(NotificationProxy, err)
			return false
		}
		name, _ := msg["Name"].(string)
		switch command, _ := msg["Command"].(string); command {
		case "ObserveNotification":
			o.mu.Lock()
			if len(o.names) < maxObserved && len(name) <= maxName {
				o.names[name] = struct{}{}
			}
			o.mu.Unlock()
			d.Log(NotificationProxy, "observe", name)
		case "PostNotification":
			d.Log(NotificationProxy, "post", name)
			d.sync.Post(name)
			d.Notify(name)
		case "Shutdown":
			return true
		default:
			d.Violate("%s: unknown command %q", NotificationProxy, command)
		}
	}
}
