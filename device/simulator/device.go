package simulator

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/snap-backup/snap/device/simulator/afcd"
	"github.com/snap-backup/snap/device/simulator/pairing"
	"github.com/snap-backup/snap/device/simulator/synclock"
)

// Names of the services that every device has.
const (
	NotificationProxy = "com.apple.mobile.notification_proxy"
	AFC               = "com.apple.afc"
	InstallationProxy = "com.apple.mobile.installation_proxy"
	SpringBoard       = "com.apple.springboardservices"
	DiagnosticsRelay  = "com.apple.mobile.diagnostics_relay"
	Heartbeat         = "com.apple.mobile.heartbeat"
)

// MobileBackup2 is the backup service. A device has it only after Handle adds it. A
// locked device starts it only for a host that sends its EscrowBag.
const MobileBackup2 = "com.apple.mobilebackup2"

// Lockdown names lockdownd in events and faults.
const Lockdown = "lockdown"

// Spec describes a device. Empty fields get the values of an ordinary iPhone.
type Spec struct {
	UDID           string // as in TargetIdentifier, with its dash
	Name           string
	ProductType    string // such as "iPhone14,5"
	ProductVersion string // of iOS
	BuildVersion   string
	SerialNumber   string
	WiFiAddress    string // MAC

	Capacity  uint64 // bytes of storage
	Available uint64 // free bytes

	Trust   Trust // the owner's answer to hosts that want to pair
	Managed bool  // a profile forbids pairing with further hosts

	PlainText         bool          // no TLS
	MaxTLS            uint16        // newest version of TLS, for old devices; 0 means no limit
	HeartbeatInterval time.Duration // 0 means 10 s
	// Key is the device's identity, an RSA key. nil means pairing.Key or, without TLS,
	// pairing.QuickKey.
	Key *rsa.PrivateKey
	Now func() time.Time
}

func (s Spec) withDefaults() Spec {
	or := func(v *string, other string) {
		if *v == "" {
			*v = other
		}
	}
	or(&s.UDID, "00008110-000A1B2C3D4E5F60")
	or(&s.Name, "Simulated iPhone")
	or(&s.ProductType, "iPhone14,5")
	or(&s.ProductVersion, "17.5.1")
	or(&s.BuildVersion, "21F90")
	or(&s.SerialNumber, "SIM"+strings.ToUpper(s.UDID[max(0, len(s.UDID)-9):]))
	or(&s.WiFiAddress, "02:00:00:00:00:01")
	if s.Capacity == 0 {
		s.Capacity = 128_000_000_000
		s.Available = 64_000_000_000
	}
	if s.HeartbeatInterval <= 0 {
		s.HeartbeatInterval = 10 * time.Second
	}
	if s.Now == nil {
		s.Now = time.Now
	}
	return s
}

// Handler serves a connection to a service. The connection is closed when Handler
// returns or ctx ends.
type Handler func(ctx context.Context, conn net.Conn)

// Device is a simulated device. Its methods may be called from any goroutine.
type Device struct {
	spec    Spec
	journal *journal
	values  valueStore
	key     func() (*rsa.PrivateKey, error) // created when first needed
	faults  faults
	files   *afcd.Files
	apps    apps
	sync    *synclock.Lock
	hosts   *pairing.Hosts
	notices notices

	mu       sync.Mutex
	lock     lockState
	services map[string]Handler
	refused  map[string]string // errors of Refuse by service
	ports    ports
}

// NewDevice returns a device that is not attached.
func NewDevice(spec Spec) *Device {
	spec = spec.withDefaults()
	d := &Device{
		spec:    spec,
		journal: newJournal(spec.Now),
		files:   afcd.NewFiles(spec.Now),
		ports:   ports{open: map[uint16]port{}, next: firstPort},
	}
	d.sync = synclock.New(d.Violate)
	switch {
	case spec.Key != nil:
		d.key = func() (*rsa.PrivateKey, error) { return spec.Key, nil }
	case spec.PlainText:
		d.key = pairing.QuickKey
	default:
		d.key = pairing.Key
	}
	d.hosts = pairing.New(spec.Trust, spec.Managed, d.key, func(kind, detail string) { d.Log("trust", kind, detail) }, d.Violate)
	d.services = map[string]Handler{
		NotificationProxy: d.serveNotifications,
		AFC:               d.serveAFC,
		InstallationProxy: d.serveApps,
		SpringBoard:       d.serveSpringBoard,
		DiagnosticsRelay:  d.serveDiagnostics,
		Heartbeat:         d.serveHeartbeat,
	}
	d.fillValues()
	return d
}

