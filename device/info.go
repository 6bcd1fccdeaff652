package device

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/snap-backup/snap/device/protocol/service"
	"github.com/snap-backup/snap/device/protocol/stream"
)

// Domains of values that lockdownd keeps.
const (
	BackupDomain  = "com.apple.mobile.backup"
	batteryDomain = "com.apple.mobile.battery"
	diskDomain    = "com.apple.disk_usage"
	findMyDomain  = "com.apple.fmip"
)

// Info describes a device. What it did not tell, or tells only to a computer
// that it trusts, is empty or nil.
type Info struct {
	UDID           string `json:"udid"`
	Name           string `json:"device_name"`
	ProductType    string `json:"product_type"`
	Model          string `json:"model"` // its name in a shop, or ProductType
	ProductVersion string `json:"product_version"`
	BuildVersion   string `json:"build_version,omitempty"`
	SerialNumber   string `json:"serial_number,omitempty"`
	Connection     Kind   `json:"connection"`  // the link in use
	Connections    []Kind `json:"connections"` // all links
	Trust          Trust  `json:"trust"`

	WillEncrypt        *bool `json:"will_encrypt,omitempty"`        // its backups are encrypted
	RequiresEncryption *bool `json:"requires_encryption,omitempty"` // and have to be
	CloudBackup        *bool `json:"cloud_backup,omitempty"`        // it backs up to iCloud
	PasscodeSet        *bool `json:"passcode_set,omitempty"`
	FindMy             *bool `json:"find_my,omitempty"` // restoring is refused while it is on

	Battery    *Battery   `json:"battery,omitempty"`
	Storage    *Storage   `json:"storage,omitempty"`
	LastBackup *time.Time `json:"last_computer_backup,omitempty"` // to any computer, by its own account
}

// Battery is how full a battery is.
type Battery struct {
	Percent  int  `json:"percent"`
	Charging bool `json:"charging"`
}

// Storage is the room on a device for data, in bytes.
type Storage struct {
	Total int64 `json:"total_bytes"`
	Free  int64 `json:"free_bytes"`
}

// backupService is the one service that devices start behind a locked screen,
// though not before they were unlocked for the first time.
const backupService = "com.apple.mobilebackup2"

// sealed reports whether the device has not been unlocked since it was switched
// on. Nothing but the attempt to start a service tells; it is not connected to.
func (s *Session) sealed(ctx context.Context) bool {
	more := map[string]any{"Service": backupService}
	if s.record != nil && len(s.record.EscrowBag) > 0 {
		more["EscrowBag"] = s.record.EscrowBag
	}
	_, err := s.ask(ctx, "StartService", more)
	return errors.Is(err, ErrLocked)
}

// describeTimeout bounds a Describe as a whole.
const describeTimeout = time.Minute

// Describe asks a device about itself. If it does not let this computer in,
// Trust says so and what it tells everybody is filled in; that is no error.
// With an error the Info holds what is known.
func (m *Mux) Describe(ctx context.Context, e Entry) (*Info, error) {
	ctx, cancel := context.WithTimeout(ctx, describeTimeout)
	defer cancel()
	info := &Info{UDID: e.UDID, Connection: e.Link().Kind, Trust: Unknown}
	for _, l := range e.Links {
		info.Connections = append(info.Connections, l.Kind)
	}
	s, err := m.Session(ctx, e)
	info.Trust = trustOf(err)
	if err != nil {
		if info.Trust == Unknown {
			return info, err
		}
		if s, err = m.lockdown(ctx, e); err != nil {
			return info, err
		}
	}
	defer s.Close()
	general, err := s.Values(ctx, "")
	if err != nil {
		return info, fmt.Errorf("device %s: %w", e.UDID, err)
	}
	info.general(general)
	if info.Trust != Trusted {
		return info, nil
	}
	if general.Bool("PasswordProtected") && s.sealed(ctx) {
		info.Trust = Locked
	}
	for _, d := range []struct {
		domain string
		fill   func(stream.Dict)
	}{
		{BackupDomain, info.backup}, {batteryDomain, info.battery}, {diskDomain, info.disk}, {findMyDomain, info.findMy},
	} {
		values, err := s.Values(ctx, d.domain)
		var refused *Refusal
		if err != nil && !errors.As(err, &refused) {
			return info, fmt.Errorf("device %s: %w", e.UDID, err)
		}
		d.fill(values)
	}
	if c, err := s.StartService(ctx, service.DiagnosticsRelay, false); err == nil {
		if set, known, err := service.PasscodeSet(ctx, c); err == nil && known {
			info.PasscodeSet = &set
		}
	}
	return info, ctx.Err()
}

// maxText bounds a text in an Info, in bytes.
const maxText = 1 << 10

func text(d stream.Dict, key string) string {
	s := strings.ToValidUTF8(d.String(key), "\uFFFD")
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "")
	}
	return s
}

func flag(d stream.Dict, key string) *bool {
	if !d.Has(key) {
		return nil
	}
	b := d.Bool(key)
	return &b
}

func (i *Info) general(d stream.Dict) {
	i.Name, i.ProductType = text(d, "DeviceName"), text(d, "ProductType")
	i.Model = Model(i.ProductType)
	i.ProductVersion, i.BuildVersion, i.SerialNumber = text(d, "ProductVersion"), text(d, "BuildVersion"), text(d, "SerialNumber")
	// It says whether the screen is locked by a passcode: if so, there is one.
	if d.Bool("PasswordProtected") {
		i.PasscodeSet = flag(d, "PasswordProtected")
	}
}

func (i *Info) backup(d stream.Dict) {
	i.WillEncrypt, i.RequiresEncryption, i.CloudBackup = flag(d, "WillEncrypt"), flag(d, "RequiresEncryption"), flag(d, "CloudBackupEnabled")
	t := d.Time("LastiTunesBackupDate")
	if n, ok := seconds(d["LastiTunesBackupDate"]); ok {
		t = time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(n) * time.Second)
	}
	if y := t.Year(); !t.IsZero() && y >= 2001 && y <= 9999 {
		i.LastBackup = &t
	}
}

// seconds reads a date that is stored as seconds since 2001, if it is within
// what a Duration holds.
func seconds(v any) (int64, bool) {
	var f float64
	switch n := v.(type) {
	case int64:
		f = float64(n)
	case float64:
		f = n
	default:
		return 0, false
	}
	return int64(f), f > 0 && f < float64(math.MaxInt64/int64(time.Second))
}

func (i *Info) battery(d stream.Dict) {
	if n, ok := d.Int("BatteryCurrentCapacity"); ok && n >= 0 && n <= 100 {
		i.Battery = &Battery{int(n), d.Bool("BatteryIsCharging")}
	}
}

func (i *Info) disk(d stream.Dict) {
	total, ok := d.Int("TotalDataCapacity")
	free, known := d.Int("TotalDataAvailable")
	if ok && known && total > 0 && free >= 0 && free <= total {
		i.Storage = &Storage{total, free}
	}
}

func (i *Info) findMy(d stream.Dict) { i.FindMy = flag(d, "IsAssociated") }
