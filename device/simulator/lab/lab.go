// Package lab provides simulated devices that are ready to use. Each has content that
// changes from day to day, a backup agent, and an owner. Lab.Do reads commands that tell
// the owner what to do. Computers reach the devices through the listener of Lab.Serve.
//
// "snap simulate", the demo and tests of commands use this package. The same options
// give the same content. A lab writes only to its folder.
package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/snap-backup/snap/device/protocol/plist"
	"github.com/snap-backup/snap/device/simulator"
	"github.com/snap-backup/snap/device/simulator/agent"
	"github.com/snap-backup/snap/device/simulator/devicefiles"
	"github.com/snap-backup/snap/device/simulator/pairing"
	"github.com/snap-backup/snap/device/simulator/synthetic"
)

// Options describe the devices.
type Options struct {
	// Dir is an existing folder for content and state. The caller removes it.
	Dir     string
	Devices int // 0 means 1
	Scale   synthetic.Scale
	Seed    uint64
	Start   time.Time // time of day 0; zero means synthetic.DefaultStart
	// Encrypt says which devices have a backup password at first. The password is
	// Password or, if that is empty, synthetic.DefaultPassword.
	Encrypt  synthetic.Encryption
	Password string
	// RealRounds makes unlocking a backup as slow as with real devices.
	RealRounds bool
	CompactDBs bool

	Untrusted bool // the devices do not trust this computer
	PlainText bool // no TLS
	QuickKeys bool // small keys, with which handshakes are quick; other programs may refuse them
	// Heartbeat is the interval of heartbeats; 0 means the interval of real devices.
	Heartbeat time.Duration
	// Patience is how long a device waits for its passcode before it answers with error
	// 208; 0 means two minutes.
	Patience time.Duration
	// Clock is the devices' clock; nil means time.Now.
	Clock func() time.Time
	// On, if not nil, is called with every event. Several goroutines may call it at the
	// same time.
	On func(Event)

	saved map[string]*deviceState // saved states by UDID, for Resume
}

// Event is something that happens to a device.
type Event struct {
	Device string    `json:"device"` // the device's name
	What   EventKind `json:"event"`
	Text   string    `json:"text"`
}

// capacity is the storage capacity of each device, in bytes.
const capacity = 128_000_000_000

// EventKind is the kind of an Event.
type EventKind string

// The kinds of events.
const (
	EventStep      EventKind = "step"      // a backup, restore or password change reaches a step
	EventViolation EventKind = "violation" // a host did what a real device would not accept
	EventPasscode  EventKind = "passcode"  // the device asks for its passcode
)

// Lab holds devices that are attached to a simulated usbmuxd.
type Lab struct {
	Mux  *simulator.Simulator
	opts Options

	mu      sync.Mutex
	series  *synthetic.Series
	devices []*Device
}

