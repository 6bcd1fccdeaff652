//go:build dragonfly || freebsd || linux || netbsd || openbsd

package keyring

import (
	"fmt"
	"slices"

	"github.com/godbus/dbus/v5"
)

// secrets is the name of the Secret Service on the session bus.
const secrets = "org.freedesktop.secrets"

// probe returns an error if there is no session bus, or no program that keeps secrets. It
// starts no bus: the library would run dbus-launch.
func busProbe() error {
	conn, err := dbus.SessionBusPrivateNoAutoStartup()
	if err != nil {
		return fmt.Errorf("%w: there is no session bus (DBUS_SESSION_BUS_ADDRESS), as in a scheduled job or a login by SSH", ErrUnavailable)
	}
	defer conn.Close()
	if err = conn.Auth(nil); err == nil {
		err = conn.Hello()
	}
	if err != nil {
		return fmt.Errorf("%w: the session bus refuses this program: %w", ErrUnavailable, err)
	}
	var running bool
	if err := conn.BusObject().Call("org.freedesktop.DBus.NameHasOwner", 0, secrets).Store(&running); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if running {
		return nil
	}
	var can []string
	if err := conn.BusObject().Call("org.freedesktop.DBus.ListActivatableNames", 0).Store(&can); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if !slices.Contains(can, secrets) {
		return fmt.Errorf("%w: no program keeps secrets here; gnome-keyring, KWallet and KeePassXC do", ErrUnavailable)
	}
	return nil
}
