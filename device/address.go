package device

import (
	"fmt"
	"net"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// AddressVariable is the environment variable with the address of usbmuxd.
const AddressVariable = "USBMUXD_SOCKET_ADDRESS"

// parseAddress parses the address of usbmuxd: UNIX:/path, UNIX:///path, /path,
// host:port or tcp://host:port; "" is the default of the system. (go-ios misreads
// some of these and panics for others.)
func parseAddress(s, goos string) (network, address string, err error) {
	scheme, rest, named := strings.Cut(s, ":")
	switch {
	case s == "" && goos == "windows":
		return "tcp", "127.0.0.1:27015", nil
	case s == "":
		return "unix", "/var/run/usbmuxd", nil
	case named && strings.EqualFold(scheme, "unix"):
		// UNIX:///path is a URL without a host. UNIX://relative has no valid path and is
		// refused below.
		if p, ok := strings.CutPrefix(rest, "//"); ok {
			rest = p
		}
		network, address = "unix", rest
	case path.IsAbs(s):
		network, address = "unix", s
	default:
		if named && strings.EqualFold(scheme, "tcp") {
			s = strings.TrimPrefix(rest, "//")
		}
		network, address = "tcp", s
	}
	if network == "unix" {
		if !path.IsAbs(address) && !filepath.IsAbs(address) {
			return "", "", fmt.Errorf("%s is %q: the path after UNIX: must begin with /", AddressVariable, s)
		}
		return network, address, nil
	}
	host, port, err := net.SplitHostPort(address)
	if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || host == "" || n == 0 {
		return "", "", fmt.Errorf("%s is %q: use UNIX:/path or host:port", AddressVariable, s)
	}
	return network, address, nil
}

// MuxHint says how to get a usbmuxd on a system with this runtime.GOOS.
func MuxHint(goos string) string {
	switch goos {
	case "darwin":
		return "usbmuxd is part of macOS: connect the device and unlock it, or restart the computer; check " + AddressVariable + " if it is set"
	case "windows":
		return "install Apple Devices from the Microsoft Store, or iTunes, and let it run once; check " + AddressVariable + " if it is set"
	}
	return "connect a device by cable, which starts usbmuxd; if it is not installed: apt install usbmuxd (Debian, Ubuntu), dnf install usbmuxd (Fedora), pacman -S usbmuxd (Arch); check " + AddressVariable + " if it is set"
}
