package simulator

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/snap-backup/snap/device/simulator/pairing"
)

// Transport says how a device is attached.
type Transport string

const (
	USB     Transport = "USB"
	Network Transport = "Network"
)

// Limits of what clients can store.
const (
	maxConnections = 1024
	maxUDID        = 128
	maxRecords     = 256
	maxRecord      = 64 << 10 // bytes of one pair record; real ones have 6 to 10 KB
)

// Simulator is a simulated usbmuxd with attached devices.
type Simulator struct {
	buid string
	room chan struct{} // holds one element for each open connection

	mu       sync.Mutex
	lastID   int
	links    map[int]*Link
	records  map[string][]byte // pair records by UDID without dashes
	watchers map[*watcher]struct{}
}

// New returns a usbmuxd without devices.
func New() *Simulator {
	return &Simulator{
		buid:     pairing.NewID(),
		room:     make(chan struct{}, maxConnections),
		links:    map[int]*Link{},
		records:  map[string][]byte{},
		watchers: map[*watcher]struct{}{},
	}
}

// Address returns the value of USBMUXD_SOCKET_ADDRESS that leads clients to a
// listener: UNIX:///abs/path or host:port. All clients understand these two forms.
func Address(a net.Addr) string {
	if a.Network() == "unix" {
		return "UNIX://" + a.String()
	}
	return a.String()
}

// Serve serves clients until ctx ends. It then closes all connections and l. Serve may
// be called for several listeners.
func (s *Simulator) Serve(ctx context.Context, l net.Listener) error {
	var serving sync.WaitGroup
	defer serving.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			l.Close()
			return fmt.Errorf("simulated usbmuxd: %w", err)
		}
		select {
		case s.room <- struct{}{}:
		default:
			c.Close()
			continue
		}
		serving.Go(func() {
			defer func() { <-s.room }()
			s.serveClient(ctx, c)
		})
	}
}

// Link is the attachment of a device to usbmuxd.
type Link struct {
	ID        int // DeviceID in messages of usbmuxd
	Transport Transport

	sim      *Simulator
	dev      *Device
	network  *network // nil if the device can be reached only through usbmuxd
	mu       sync.Mutex
	detached bool
	hearts   int                        // number of running heartbeats
	cancel   map[int]context.CancelFunc // end the open connections
	lastID   int
}

// Attach attaches a device, and informs clients that listen for devices. A device
// can be attached several times, such as by cable and by Wi-Fi. Each link has its own
// ID.
func (s *Simulator) Attach(d *Device, t Transport) *Link { return s.attach(d, t, nil) }

func (s *Simulator) attach(d *Device, t Transport, n *network) *Link {
	if t == USB {
		d.hosts.Reconnected()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastID++
	l := &Link{ID: s.lastID, Transport: t, sim: s, dev: d, network: n, cancel: map[int]context.CancelFunc{}}
	s.links[l.ID] = l
	d.Log("mux", "attach", string(t))
	s.tell(l.attachedMessage())
	return l
}

// Detach ends a link. It breaks the link's connections, and informs clients that listen
// for devices.
func (l *Link) Detach() {
	l.sim.mu.Lock()
	_, was := l.sim.links[l.ID]
	delete(l.sim.links, l.ID)
	if was {
		l.sim.tell(map[string]any{"MessageType": "Detached", "DeviceID": l.ID})
	}
	l.sim.mu.Unlock()
	l.mu.Lock()
	l.detached = true
	l.mu.Unlock()
	if l.network != nil {
		l.network.stop()
	}
	l.drop()
	if was {
		l.dev.Log("mux", "detach", string(l.Transport))
	}
}

// Detach ends all links of a device.
func (s *Simulator) Detach(d *Device) {
	for _, l := range s.attachedLinks() {
		if l.dev == d {
			l.Detach()
		}
	}
}

// attachedLinks returns the links in the order of their IDs.
func (s *Simulator) attachedLinks() []*Link {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sortedLinks()
}

func (s *Simulator) sortedLinks() []*Link {
	var out []*Link
	for _, id := range slices.Sorted(maps.Keys(s.links)) {
		out = append(out, s.links[id])
	}
	return out
}

func (s *Simulator) link(id int) *Link {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.links[id]
}

// drop breaks the open connections of a link.
func (l *Link) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, cancel := range l.cancel {
		cancel()
	}
}

// enter adds an open connection. When the link ends, it calls cancel to end the
// connection. ok is false if the link has ended already.
func (l *Link) enter(cancel context.CancelFunc) (leave func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.detached {
		return nil, false
	}
	l.lastID++
	id := l.lastID
	l.cancel[id] = cancel
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.cancel, id)
	}, true
}

// recordKey returns the key of a pair record. It is the same for a UDID with and
// without dashes.
func recordKey(udid string) string { return strings.ToUpper(strings.ReplaceAll(udid, "-", "")) }

// PairRecord returns the pair record of a device, an XML property list.
func (s *Simulator) PairRecord(udid string) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.records[recordKey(udid)]
	return slices.Clone(b), ok
}

var errRecord = errors.New("no room for the pair record")

// SetPairRecord stores the pair record of a device, or removes it if record is nil.
func (s *Simulator) SetPairRecord(udid string, record []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := recordKey(udid)
	if record == nil {
		delete(s.records, key)
		return nil
	}
	if _, ok := s.records[key]; !ok && len(s.records) == maxRecords || len(record) > maxRecord || len(key) > maxUDID {
		return errRecord
	}
	s.records[key] = slices.Clone(record)
	return nil
}

// Trust pairs this host with a device, without a Trust dialog.
func (s *Simulator) Trust(d *Device) error {
	record, err := d.hosts.PairNew(s.buid, d.spec.WiFiAddress, d.spec.Now())
	if err != nil {
		return err
	}
	return s.SetPairRecord(d.UDID(), record)
}
