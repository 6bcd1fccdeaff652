package restserver

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// record writes a line of the access log, and counts the request.
func (s *Server) record(ctx context.Context, q *request, err error, aborted bool, took time.Duration) {
	status := q.w.status
	level := slog.LevelInfo
	attrs := []slog.Attr{
		slog.String("user", q.user), slog.String("remote", remoteOf(q.Request)), slog.String("method", q.Method),
		slog.String("path", clip(q.URL.Path)), slog.Int("status", status),
		slog.Int64("received", q.w.received), slog.Int64("sent", q.w.sent), slog.Float64("seconds", took.Round(time.Microsecond).Seconds()),
	}
	if err != nil {
		r := refusalOf(err)
		switch {
		case r.status >= http.StatusInternalServerError && ctx.Err() == nil || aborted && ctx.Err() == nil:
			level = slog.LevelError
		case r.status != http.StatusNotFound && r.status != http.StatusConflict:
			level = slog.LevelWarn
		}
		if r.reason != "" {
			attrs = append(attrs, slog.String("reason", r.reason))
		}
		attrs = append(attrs, slog.String("error", clip(err.Error())))
	}
	if aborted {
		attrs = append(attrs, slog.Bool("aborted", true))
	}
	s.opts.Log.LogAttrs(ctx, level, "request", attrs...)
	s.stats.count(q.user, q.Method, status, q.w.received, q.w.sent, took)
}

// clip bounds what a client can make the log hold, and lets it hold nothing that a terminal
// obeys.
func clip(s string) string {
	const most = 500
	more := ""
	if len(s) > most {
		s, more = s[:most], "..."
	}
	quoted := strconv.QuoteToASCII(s)
	if plain := quoted[1 : len(quoted)-1]; plain != s && strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
		s = plain
	}
	return s + more
}

// remoteOf returns the address of a client without its port.
func remoteOf(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// stats are what the metrics show.
type stats struct {
	mu       sync.Mutex
	requests map[requestKind]int64
	bytes    map[bytesKind]int64
	seconds  float64
	refused  int64 // wrong users and passwords
	slowed   int64 // requests that were answered with 429
}

type requestKind struct {
	method string
	status int
}

type bytesKind struct{ user, direction string }

func newStats() stats {
	return stats{requests: map[requestKind]int64{}, bytes: map[bytesKind]int64{}}
}

func (s *stats) count(user, method string, status int, received, sent int64, took time.Duration) {
	if !slices.Contains([]string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodDelete}, method) {
		method = "other" // a client can invent methods
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests[requestKind{method, status}]++
	s.bytes[bytesKind{user, "received"}] += received
	s.bytes[bytesKind{user, "sent"}] += sent
	s.seconds += took.Seconds()
	switch status {
	case http.StatusUnauthorized:
		s.refused++
	case http.StatusTooManyRequests:
		s.slowed++
	}
}

// Metrics returns a handler that shows what the server has done, in the text format of
// Prometheus.
func (s *Server) Metrics() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/metrics" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		s.stats.write(w, s.running.Load())
	})
}

func (s *stats) write(w io.Writer, running int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	head := func(name, kind, help string) { fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind) }
	head("snap_serve_requests_total", "counter", "Requests that were answered.")
	for _, k := range slices.SortedFunc(maps.Keys(s.requests), func(a, b requestKind) int {
		return strings.Compare(fmt.Sprint(a), fmt.Sprint(b))
	}) {
		fmt.Fprintf(w, "snap_serve_requests_total{method=%q,status=\"%d\"} %d\n", k.method, k.status, s.requests[k])
	}
	head("snap_serve_bytes_total", "counter", "Bytes of files and listings that users have sent and got.")
	for _, k := range slices.SortedFunc(maps.Keys(s.bytes), func(a, b bytesKind) int {
		return strings.Compare(fmt.Sprint(a), fmt.Sprint(b))
	}) {
		fmt.Fprintf(w, "snap_serve_bytes_total{user=%q,direction=%q} %d\n", k.user, k.direction, s.bytes[k])
	}
	head("snap_serve_request_seconds_total", "counter", "Time that requests took, together.")
	fmt.Fprintf(w, "snap_serve_request_seconds_total %g\n", s.seconds)
	head("snap_serve_refused_logins_total", "counter", "Requests with a wrong user or password.")
	fmt.Fprintf(w, "snap_serve_refused_logins_total %d\n", s.refused)
	head("snap_serve_slowed_logins_total", "counter", "Requests that were refused since an address had tried too many passwords.")
	fmt.Fprintf(w, "snap_serve_slowed_logins_total %d\n", s.slowed)
	head("snap_serve_requests_running", "gauge", "Requests that are being answered.")
	fmt.Fprintf(w, "snap_serve_requests_running %d\n", running)
}
