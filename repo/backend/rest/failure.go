package rest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/restapi"
	"github.com/snap-backup/snap/repo/backend/wire"
)

// The kinds of failure that callers distinguish, besides those of package backend.
var (
	// ErrRefused says that the server does not accept the user and password.
	ErrRefused = errors.New("the server refuses the user or password")
	// ErrForbidden says that the server does not let this user do something.
	ErrForbidden = errors.New("the server does not allow that to this user")
	// ErrNoFolder says that the folder of the repository does not exist on the server.
	ErrNoFolder = errors.New("the server has no such folder")
)

// reasons are what the words of [restapi.Reason] mean, where the error has no other text.
var reasons = map[string]error{
	restapi.ReasonExists:     backend.ErrExist,
	restapi.ReasonNoFile:     backend.ErrNotExist,
	restapi.ReasonNotFolder:  backend.ErrNotFolder,
	restapi.ReasonNotRegular: backend.ErrNotRegular,
	restapi.ReasonAppendOnly: backend.ErrAppendOnly,
}

// judge returns nil for an answer of a server to a request that it has carried out, and the
// error otherwise.
func (b *Backend) judge(resp *http.Response) error {
	if !strings.HasPrefix(resp.Header.Get(restapi.Version), "1") {
		return stranger(resp)
	}
	b.appendOnly.Store(resp.Header.Get(restapi.AppendOnly) == "true")
	if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent {
		return nil
	}
	reason := resp.Header.Get(restapi.Reason)
	if err, ok := reasons[reason]; ok {
		return err
	}
	said := quote(resp)
	switch reason {
	case restapi.ReasonQuota:
		return fmt.Errorf("%w: the quota of this user is used up%s", backend.ErrNoSpace, said)
	case restapi.ReasonNoFolder:
		return &wire.Error{Text: ErrNoFolder.Error() + " (check the address; if it is on a disk of the server, connect that)", Is: []error{ErrNoFolder, backend.ErrOutOfReach}}
	case restapi.ReasonChecksum:
		return &backend.TemporaryError{Err: errors.New("bytes changed on the way, and the server has refused them")}
	}
	return b.byStatus(resp, said)
}

// byStatus returns the error for an answer whose reason is not known.
func (b *Backend) byStatus(resp *http.Response, said string) error {
	switch status := resp.StatusCode; {
	case status == http.StatusRequestedRangeNotSatisfiable:
		return wire.ErrAfterEnd
	case status == http.StatusUnauthorized && b.anonymous:
		return &wire.Error{Text: "the server asks for a user and password", Is: []error{ErrRefused, backend.ErrOutOfReach}}
	case status == http.StatusUnauthorized:
		return &wire.Error{Text: ErrRefused.Error(), Is: []error{ErrRefused, backend.ErrOutOfReach}}
	case status == http.StatusForbidden:
		return &wire.Error{Text: ErrForbidden.Error() + said, Is: []error{ErrForbidden, fs.ErrPermission}}
	case status == http.StatusInsufficientStorage:
		return fmt.Errorf("%w: the server is full%s", backend.ErrNoSpace, said)
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable:
		return later(resp, "the server cannot answer now", said)
	case status >= 500 && status != http.StatusNotImplemented:
		return later(resp, fmt.Sprintf("the server failed: %d", status), said)
	default:
		return fmt.Errorf("the server says: %d%s", status, said)
	}
}

// later returns an error that may pass.
func later(resp *http.Response, text, said string) error {
	return &backend.TemporaryError{
		Err:   &wire.Error{Text: text + said, Is: []error{backend.ErrOutOfReach}},
		After: wire.RetryAfter(resp.Header.Get("Retry-After")),
	}
}

// stranger returns the error for an answer that is not one of a server of repositories. It
// says nothing about a file. A network that asks for a login, or a proxy whose server
// restarts, may be gone later.
func stranger(resp *http.Response) error {
	const what = "something else than a server of repositories answers"
	switch status := resp.StatusCode; status {
	case http.StatusRequestEntityTooLarge:
		return &wire.Error{Text: "a proxy in front of the server refuses large files (raise its limit to 512 MiB, such as client_max_body_size of nginx)", Is: []error{backend.ErrOutOfReach}}
	case http.StatusUnauthorized, http.StatusProxyAuthRequired:
		return &wire.Error{Text: fmt.Sprintf("%s: %d, a proxy asks for a user and password", what, status), Is: []error{ErrRefused, backend.ErrOutOfReach}}
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return later(resp, fmt.Sprintf("a proxy answers that the server is not there: %d", status), "")
	default:
		return later(resp, fmt.Sprintf("%s: %d (check the address, or log in to the network)", what, status), "")
	}
}

// errNotConfirmed returns the error for an answer to a put that does not say what was stored.
func errNotConfirmed() error {
	return &backend.TemporaryError{Err: &wire.Error{
		Text: "the answer does not say that the server has stored these bytes (look for a proxy that answers in its place)",
		Is:   []error{backend.ErrOutOfReach},
	}}
}

// quote returns what a server has said, for the end of a message.
func quote(resp *http.Response) string {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
	said := strings.TrimRight(strings.TrimSpace(wire.Clean(string(text))), ".")
	if said == "" {
		return ""
	}
	return ": " + said
}

// opError returns the error of an operation: "op ADDRESS/NAME: reason (what to do)".
func (b *Backend) opError(op, name string, err error) error {
	where := b.cfg.String()
	if name != "" {
		where += "/" + name
	}
	return fmt.Errorf("%s %s: %w", op, where, err)
}
