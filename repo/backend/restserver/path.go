package restserver

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/snap-backup/snap/repo/backend"
)

// words are the names at the top of a repository. They end the base path of a request, so no
// element of a base path may be one of them. A name that is missing here, because a later
// version has added it, works in a base path of one element.
var words = []string{
	"certificates", "checks", "config", "configs", "healing", "index", "keys", "ledger", "locks", "mirrored", "packs",
	"parity", "prunes", "reserve", "runs", "secrets", "snapshots", "tmp",
}

// target is what the path of a request names.
type target struct {
	base   string // the folder of the repository, such as "anna/phones"; "" is the store itself
	name   string // of a file in the repository, or of a folder without its slash; "" is the repository
	folder bool   // the path ends with a slash
}

// full returns a name of the repository as a name of the server's store.
func (t target) full(name string) string {
	if t.base == "" {
		return name
	}
	return t.base + "/" + name
}

// user returns the first element of the base path.
func (t target) user() string {
	user, _, _ := strings.Cut(t.base, "/")
	return user
}

// parsePath parses the path of a request. wholeBase says that the request is about a
// repository, not about something in it.
func parsePath(path string, wholeBase bool) (target, error) {
	rest, ok := strings.CutPrefix(path, "/")
	if !ok {
		return target{}, fmt.Errorf("%.200q: %w", path, backend.ErrInvalidName)
	}
	if rest == "" {
		return target{folder: true}, nil
	}
	rest, folder := strings.CutSuffix(rest, "/")
	t := target{folder: folder}
	elements := strings.Split(rest, "/")
	if slices.Contains(elements, "") {
		return target{}, fmt.Errorf("%.200q has an empty element: %w", path, backend.ErrInvalidName)
	}
	at := slices.IndexFunc(elements, func(e string) bool { return slices.Contains(words, e) })
	switch {
	case wholeBase && (at >= 0 || !folder):
		return target{}, fmt.Errorf("%.200q is not the path of a repository: %w", path, backend.ErrInvalidName)
	case wholeBase:
		at = len(elements)
	case at < 0 && !folder && len(elements) == 1:
		at = 0
	case at < 0:
		at = 1
	}
	t.base, t.name = strings.Join(elements[:at], "/"), strings.Join(elements[at:], "/")
	return t, t.check()
}

// check returns an error if the base path or the name is not valid: only such get to the store.
func (t target) check() error {
	if t.base != "" {
		if err := backend.ValidName(t.base); err != nil {
			return err
		}
	}
	if t.name == "" {
		if !t.folder {
			return fmt.Errorf("%q is not the name of a file: %w", t.base, backend.ErrInvalidName)
		}
		return nil
	}
	return backend.ValidName(t.name) // "tmp" is reserved in each repository; the store checks both together
}

// byteRange is a part of a file that a client asks for.
type byteRange struct{ start, length int64 }

// parseRange parses the header Range for a file of a size. partial is false if the whole file
// is the answer: HTTP lets a server ignore what it does not understand, such as several
// ranges. ok is false if the file has none of the bytes.
func parseRange(header string, size int64) (r byteRange, partial, ok bool) {
	whole := byteRange{0, size}
	spec, isBytes := strings.CutPrefix(header, "bytes=")
	first, last, dash := strings.Cut(spec, "-")
	if !isBytes || !dash {
		return whole, false, true
	}
	start, badStart := number(first)
	end, badEnd := number(last)
	switch {
	case first == "" && !badEnd: // the last bytes
		if end == 0 || size == 0 {
			return byteRange{}, true, false
		}
		n := min(end, size)
		return byteRange{size - n, n}, true, true
	case badStart, badEnd && last != "", last != "" && end < start:
		return whole, false, true
	case start >= size:
		return byteRange{}, true, false
	case last == "":
		return byteRange{start, size - start}, true, true
	}
	return byteRange{start, min(end, size-1) - start + 1}, true, true
}

// number parses digits only: no sign, no blanks.
func number(s string) (n int64, bad bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, true
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err != nil
}

// kindOf says what a request wants. wholeBase is as in parsePath.
func kindOf(r *http.Request) (wholeBase bool) {
	q := r.URL.Query()
	switch r.Method {
	case http.MethodHead:
		return strings.HasSuffix(r.URL.Path, "/")
	case http.MethodPost:
		return q.Get("create") == "true"
	case http.MethodGet:
		return q.Has("after") || q.Has("before")
	}
	return false
}
