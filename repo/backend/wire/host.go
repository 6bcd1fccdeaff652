package wire

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// HostFault says what is wrong with a host and port; "" if nothing.
func HostFault(hostport string) string {
	host := hostport
	if i := strings.LastIndexByte(hostport, ':'); i >= 0 && !strings.HasSuffix(hostport, "]") {
		host = hostport[:i]
		if port, err := strconv.ParseUint(hostport[i+1:], 10, 16); err != nil || port == 0 {
			return "the port is not a number from 1 to 65535"
		}
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		if a, err := netip.ParseAddr(strings.TrimSuffix(inner, "]")); err != nil || !a.Is6() || a.Zone() != "" || !strings.HasSuffix(inner, "]") {
			return "the host is not an IPv6 address in brackets"
		}
		return ""
	}
	if host == "" {
		return "it has no host"
	}
	if len(host) > 253 || strings.Trim(host, "abcdefghijklmnopqrstuvwxyz0123456789.-_") != "" ||
		strings.HasPrefix(host, ".") || strings.Contains(host, "..") || strings.HasPrefix(host, "-") {
		return "the host is not the name of a computer"
	}
	return ""
}

// Loopback reports whether a host is this computer.
func Loopback(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && a.IsLoopback()
}
