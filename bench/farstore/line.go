// Package farstore has an object store at the end of a long line, for benchmarks. It counts
// what programs ask the store for.
package farstore

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Traffic is what a program asked an object store for.
type Traffic struct {
	Requests int   `json:"requests"`
	Bytes    int64 `json:"bytes"` // of the content, in both directions
}

// Line leads to an object store. It counts requests, and delays the bytes in both directions,
// as a long line does.
type Line struct {
	Addr     string // where programs connect
	listener net.Listener
	counter  *http.Server
	inner    string        // where the counter listens
	delay    time.Duration // in each direction

	mu     sync.Mutex
	counts map[string]Traffic // by method and folder, such as "PUT packs"
}

// Open opens a line to the store at an address such as 127.0.0.1:9000. A request and its answer take roundTrip
// more than without the line.
func Open(ctx context.Context, store string, roundTrip time.Duration) (*Line, error) {
	var conf net.ListenConfig
	outer, err := conf.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	inner, err := conf.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, outer.Close())
	}
	l := &Line{Addr: outer.Addr().String(), listener: outer, inner: inner.Addr().String(), delay: roundTrip / 2, counts: map[string]Traffic{}}
	proxy := &httputil.ReverseProxy{
		// The store checks the signature, which includes the host that the program knows.
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: store})
			r.Out.Host = r.In.Host
		},
		ErrorLog:  slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), // the program is told, too
		Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true},
	}
	l.counter = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { l.count(proxy, w, r) }), ReadHeaderTimeout: time.Minute}
	go func() { _ = l.counter.Serve(inner) }()
	go l.accept(ctx)
	return l, nil
}

// Close refuses new connections, and ends those that exist.
func (l *Line) Close() error { return errors.Join(l.listener.Close(), l.counter.Close()) }

// Take returns what was asked for since the last call.
func (l *Line) Take() map[string]Traffic {
	l.mu.Lock()
	defer l.mu.Unlock()
	taken := l.counts
	l.counts = map[string]Traffic{}
	return taken
}

// Total returns what was asked for since the last call of Take.
func (l *Line) Total() (all Traffic) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range l.counts {
		all.Requests += t.Requests
		all.Bytes += t.Bytes
	}
	return all
}

func (l *Line) count(next http.Handler, w http.ResponseWriter, r *http.Request) {
	answer := &sizedAnswer{ResponseWriter: w}
	next.ServeHTTP(answer, r)
	l.mu.Lock()
	defer l.mu.Unlock()
	kind := kindOf(r)
	t := l.counts[kind]
	t.Requests++
	t.Bytes += max(0, r.ContentLength) + answer.bytes
	l.counts[kind] = t
}

// kindOf returns the method of a request and the folder in the repository, such as "PUT packs".
func kindOf(r *http.Request) string {
	q := r.URL.Query()
	if r.Method == http.MethodGet && (q.Has("list-type") || q.Has("delimiter") || q.Has("prefix")) {
		return "LIST"
	}
	method := r.Method
	if method == http.MethodGet && r.Header.Get("Range") != "" {
		method = "GET part of"
	}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/") // the bucket, and a name
	if len(parts) < 2 {
		return method + " the bucket"
	}
	return method + " " + parts[1]
}

// sizedAnswer counts the bytes of an answer.
type sizedAnswer struct {
	http.ResponseWriter
	bytes int64
}

func (s *sizedAnswer) Write(p []byte) (int, error) {
	n, err := s.ResponseWriter.Write(p)
	s.bytes += int64(n)
	return n, err
}

// Unwrap lets the proxy flush.
func (s *sizedAnswer) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func (l *Line) accept(ctx context.Context) {
	for {
		near, err := l.listener.Accept()
		if err != nil {
			return
		}
		var d net.Dialer
		far, err := d.DialContext(ctx, "tcp", l.inner)
		if err != nil {
			_ = near.Close()
			continue
		}
		go l.delayed(far, near)
		go l.delayed(near, far)
	}
}

// held is a piece of what was sent, on its way.
type held struct {
	bytes []byte
	due   time.Time
}

// delayed copies what from sends. Each byte arrives after the delay, however many are on the
// way.
func (l *Line) delayed(to, from net.Conn) {
	way := make(chan held, 1024)
	go func() {
		defer close(way)
		for {
			p := make([]byte, 32<<10)
			n, err := from.Read(p)
			if n > 0 {
				way <- held{p[:n], time.Now().Add(l.delay)}
			}
			if err != nil {
				return
			}
		}
	}()
	var err error
	for h := range way {
		if err != nil {
			continue // the sender must not wait forever
		}
		time.Sleep(time.Until(h.due))
		if _, err = to.Write(h.bytes); err != nil {
			_ = from.Close()
		}
	}
	if c, ok := to.(*net.TCPConn); ok && err == nil {
		err = c.CloseWrite()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		_ = to.Close()
	}
}
