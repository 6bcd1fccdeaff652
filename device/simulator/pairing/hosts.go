// Package pairing manages the hosts that a simulated device trusts. It decides which
// hosts may pair, pairs them, and provides the certificates and TLS of a pairing.
//
// It reports the mistakes of hosts, and never keeps more than a fixed number of hosts.
package pairing

import (
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Answer is a device's answer to a host that wants to pair.
type Answer int

// The answers.
const (
	Ask    Answer = iota // the device shows the Trust dialog
	Always               // the owner taps "Trust" at once
	Never                // the owner taps "Don't Trust" at once
)

// maxHosts is the greatest number of hosts that a device trusts.
const maxHosts = 64

// Host is a trusted host.
type Host struct {
	ID, BUID     string
	Certificates Certificates
	EscrowBag    []byte
}

// Errors of lockdownd.
const (
	InvalidHostID     = "InvalidHostID"
	PasswordProtected = "PasswordProtected"

	errDialogPending     = "PairingDialogResponsePending"
	errUserDenied        = "UserDeniedPairing"
	errManaged           = "MCProtected"
	errNotHere           = "PairingProhibitedOverThisConnection"
	errInvalidPairRecord = "InvalidPairRecord"
)

// Hosts holds the hosts that a device trusts, and its Trust dialog. New makes one.
type Hosts struct {
	key     func() (*rsa.PrivateKey, error) // returns the device's key
	log     func(kind, detail string)
	violate func(format string, args ...any)

	mu      sync.Mutex
	policy  Answer
	managed bool // a profile forbids pairing with further hosts
	hosts   map[string]Host
	showing bool   // whether the device shows the Trust dialog
	answer  *bool  // whether the owner tapped "Trust"; nil if the owner tapped nothing
	refused string // identifier of the host that was refused
}

// New returns the Hosts of a new device, which trusts no host yet. key returns the
// device's key.
func New(policy Answer, managed bool, key func() (*rsa.PrivateKey, error), log func(kind, detail string), violate func(format string, args ...any)) *Hosts {
	return &Hosts{key: key, log: log, violate: violate, policy: policy, managed: managed, hosts: map[string]Host{}}
}

// SetPolicy sets the answer to hosts that want to pair. Trusted hosts stay trusted.
func (s *Hosts) SetPolicy(a Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.policy, s.answer = a, nil
}

// SetManaged sets whether a profile forbids pairing with further hosts.
func (s *Hosts) SetManaged(managed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.managed = managed
}

// Dialog reports whether the device shows the Trust dialog.
func (s *Hosts) Dialog() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.showing
}

// Tap taps "Trust" (yes is true) or "Don't Trust" for the host that asks next. A
// refusal holds for that host until Reconnected is called. If another host asks, or
// the same host with a new identifier, the device shows the dialog again.
func (s *Hosts) Tap(yes bool) {
	s.mu.Lock()
	s.answer, s.showing, s.refused = &yes, false, ""
	s.mu.Unlock()
	s.log("answer", fmt.Sprint(yes))
}

// Forget removes all trusted hosts.
func (s *Hosts) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.hosts)
	s.answer = nil
}

// Reconnected drops a refusal, as attaching the device again does.
func (s *Hosts) Reconnected() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.answer != nil && !*s.answer {
		s.answer = nil
	}
}

// Host returns a trusted host.
func (s *Hosts) Host(id string) (Host, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.hosts[id]
	return h, ok
}

// All returns the trusted hosts in the order of their identifiers.
func (s *Hosts) All() []Host {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Values(s.hosts), func(a, b Host) int { return strings.Compare(a.ID, b.ID) })
}

var errHosts = errors.New("the device trusts too many hosts")

// Add makes the device trust a host.
func (s *Hosts) Add(h Host) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.hosts[h.ID]; !ok && len(s.hosts) >= maxHosts {
		return errHosts
	}
	s.answer = nil
	s.hosts[h.ID] = h
	return nil
}

// NewID returns a random identifier in the form of a UUID.
func NewID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%X-%X-%X-%X-%X", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
