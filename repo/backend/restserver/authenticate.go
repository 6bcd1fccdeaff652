package restserver

import (
	"math"
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

// login checks a password. An address that has tried wrong ones of a user must wait, unless
// the password is known to be right: attempts of others do not end a backup. Behind a proxy,
// all clients have one address; whoever guesses there slows only the users whose passwords
// they guess.
func (q *request) login(name, password string) error {
	if q.opts.Users.isKnown(name, password) {
		q.user = name
		return nil
	}
	from := guesser(remoteOf(q.Request), name)
	// An attempt counts as wrong before the check, or many at the same time would count late.
	if wait := q.failures.attempt(from); wait > 0 {
		return &refusal{status: http.StatusTooManyRequests, text: "too many wrong passwords of this user came from this address", after: wait}
	}
	right, err := q.opts.Users.check(q.Context(), name, password)
	if err != nil {
		return err
	}
	if !right {
		return q.unauthorized()
	}
	q.failures.forget(from)
	q.user = name
	return nil
}

const (
	freeFailures = 10 // wrong passwords that cost nothing
	longestWait  = 5 * time.Minute
	maxGuessers  = 4096
)

// failures count the wrong passwords of users, by address.
type failures struct {
	now func() time.Time

	mu       sync.Mutex
	guessers map[[2]string]*failure
}

type failure struct {
	count int
	until time.Time // no attempt before
	last  time.Time
}

// guesser returns what wrong passwords are counted by: an address and a user. No name that
// a client sends is kept if it cannot be a user.
func guesser(host, user string) [2]string {
	if CheckUserName(user) != nil {
		user = ""
	}
	return [2]string{hostKey(host), user}
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

// attempt notes an attempt of a guesser, or returns how long to wait before it.
func (f *failures) attempt(from [2]string) (wait time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	h := f.guessers[from]
	if h == nil {
		f.makeRoom(now)
		h = &failure{}
		f.guessers[from] = h
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

// makeRoom forgets guessers that have not tried for long and, if there are too many, one
// that has tried the least: many made-up users must not make a real one forgotten.
func (f *failures) makeRoom(now time.Time) {
	var least [2]string
	fewest := math.MaxInt
	for key, h := range f.guessers {
		if now.Sub(h.last) > 2*longestWait {
			delete(f.guessers, key)
		} else if h.count < fewest {
			least, fewest = key, h.count
		}
	}
	if len(f.guessers) >= maxGuessers {
		delete(f.guessers, least)
	}
}

// forget forgets a guesser who knows the password.
func (f *failures) forget(from [2]string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.guessers, from)
}
