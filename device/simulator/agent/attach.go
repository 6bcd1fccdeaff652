package agent

import (
	"context"
	"net"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/simulator"
)

// Names of the device's values, notifications and files that the agent uses.
const (
	willEncrypt         = "WillEncrypt"
	domainChanged       = "com.apple.mobile.backup.domain_changed"
	restoreApplications = "/iTunesRestore/RestoreApplications.plist"
)

// Attach gives a simulated device a backup agent. The agent takes the device's
// name and versions, tells lockdown whether backups are encrypted, and adds its
// violations to those of the device. If the device has not been unlocked since it
// was switched on, the agent answers with error 208.
func Attach(d *simulator.Device, o Options) (*Agent, error) {
	text := func(key string) string {
		s, _ := d.Value("", key).(string)
		return s
	}
	if o.Device.UDID == "" {
		o.Device = mobilesync.Device{UDID: d.UDID(), Name: d.Name(), ProductType: text("ProductType"), ProductVersion: text("ProductVersion"),
			BuildVersion: text("BuildVersion"), SerialNumber: text("SerialNumber")}
	}
	onEncryption := o.OnEncryption
	o.OnEncryption = func(on bool) {
		d.SetValue(simulator.DomainBackup, willEncrypt, on)
		d.Notify(domainChanged)
		if onEncryption != nil {
			onEncryption(on)
		}
	}
	if o.Applications == nil {
		o.Applications = func() ([]byte, bool) { return d.ReadFile(restoreApplications) }
	}
	if o.Locked == nil {
		o.Locked = func() bool { return d.Lock() == simulator.NotYetUnlocked }
	}
	onViolation := o.OnViolation
	o.OnViolation = func(text string) {
		d.Violate("%s: %s", simulator.MobileBackup2, text)
		if onViolation != nil {
			onViolation(text)
		}
	}
	a, err := New(o)
	if err != nil {
		return nil, err
	}
	d.SetValue(simulator.DomainBackup, willEncrypt, a.WillEncrypt())
	d.Handle(simulator.MobileBackup2, func(ctx context.Context, conn net.Conn) {
		if err := a.Serve(ctx, conn); err != nil {
			d.Log(simulator.MobileBackup2, "ended", err.Error())
		}
	})
	return a, nil
}