func (d *Device) fillValues() {
	class := "iPhone"
	if strings.HasPrefix(d.spec.ProductType, "iPad") {
		class = "iPad"
	}
	for at, v := range map[valueKey]any{
		{"", "ActivationState"}:                   "Activated",
		{"", "BuildVersion"}:                      d.spec.BuildVersion,
		{"", "CPUArchitecture"}:                   "arm64e",
		{"", "DeviceClass"}:                       class,
		{"", "DeviceColor"}:                       "1",
		{"", "DeviceName"}:                        d.spec.Name,
		{"", "HardwareModel"}:                     "D17AP",
		{"", "PasswordProtected"}:                 false,
		{"", "ProductName"}:                       "iPhone OS",
		{"", "ProductType"}:                       d.spec.ProductType,
		{"", "ProductVersion"}:                    d.spec.ProductVersion,
		{"", "ProtocolVersion"}:                   "2",
		{"", "SerialNumber"}:                      d.spec.SerialNumber,
		{"", "TimeZone"}:                          "Europe/Berlin",
		{"", "TimeIntervalSince1970"}:             float64(d.spec.Now().Unix()),
		{"", "UniqueDeviceID"}:                    d.spec.UDID,
		{"", "WiFiAddress"}:                       d.spec.WiFiAddress,
		{DomainBackup, "WillEncrypt"}:             false,
		{DomainBackup, "Version"}:                 "2.4",
		{DomainBackup, "RequiresEncryption"}:      false,
		{DomainBackup, "CloudBackupEnabled"}:      false,
		{DomainITunes, "MinITunesVersion"}:        "12.12",
		{DomainStore, "AccountSocialEnabled"}:     false,
		{DomainFindMy, "IsAssociated"}:            false,
		{DomainDiskUsage, "TotalDataCapacity"}:    d.spec.Capacity,
		{DomainDiskUsage, "TotalDiskCapacity"}:    d.spec.Capacity,
		{DomainDiskUsage, "TotalDataAvailable"}:   d.spec.Available,
		{DomainBattery, "BatteryIsCharging"}:      true,
		{DomainBattery, "ExternalConnected"}:      true,
		{DomainWireless, "EnableWifiConnections"}: true,
		{DomainBattery, "BatteryCurrentCapacity"}: uint64(80),
	} {
		d.SetValue(at.domain, at.key, v)
	}
}

// UDID returns the device's identifier.
func (d *Device) UDID() string { return d.spec.UDID }

// Name returns the device's name.
func (d *Device) Name() string { return d.text("", "DeviceName") }

// Handle adds a service or replaces its handler. A nil handler removes the service.
func (d *Device) Handle(service string, h Handler) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if h == nil {
		delete(d.services, service)
		return
	}
	d.services[service] = h
}

// Refuse makes StartService of a service fail with an error such as
// ServiceProhibited. If the service is Lockdown, StartSession fails instead. An empty
// error ends the refusal.
func (d *Device) Refuse(service, lockdownError string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refused == nil {
		d.refused = map[string]string{}
	}
	d.refused[service] = lockdownError
}

func (d *Device) tlsMax() uint16 {
	if d.spec.MaxTLS == 0 {
		return tls.VersionTLS13
	}
	return d.spec.MaxTLS
}

// Lock is the state of a device's screen lock.
type Lock int

const (
	Unlocked       Lock = iota
	Locked              // locked again after it was unlocked
	NotYetUnlocked      // not unlocked since the device was switched on
)

func (l Lock) String() string {
	switch l {
	case Unlocked:
		return "unlocked"
	case Locked:
		return "locked"
	case NotYetUnlocked:
		return "not yet unlocked since it was switched on"
	}
	return fmt.Sprintf("Lock(%d)", int(l))
}

type lockState struct {
	state    Lock
	passcode bool
}

// Lock returns the state of the screen lock.
func (d *Device) Lock() Lock {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lock.state
}

// SetLock locks or unlocks the screen. A device that is locked also gets a passcode.
func (d *Device) SetLock(l Lock) {
	d.mu.Lock()
	d.lock.state = l
	if l != Unlocked {
		d.lock.passcode = true
	}
	d.mu.Unlock()
	d.SetValue("", "PasswordProtected", l != Unlocked)
}

// PasscodeSet reports whether the device has a passcode. A device with a passcode asks
// for it before a backup.
func (d *Device) PasscodeSet() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lock.passcode
}

// SetPasscode sets or removes the passcode. Removing it also unlocks the device.
func (d *Device) SetPasscode(set bool) {
	d.mu.Lock()
	d.lock.passcode = set
	if !set {
		d.lock.state = Unlocked
	}
	d.mu.Unlock()
	if !set {
		d.SetValue("", "PasswordProtected", false)
	}
}
