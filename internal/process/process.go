// Package process identifies processes and tells whether they still run, so
// that locks of dead processes can be removed.
//
// A process is identified by its number, its start time, the boot of its machine, and
// its PID namespace. The namespace is needed since each container has its own. A
// process counts as dead after a restart of its machine only if that is this machine: both
// have the same machine ID and name. A name alone is no evidence, since all Raspberry Pis
// are called "raspberrypi". The package never says that a process of another machine or namespace is
// alive or dead.
package process

import (
	"os"
	"os/user"
)

// Identity identifies a process. Fields that the system does not report are
// empty.
type Identity struct {
	Host         string `json:"host"` // for people
	User         string `json:"user,omitempty"`
	PID          int    `json:"pid"`
	Started      string `json:"started,omitempty"` // in the unit of the system; only for comparison
	Boot         string `json:"boot,omitempty"`    // ID of the boot
	PIDNamespace string `json:"space,omitempty"`   // Linux only
	Machine      string `json:"machine,omitempty"` // hash of the machine ID
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
	id := Identity{PID: os.Getpid(), Boot: boot(), PIDNamespace: pidNamespace(), Machine: machine()}
	id.Host, _ = os.Hostname()
	if u, err := user.Current(); err == nil {
		id.User = u.Username
	}
	id.Started, _ = started(id.PID)
	return id
}

// State returns the state of id, as seen from self.
func (id Identity) State(self Identity) State {
	// Cloned machines can share a machine ID. Few of them also share a name.
	sameMachine := id.Machine != "" && id.Machine == self.Machine && id.Host != "" && id.Host == self.Host
	switch {
	case id.PIDNamespace != self.PIDNamespace:
		return Unknown
	case id.Boot != "" && id.Boot == self.Boot:
		return id.running()
	case id.Boot == "" && self.Boot == "" && sameMachine && startsUnique:
		return id.running()
	case id.Boot != "" && self.Boot != "" && sameMachine && !contained(id.PIDNamespace):
		return Dead // the machine was restarted
	}
	return Unknown
}

// running returns the state of a process of this boot and namespace.
func (id Identity) running() State {
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
