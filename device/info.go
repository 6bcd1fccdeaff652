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

// Domains of values of lockdownd.
const (
	BackupDomain  = "com.apple.mobile.backup"
	batteryDomain = "com.apple.mobile.battery"
	diskDomain    = "com.apple.disk_usage"
	findMyDomain  = "com.apple.fmip"
)

// Info describes a device. A field is empty or nil if the device did not send its
// value. A device sends most values only to computers that it trusts.
type Info struct {
	UDID           string `json:"udid"`
	Name           string `json:"device_name"`
	ProductType    string `json:"product_type"`
	Model          string `json:"model"` // the name under which Apple sells it, or ProductType
	ProductVersion string `json:"product_version"`
	BuildVersion   string `json:"build_version,omitempty"`
	SerialNumber   string `json:"serial_number,omitempty"`
	Connection     Kind   `json:"connection"`  // the link in use
	Connections    []Kind `json:"connections"` // all links
	Trust          Trust  `json:"trust"`

	WillEncrypt        *bool `json:"will_encrypt,omitempty"`        // its backups are encrypted
	RequiresEncryption *bool `json:"requires_encryption,omitempty"` // its backups must be encrypted
	CloudBackup        *bool `json:"cloud_backup,omitempty"`        // it backs up to iCloud
	PasscodeSet        *bool `json:"passcode_set,omitempty"`
	FindMy             *bool `json:"find_my,omitempty"` // Find My is on; the device then refuses a restore

	Battery    *Battery   `json:"battery,omitempty"`
	Storage    *Storage   `json:"storage,omitempty"`
	LastBackup *time.Time `json:"last_computer_backup,omitempty"` // to any computer, according to the device
}

// Battery is the charge of a battery.
type Battery struct {
	Percent  int  `json:"percent"`
	Charging bool `json:"charging"`
}

// Storage is the space for data on a device, in bytes.
type Storage struct {
	Total int64 `json:"total_bytes"`
	Free  int64 `json:"free_bytes"`
}

// backupService is a service that a device starts even while its screen is
// locked, if it has been unlocked since it was switched on.
const backupService = "com.apple.mobilebackup2"

// neverUnlocked reports whether the device has not been unlocked since it was
// switched on. No value of lockdownd says that, so it tries to start a service.
func (s *Session) neverUnlocked(ctx context.Context) bool {
	fields := map[string]any{"Service": backupService}
	if s.record != nil && len(s.record.EscrowBag) > 0 {
		fields["EscrowBag"] = s.record.EscrowBag
	}
	_, err := s.ask(ctx, "StartService", fields)
	return errors.Is(err, ErrLocked)
}

// describeTimeout limits Describe.
const describeTimeout = time.Minute

// Describe asks a device about itself. It is not an error if the device does not
// trust this computer: Info.Trust says so, and the Info has the values that a
// device sends to any computer. If Describe fails, it also returns an Info, with
// the values that it has received.
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
	if general.Bool("PasswordProtected") && s.neverUnlocked(ctx) {
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

// maxText limits a text in an Info, in bytes.
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
	// PasswordProtected says whether a passcode locks the screen now, so false
	// does not mean that no passcode is set.
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

// seconds returns v, a number of seconds, if a Duration can hold it.
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
