package restserver

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/restapi"
)

// refusal is an answer that is not what the client has asked for. It is an error, so that
// functions can return it like others.
type refusal struct {
	status int
	reason string        // one of restapi, or ""
	text   string        // for people; clients see it
	after  time.Duration // if not 0, when to try again
	cause  error         // for the log

	contentRange string // the header of 416
}

func (r *refusal) Error() string {
	if r.cause != nil {
		return r.text + ": " + r.cause.Error()
	}
	return r.text
}

func (r *refusal) Unwrap() error { return r.cause }

// refusalOf says how the server answers an error of its store. The text of an unknown error
// may have paths of the server, so only the log gets it.
func refusalOf(err error) *refusal {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r
	}
	no := func(status int, reason, text string) *refusal {
		return &refusal{status: status, reason: reason, text: text, cause: err}
	}
	switch {
	case errors.Is(err, backend.ErrInvalidName):
		return no(http.StatusBadRequest, restapi.ReasonName, "no repository has a file of this name")
	case errors.Is(err, backend.ErrNotExist):
		return no(http.StatusNotFound, restapi.ReasonNoFile, "the file does not exist")
	case errors.Is(err, backend.ErrNotFolder):
		return no(http.StatusConflict, restapi.ReasonNotFolder, "something else has the name of a folder")
	case errors.Is(err, backend.ErrNotRegular):
		return no(http.StatusConflict, restapi.ReasonNotRegular, "something that is no file has this name")
	case errors.Is(err, backend.ErrExist):
		return no(http.StatusConflict, restapi.ReasonExists, "a file has this name")
	case backend.IsNoSpace(err):
		return no(http.StatusInsufficientStorage, restapi.ReasonFull, "the store of the server is full")
	case backend.IsReadOnly(err):
		return no(http.StatusForbidden, "", "the server itself may not write to its store")
	case errors.Is(err, backend.ErrOutOfReach), backend.Temporary(err), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		r := no(http.StatusServiceUnavailable, "", "the store behind the server does not answer")
		r.after = 30 * time.Second
		return r
	}
	return no(http.StatusInternalServerError, "", "the store of the server failed; the log of the server says why")
}

// write sends the refusal.
func (r *refusal) write(w http.ResponseWriter) {
	h := w.Header()
	for _, name := range []string{"Content-Length", "Content-Range", restapi.Modified} {
		h.Del(name)
	}
	if r.reason != "" {
		h.Set(restapi.Reason, r.reason)
	}
	if r.contentRange != "" {
		h.Set("Content-Range", r.contentRange)
	}
	if r.after > 0 {
		h.Set("Retry-After", strconv.Itoa(max(1, int(r.after.Round(time.Second)/time.Second))))
	}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(r.status)
	_, _ = w.Write([]byte(strings.ReplaceAll(r.text, "\n", " ") + "\n")) // the client may be gone
}
