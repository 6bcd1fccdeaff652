package simulator

import (
	"maps"
	"sync"

	"github.com/snap-backup/snap/device/protocol/plist"
)

// Domains of those values of lockdownd that concern backups. Global values have the
// empty domain.
const (
	DomainBackup    = "com.apple.mobile.backup"
	DomainITunes    = "com.apple.mobile.iTunes"
	DomainStore     = "com.apple.iTunes"
	DomainFindMy    = "com.apple.fmip"
	DomainDiskUsage = "com.apple.disk_usage"
	DomainBattery   = "com.apple.mobile.battery"
	DomainWireless  = "com.apple.mobile.wireless_lockdown"
)

// Limits of the values that a host may set.
const (
	maxDomains = 64
	maxKeys    = 512
	maxHostSet = 4 << 20 // bytes of all values that hosts have ever set
)

type valueKey struct{ domain, key string }

// valueStore holds the values of lockdownd.
type valueStore struct {
	mu      sync.Mutex
	domains map[string]map[string]any
	hostSet int // number of bytes that hosts have set so far
}

func (s *valueStore) get(domain, key string) (any, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.domains[domain][key]
	return v, ok
}

func (s *valueStore) all(domain string) map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.domains[domain])
}

// set stores a value, or removes it if v is nil. It returns false if there was not
// enough space.
func (s *valueStore) set(domain, key string, v any) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v == nil {
		delete(s.domains[domain], key)
		return true
	}
	if s.domains == nil {
		s.domains = map[string]map[string]any{}
	}
	d := s.domains[domain]
	if d == nil {
		if len(s.domains) == maxDomains {
			return false
		}
		d = map[string]any{}
		s.domains[domain] = d
	}
	if _, ok := d[key]; !ok && len(d) == maxKeys {
		return false
	}
	d[key] = v
	return true
}

// setByHost stores a value that a host sends. It returns false if the value would
// exceed a limit.
func (s *valueStore) setByHost(domain, key string, v any) bool {
	b, err := plist.EncodeBinary(v)
	if err != nil {
		return false
	}
	s.mu.Lock()
	s.hostSet += len(domain) + len(key) + len(b)
	full := s.hostSet > maxHostSet
	s.mu.Unlock()
	return !full && s.set(domain, key, v)
}

// Value returns a value of lockdownd, or nil if it is not set.
func (d *Device) Value(domain, key string) any {
	v, _ := d.values.get(domain, key)
	return v
}

// Values returns all values of a domain.
func (d *Device) Values(domain string) map[string]any { return d.values.all(domain) }

// SetValue sets a value of lockdownd, or removes it if v is nil. Any other v must have
// a type of property lists: string, bool, number, []byte, time.Time, []any or
// map[string]any.
func (d *Device) SetValue(domain, key string, v any) { d.values.set(domain, key, v) }

// text returns a value if it is a string, and "" otherwise.
func (d *Device) text(domain, key string) string {
	s, _ := d.Value(domain, key).(string)
	return s
}

// public reports whether lockdownd returns the global value of key even outside of a
// session.
func public(key string) bool {
	switch key {
	case "BuildVersion", "CPUArchitecture", "DeviceClass", "DeviceColor", "DeviceName", "DevicePublicKey",
		"HardwareModel", "ProductName", "ProductType", "ProductVersion", "ProtocolVersion",
		"SupportedDeviceFamilies", "UniqueChipID", "UniqueDeviceID", "WiFiAddress":
		return true
	}
	return false
}

// writable reports whether a host may set the value of a key.
func writable(domain, key string) bool {
	switch domain {
	case "":
		switch key {
		case "DeviceName", "TimeZone", "TimeIntervalSince1970", "Uses24HourClock", "UntrustedHostBUID":
			return true
		}
		return false
	case DomainBackup, DomainFindMy, DomainDiskUsage, DomainBattery:
		return false
	}
	return true
}
