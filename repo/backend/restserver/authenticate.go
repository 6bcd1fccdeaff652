package restserver

import (
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// authenticate finds out who sends the request.
func (q *request) authenticate() error {
	if q.opts.Certificates && q.TLS != nil && len(q.TLS.VerifiedChains) > 0 {
		name := q.TLS.VerifiedChains[0][0].Subject.CommonName
		if err := CheckUserName(name); err != nil {
			return &refusal{status: http.StatusForbidden, text: "the common name of the client certificate is not a name of a user", cause: err}
		}
		q.user = name
		return nil
	}
	if q.opts.Users != nil {
		if name, password, ok := q.BasicAuth(); ok {
			return q.login(name, password)
		}
	}
	if q.opts.Anybody {
		return nil
	}
	return q.unauthorized()
}

func (q *request) unauthorized() error {
	if q.opts.Users != nil {
		q.w.Header().Set("WWW-Authenticate", `Basic realm="snap", charset="UTF-8"`)
	}
	return &refusal{status: http.StatusUnauthorized, text: "a user and the right password, or a client certificate, are needed"}
}

// login checks a password. An address that has tried wrong ones must wait, unless the
// password is known to be right: attempts of others do not end a backup.
func (q *request) login(name, password string) error {
	if q.opts.Users.isKnown(name, password) {
		q.user = name
		return nil
	}
	host := remoteOf(q.Request)
	// An attempt counts as wrong before the check, or many at the same time would count late.
	if wait := q.failures.attempt(host); wait > 0 {
		return &refusal{status: http.StatusTooManyRequests, text: "too many wrong passwords came from this address", after: wait}
	}
	right, err := q.opts.Users.check(q.Context(), name, password)
	if err != nil {
		return err
	}
	if !right {
		return q.unauthorized()
	}
	q.failures.forget(host)
	q.user = name
	return nil
}

const (
	freeFailures = 10 // wrong passwords that cost nothing
	longestWait  = 5 * time.Minute
	maxHosts     = 1024
)

// failures count the wrong passwords of addresses.
type failures struct {
	now func() time.Time

	mu    sync.Mutex
	hosts map[string]*failure
}

type failure struct {
	count int
	until time.Time // no attempt before
	last  time.Time
}

// hostKey returns what counts as one address: a host with IPv6 has 2^64 of them.
func hostKey(host string) string {
	a, err := netip.ParseAddr(host)
	if err != nil || !a.Is6() || a.Is4In6() {
		return host
	}
	p, err := a.WithZone("").Prefix(64)
	if err != nil {
		return host
	}
	return p.String()
}

// attempt notes an attempt of an address, or returns how long the address must wait before it.
func (f *failures) attempt(host string) (wait time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, key := f.now(), hostKey(host)
	h := f.hosts[key]
	if h == nil {
		f.makeRoom(now)
		h = &failure{}
		f.hosts[key] = h
	}
	if wait := h.until.Sub(now); wait > 0 {
		return wait
	}
	h.count++
	h.last = now
	if over := h.count - freeFailures; over > 0 {
		h.until = now.Add(min(longestWait, time.Second<<min(over-1, 20)))
	}
	return 0
}

// makeRoom forgets addresses that have not tried for long, and, if there are too many, one
// of the others.
func (f *failures) makeRoom(now time.Time) {
	for key, h := range f.hosts {
		if now.Sub(h.last) > 2*longestWait {
			delete(f.hosts, key)
		}
	}
	for key := range f.hosts {
		if len(f.hosts) < maxHosts {
			return
		}
		delete(f.hosts, key)
	}
}

// forget forgets an address that knows a password.
func (f *failures) forget(host string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.hosts, hostKey(host))
}
