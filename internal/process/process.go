// Package process identifies processes and tells whether they still run, so
// that locks of dead processes can be removed.
//
// A process is identified by its number, its start time, its host, the boot of
// that host, and its PID namespace. The namespace is needed since each container
// has its own. The package never says that a process of another host or namespace
// is alive or dead.
package process

import (
	"os"
	"os/user"
)

// Identity identifies a process. Fields that the system does not report are
// empty.
type Identity struct {
	Host         string `json:"host"`
	User         string `json:"user,omitempty"`
	PID          int    `json:"pid"`
	Started      string `json:"started,omitempty"` // in the unit of the system; only for comparison
	Boot         string `json:"boot,omitempty"`    // ID of the boot
	PIDNamespace string `json:"space,omitempty"`   // Linux only
}

// State is what is known of a process.
type State int

// The states of a process.
const (
	Unknown State = iota // the process runs elsewhere, or the system does not report its state
	Alive
	Dead
)

// Current describes this process.
func Current() Identity {
	id := Identity{PID: os.Getpid(), Boot: boot(), PIDNamespace: pidNamespace()}
	id.Host, _ = os.Hostname()
	if u, err := user.Current(); err == nil {
		id.User = u.Username
	}
	id.Started, _ = started(id.PID)
	return id
}

// State returns the state of id, as seen from self.
func (id Identity) State(self Identity) State {
	if id.Host == "" || id.Host != self.Host || id.PIDNamespace != self.PIDNamespace {
		return Unknown
	}
	if id.Boot != "" && self.Boot != "" && id.Boot != self.Boot {
		return Dead // the host was restarted
	}
	if id.Started == "" {
		return Unknown
	}
	now, exists := started(id.PID)
	switch {
	case !exists:
		return Dead
	case now == "":
		return Unknown
	case now != id.Started:
		return Dead // the number was reused
	}
	return Alive
}