// New creates the devices with the content of day 0, and attaches them by cable.
func New(ctx context.Context, o Options) (*Lab, error) {
	l, err := newLab(o)
	if err != nil {
		return nil, err
	}
	if err := l.fill(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func newLab(o Options) (*Lab, error) {
	if o.Devices == 0 {
		o.Devices = 1
	}
	if o.Password == "" {
		o.Password = synthetic.DefaultPassword
	}
	if o.Patience == 0 {
		o.Patience = 2 * time.Minute
	}
	l := &Lab{Mux: simulator.New(), opts: o}
	var err error
	l.series, err = synthetic.New(l.config(o.Seed, o.Devices, o.Scale))
	return l, err
}

func (l *Lab) config(seed uint64, devices int, scale synthetic.Scale) synthetic.Config {
	return synthetic.Config{Seed: seed, Devices: devices, Scale: scale, StateDir: l.opts.Dir, Start: l.opts.Start, CompactDBs: l.opts.CompactDBs}
}

func (l *Lab) fill(ctx context.Context) error {
	folder := filepath.Join(l.opts.Dir, "content")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	if err := l.series.Next(ctx, folder); err != nil {
		return err
	}
	for i, who := range l.series.Devices() {
		password := ""
		if l.opts.Encrypt == synthetic.EncryptAll || l.opts.Encrypt == synthetic.EncryptAlternate && i%2 == 1 {
			password = l.opts.Password
		}
		spec := simulator.Spec{UDID: who.UDID, Name: who.Name, ProductType: who.ProductType, ProductVersion: who.ProductVersion,
			BuildVersion: who.BuildVersion, SerialNumber: who.SerialNumber}
		if _, err := l.add(ctx, spec, filepath.Join(folder, who.UDID), l.series, password); err != nil {
			return err
		}
	}
	return nil
}

// AddSpare attaches another device with little content, for restores. If the UDID or
// the name in spec is empty, AddSpare chooses one.
func (l *Lab) AddSpare(ctx context.Context, spec simulator.Spec) (*Device, error) {
	l.mu.Lock()
	n := len(l.devices)
	l.mu.Unlock()
	folder := filepath.Join(l.opts.Dir, "spare"+strconv.Itoa(n))
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	series, err := synthetic.New(l.config(l.opts.Seed+uint64(n)+1000, 1, synthetic.Tiny))
	if err != nil {
		return nil, err
	}
	if err := series.Next(ctx, folder); err != nil {
		return nil, errors.Join(err, series.Close())
	}
	who := series.Devices()[0]
	if spec.Name == "" {
		spec.Name = "Spare iPhone"
	}
	if spec.UDID == "" {
		spec.UDID = fmt.Sprintf("00008110-%016X", 0x5BA2E00+n)
	}
	if spec.ProductType == "" {
		spec.ProductType, spec.ProductVersion, spec.BuildVersion = who.ProductType, who.ProductVersion, who.BuildVersion
	}
	return l.add(ctx, spec, filepath.Join(folder, who.UDID), series, "")
}

func (l *Lab) add(ctx context.Context, spec simulator.Spec, folder string, series *synthetic.Series, password string) (*Device, error) {
	if l.opts.QuickKeys {
		key, err := pairing.QuickKey()
		if err != nil {
			return nil, err
		}
		spec.Key = key
	}
	saved := l.opts.saved[spec.UDID]
	if saved != nil {
		key, err := saved.Memory.PrivateKey()
		if err != nil {
			return nil, err
		}
		spec.Key, spec.Name, password = key, saved.Name, saved.Password
	}
	if spec.Capacity == 0 {
		spec.Capacity, spec.Available = capacity, capacity-1_000_000_000 // 1 GB is in use
	}
	spec.PlainText, spec.HeartbeatInterval = l.opts.PlainText, l.opts.Heartbeat
	d := &Device{Device: simulator.NewDevice(spec), lab: l, folder: folder, series: series, password: password}
	if saved != nil {
		if err := d.Remember(saved.Memory); err != nil {
			return nil, err
		}
		d.AskPasscode(saved.Asks)
	}
	content, err := devicefiles.OpenFolder(ctx, folder, nil)
	if err != nil {
		return nil, err
	}
	d.content = append(d.content, content)
	state := filepath.Join(l.opts.Dir, stateFolder(spec.UDID))
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, errors.Join(err, content.Close())
	}
	d.Agent, err = agent.Attach(d.Device, agent.Options{
		Content: content, StateDir: state, Password: password, RealRounds: l.opts.RealRounds, Seed: l.opts.Seed, Clock: l.opts.Clock,
		Version: 400, OnStep: d.step, OnBegin: d.askPasscode, Locked: d.locked,
		OnViolation: func(text string) { d.tell(EventViolation, text) },
	})
	if err != nil {
		return nil, errors.Join(err, content.Close())
	}
	apps, err := storeApps()
	if err != nil {
		return nil, errors.Join(err, content.Close())
	}
	d.SetApps(apps)
	if !l.opts.Untrusted {
		if err := l.Mux.Trust(d.Device); err != nil {
			return nil, errors.Join(err, content.Close())
		}
	}
	l.mu.Lock()
	l.devices = append(l.devices, d)
	l.mu.Unlock()
	d.links = append(d.links, l.Mux.Attach(d.Device, simulator.USB))
	return d, nil
}

// storeApps returns apps from the store. After a restore, a device installs such apps
// again.
func storeApps() ([]simulator.App, error) {
	var apps []simulator.App
	for _, name := range []string{"Weather Vane", "Train Times"} {
		id := "org.example." + strings.ToLower(strings.ReplaceAll(name, " ", ""))
		metadata, err := plist.EncodeXML(map[string]any{"softwareVersionBundleId": id, "itemName": name})
		if err != nil {
			return nil, err
		}
		apps = append(apps, simulator.App{ID: id, Name: name, Version: "1.0", SINF: []byte("licence of " + name), Metadata: metadata})
	}
	return apps, nil
}

// Serve serves the devices on a listener until ctx ends.
func (l *Lab) Serve(ctx context.Context, on net.Listener) error { return l.Mux.Serve(ctx, on) }

// Devices returns the devices. Those of AddSpare come last.
func (l *Lab) Devices() []*Device {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.devices)
}

// Day returns the day of the content, from 0 on.
func (l *Lab) Day() int { return l.series.Day() }

// NextDay makes the changes that a day of use causes in the content.
func (l *Lab) NextDay(ctx context.Context) error {
	if err := l.series.Next(ctx, filepath.Join(l.opts.Dir, "content")); err != nil {
		return err
	}
	for _, d := range l.Devices() {
		if d.series != l.series {
			continue
		}
		content, err := devicefiles.OpenFolder(ctx, d.folder, nil)
		if err != nil {
			return err
		}
		d.Agent.SetContent(content)
		d.content = append(d.content, content)
		// Yesterday's content stays open, since a running backup may read it.
		if n := len(d.content); n > 2 {
			_ = d.content[0].Close()
			d.content = d.content[1:]
		}
	}
	return nil
}

// Close closes the devices' files. Serve should have ended.
func (l *Lab) Close() error {
	var errs []error
	for _, d := range l.Devices() {
		for _, c := range d.content {
			errs = append(errs, c.Close())
		}
		if d.series != l.series {
			errs = append(errs, d.series.Close())
		}
	}
	return errors.Join(append(errs, l.series.Close())...)
}

// Find returns a device by its number, which counts from 1, or by the beginning of its
// name or UDID.
func (l *Lab) Find(name string) (*Device, error) {
	devices := l.Devices()
	if n, err := strconv.Atoi(name); err == nil && n >= 1 && n <= len(devices) {
		return devices[n-1], nil
	}
	var found []*Device
	for _, d := range devices {
		if begins(d.Name(), name) || begins(d.UDID(), name) {
			found = append(found, d)
		}
	}
	if name == "" || len(found) != 1 {
		return nil, fmt.Errorf("%d devices match %q; give a number from 1 to %d, or the beginning of a name", len(found), name, len(devices))
	}
	return found[0], nil
}

func begins(s, prefix string) bool {
	s, prefix = strings.ToLower(s), strings.ToLower(prefix)
	return strings.HasPrefix(s, prefix) || strings.HasPrefix(strings.ReplaceAll(s, "\u2019", "'"), prefix)
}
