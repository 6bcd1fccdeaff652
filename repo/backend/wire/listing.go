package wire

import (
	"encoding/json"
	"errors"
	"io"

	"github.com/snap-backup/snap/repo/backend"
)

// The limits of a listing, in bytes.
const (
	maxEntry   = 64 << 10
	maxListing = 1 << 30
)

var (
	errLongListing = errors.New("the store sends an endless list of files")
	errNoListing   = &Error{"the answer is not a list of files: something else than a server of repositories answers (check the address, or log in to the network)", []error{backend.ErrOutOfReach}}
)

// ReadListing reads a JSON array and calls fn for each element. An array without an end is an
// error, and each error of the array is temporary: it is no list of a store.
func ReadListing[E any](r io.Reader, fn func(E) error) error {
	l := &limited{r: r, total: maxListing}
	d := json.NewDecoder(l)
	l.left = maxEntry
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return l.failure(err)
	}
	for d.More() {
		l.left = maxEntry
		var e E
		if err := d.Decode(&e); err != nil {
			return l.failure(err)
		}
		if err := fn(e); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return l.failure(err)
	}
	return nil
}

// limited is a reader that ends if one element, or all, are too long.
type limited struct {
	r     io.Reader
	left  int
	total int
	err   error // of r
}

func (l *limited) Read(p []byte) (int, error) {
	if l.left <= 0 || l.total <= 0 {
		l.err = errLongListing
		return 0, l.err
	}
	n, err := l.r.Read(p[:min(len(p), l.left, l.total)])
	l.left -= n
	l.total -= n
	if err != nil {
		l.err = err
	}
	return n, err
}

// failure returns the error of a listing that ended too early, or that is none.
func (l *limited) failure(err error) error {
	_, syntax := errors.AsType[*json.SyntaxError](err)
	_, kind := errors.AsType[*json.UnmarshalTypeError](err)
	switch {
	case errors.Is(l.err, errLongListing):
		return l.err
	case l.err != nil && !syntax && !kind && err != nil:
		return ConnectionError(Midway(l.err))
	}
	return &backend.TemporaryError{Err: errNoListing}
}
