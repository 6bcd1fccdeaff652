package restserver

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/restapi"
)

// list sends a listing: of a folder, or of a range of names if ranged is true.
func (q *request) list(ranged bool) error {
	out := &listing{w: q.w}
	var err error
	if ranged {
		query := q.URL.Query()
		err = q.listRange(query.Get("after"), query.Get("before"), out.add)
	} else {
		err = q.listFolder(out.add)
	}
	if err == nil && out.entries == 0 {
		err = q.baseExists()
	}
	if err != nil {
		return err
	}
	return out.end()
}

// own calls fn for a file of the store if it is one of the repository.
func (q *request) own(fn func(backend.Info) error) func(backend.Info) error {
	prefix := q.t.full("")
	return func(f backend.Info) error {
		name, ok := strings.CutPrefix(f.Name, prefix)
		if !ok || backend.ValidName(name) != nil {
			return nil // such as a temporary file of a process that uses the folder directly
		}
		f.Name = name
		return fn(f)
	}
}

func (q *request) listFolder(fn func(backend.Info) error) error {
	prefix := q.t.full(q.t.name)
	if prefix != "" && !strings.HasSuffix(prefix, "/") {
		prefix += "/"
	}
	return q.store.List(q.Context(), prefix, q.own(fn))
}

func (q *request) listRange(after, before string, fn func(backend.Info) error) error {
	in := func(f backend.Info) error {
		if f.Name <= after || before != "" && f.Name >= before {
			return nil
		}
		return fn(f)
	}
	if r, ok := q.store.(backend.RangeLister); ok {
		first, last := q.t.full(after), q.t.full(before)
		if before == "" && q.t.base != "" {
			last = q.t.base + "0" // the first name after all that begin with the base and "/"
		}
		err := r.ListRange(q.Context(), first, last, q.own(in))
		if !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	prefix := q.t.full("")
	return q.store.List(q.Context(), prefix, q.own(in))
}

// listing writes entries as JSON. The answer begins when there is much of it, so that most
// errors of the store have their status.
type listing struct {
	w       *answer
	buf     bytes.Buffer
	entries int
}

const listingPiece = 64 << 10

func (l *listing) add(f backend.Info) error {
	entry, err := json.Marshal(restapi.Entry{Name: f.Name, Size: f.Size, Modified: f.Modified.UTC()})
	if err != nil {
		return err
	}
	if l.entries++; l.entries == 1 {
		l.buf.WriteByte('[')
	} else {
		l.buf.WriteString(",\n")
	}
	l.buf.Write(entry)
	if l.buf.Len() < listingPiece {
		return nil
	}
	return l.flush()
}

func (l *listing) flush() error {
	if l.w.status == 0 {
		l.w.Header().Set("Content-Type", restapi.MediaType)
	}
	err := l.w.send(l.buf.Bytes())
	l.buf.Reset()
	return err
}

func (l *listing) end() error {
	if l.entries == 0 {
		l.buf.WriteByte('[')
	}
	l.buf.WriteString("]\n")
	return l.flush()
}
