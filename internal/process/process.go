// Package process tells who works on something, and whether that one is still
// alive: it is the evidence on which locks are judged.
//
// A process is known by its number together with when it started, on which
// boot of which machine, and in which space of process numbers (containers on
// one machine have their own). Of a process elsewhere nothing can be said.
package process

import (
	"os"
	"os/user"
)

// Identity is a process. Fields that a system cannot tell are empty.
type Identity struct {
	Host    string `json:"host"`
	User    string `json:"user,omitempty"`
	PID     int    `json:"pid"`
	Started string `json:"started,omitempty"` // as the system counts, for comparing only
	Boot    string `json:"boot,omitempty"`    // of the machine
	Space   string `json:"space,omitempty"`   // of process numbers
}

// State is what is known of a process.
type State int

// The states of an owner.
const (
	Unknown State = iota // it runs elsewhere, or the system does not tell
	Alive
	Dead
)

// Self describes this process.
func Self() Identity {
	o := Identity{PID: os.Getpid(), Boot: boot(), Space: space()}
	o.Host, _ = os.Hostname()
	if u, err := user.Current(); err == nil {
		o.User = u.Username
	}
	o.Started, _ = started(o.PID)
	return o
}

// State judges o, as seen from self.
func (o Identity) State(self Identity) State {
	if o.Host == "" || o.Host != self.Host || o.Space != self.Space {
		return Unknown
	}
	if o.Boot != "" && self.Boot != "" && o.Boot != self.Boot {
		return Dead // the machine was started anew
	}
	if o.Started == "" {
		return Unknown
	}
	now, exists := started(o.PID)
	switch {
	case !exists:
		return Dead
	case now == "":
		return Unknown
	case now != o.Started:
		return Dead // another process has its number
	}
	return Alive
}
