package rclone

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/wire"
)

// errNotFound is an answer that may mean that a file does not exist. Versions of rclone give
// it for other failures, too: see [Backend.missing].
var errNotFound = errors.New("rclone finds nothing there")

// clientFor returns the client of a connection.
func (b *Backend) clientFor(c *conn) *wire.Client {
	return &wire.Client{
		RoundTrip: c.http.RoundTrip,
		Judge:     func(resp *http.Response) error { return judge(resp, c.child.Said) },
		Headers:   http.Header{"Accept": {accepted}, "User-Agent": {"snap"}},
	}
}

// judge returns nil for the answer to a request that rclone has carried out, and the error
// otherwise. said returns what rclone has printed last: its answers have no reasons.
func judge(resp *http.Response, said func() string) error {
	if !strings.HasPrefix(resp.Header.Get("Server"), "rclone/") {
		return wire.OutOfReach("something else than rclone answers")
	}
	switch status := resp.StatusCode; {
	case status == http.StatusOK, status == http.StatusPartialContent:
		return nil
	case status == http.StatusNotFound && !strings.HasSuffix(resp.Request.URL.Path, "/"):
		return errNotFound
	case status == http.StatusRequestedRangeNotSatisfiable:
		return wire.ErrAfterEnd
	case status == http.StatusForbidden && resp.Request.Method == http.MethodDelete:
		return backend.ErrAppendOnly // rclone.args has --append-only
	case status == http.StatusForbidden && resp.Request.Method == http.MethodPost:
		return backend.ErrExist
	case status == http.StatusBadRequest, status == http.StatusMethodNotAllowed:
		return fmt.Errorf("this version of rclone does not know the request: %d", status)
	default:
		return meaningOf(waitForReason(said, resp.Request), status)
	}
}

// waitForReason returns what rclone prints about a request: it may arrive after the answer.
func waitForReason(said func() string, req *http.Request) string {
	for range 10 {
		if text := reasonFor(said(), req.Method, path.Base(req.URL.Path)); text != "" {
			return text
		}
		time.Sleep(10 * time.Millisecond)
	}
	return ""
}

// reasonFor returns what rclone has printed about a request; "" if nothing. rclone prints
// "DATE TIME ERROR : PATH: what: text".
func reasonFor(said, method, name string) string {
	what := map[string]string{http.MethodPost: "Post request ", http.MethodDelete: "Delete request ", http.MethodGet: "list failed: "}[method]
	lines := strings.Split(said, "; ")
	for i := len(lines) - 1; i >= 0 && what != ""; i-- {
		path, text, ok := strings.Cut(lines[i], ": "+what)
		if ok && (strings.HasSuffix(path, "/"+name) || strings.HasSuffix(path, " "+name)) {
			return wire.Clean(text)
		}
	}
	return ""
}

// meaningOf returns the error for a failure of rclone. rclone has repeated what it can
// repeat, but the remote may be in reach again later.
func meaningOf(text string, status int) error {
	lower := strings.ToLower(text)
	has := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(lower, p) {
				return true
			}
		}
		return false
	}
	switch {
	case has("no space left", "disk full", "disk quota", "quota exceeded", "quotaexceeded", "insufficient storage", "insufficient space", "not enough space"):
		return fmt.Errorf("%w: rclone says: %s", backend.ErrNoSpace, text)
	case has("permission denied", "accessdenied", "access denied", "insufficientpermissions"):
		return &wire.Error{Text: "rclone says: " + text + " (check the rights that the remote has)", Is: []error{fs.ErrPermission}}
	case has("is a directory"):
		return fmt.Errorf("%w: rclone says: %s", backend.ErrNotRegular, text)
	case has("not a directory", "enotdir"):
		return fmt.Errorf("%w: rclone says: %s", backend.ErrNotFolder, text)
	case text == "":
		return wire.OutOfReach(fmt.Sprintf("rclone cannot do it now: %d", status))
	}
	return wire.OutOfReach("rclone says: " + text)
}

// opError returns the error of an operation: "op ADDRESS/NAME: reason (what to do)".
func (b *Backend) opError(op, name string, err error) error {
	where := b.cfg.String()
	if name != "" {
		if !strings.HasSuffix(where, ":") {
			where = strings.TrimSuffix(where, "/") + "/"
		}
		where += name
	}
	return fmt.Errorf("%s %s: %w", op, where, err)
}
