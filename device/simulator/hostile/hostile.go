// Package hostile provides attacks of a device on its host: requests with paths
// outside of the backup folder, broken framing, endless transfers.
//
// If an attack succeeds, it is reported as a violation of the host.
package hostile

import (
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/snap-backup/snap/device/protocol/devicelink"
	"github.com/snap-backup/snap/device/simulator/hostfiles"
)

// Conn is the connection to a host.
type Conn interface {
	net.Conn
	// Cut closes the connection at once, without a goodbye.
	Cut()
	// CloseWrite closes the sending side, if the connection can do that.
	CloseWrite() error
}

// Target is an attacked host.
type Target struct {
	*hostfiles.Client
	Link    *devicelink.Conn
	Conn    Conn
	UDID    string // UDID of the attacking device
	Violate func(format string, args ...any)
}

// Attack attacks a host. size is the number of bytes or requests that an endless
// attack sends; 0 means the default of the attack. An error ends the conversation. If
// the attack ends the conversation on purpose, the error is hostfiles.ErrOver.
type Attack func(t *Target, size int64) error

// Names returns the names of all attacks. Attacks with paths have names of the form
// OPERATION-PATH.
func Names() []string {
	names := slices.Collect(maps.Keys(framingAttacks()))
	for operation := range pathAttacks() {
		for kind := range badPaths("") {
			names = append(names, operation+"-"+kind)
		}
	}
	slices.Sort(names)
	return names
}

// Named returns the attack with a name, or nil if no attack has this name.
func Named(name string) Attack {
	if a := framingAttacks()[name]; a != nil {
		return a
	}
	i := strings.LastIndexByte(name, '-')
	if i < 0 {
		return nil
	}
	operation, kind := pathAttacks()[name[:i]], name[i+1:]
	if _, ok := badPaths("")[kind]; operation == nil || !ok {
		return nil
	}
	return func(t *Target, _ int64) error {
		path := badPaths(t.UDID)[kind]
		accepted, err := operation(t, path)
		if err == nil && accepted {
			t.Violate("attack %s: the host accepts the path %.100q", name, path)
		}
		return err
	}
}

// Framing reports whether the attack with a name breaks the framing. A host can
// answer such an attack only by ending the conversation.
func Framing(name string) bool { return framingAttacks()[name] != nil }
