package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/snap-backup/snap/crypto/blake"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
)

// ReadNamed reads a complete file whose name is the hash of its bytes.
func (r *Store) ReadNamed(ctx context.Context, name string, limit int64) ([]byte, error) {
	return ReadNamed(ctx, r.Backend, name, limit)
}

// ReadNamed reads a complete file whose name is the hash of its bytes. If a file looks
// damaged, ReadNamed reads it again: bits can flip on the way from the disk, and a record
// that is taken for damaged is passed over.
func ReadNamed(ctx context.Context, be backend.Backend, name string, limit int64) ([]byte, error) {
	id, err := layout.ParseFileID(name)
	if err != nil {
		return nil, &DamageError{name, errors.New("its name is not a hash")}
	}
	b, err := backend.ReadAll(ctx, be, name, limit)
	if again(ctx, err) || err == nil && layout.FileID(blake.Sum(b)) != id {
		b, err = backend.ReadAll(ctx, be, name, limit)
	}
	if err != nil {
		return nil, Judge(ctx, be, name, err)
	}
	if layout.FileID(blake.Sum(b)) != id {
		return nil, &DamageError{name, errors.New("its bytes do not match its name")}
	}
	return b, nil
}

// again reports whether to read a file once more after a failure: a file server has moved
// the file (ESTALE), a signal has interrupted the call, or a cable has a loose contact.
func again(ctx context.Context, err error) bool {
	return err != nil && ctx.Err() == nil && !errors.Is(err, backend.ErrNotExist) && !errors.Is(err, backend.ErrTooLarge) && !errors.Is(err, io.EOF)
}

// Judge returns the error for a file, given the error of reading it: a *DamageError if
// the file is missing or cannot be read although the store answers, and err otherwise.
func Judge(ctx context.Context, be backend.Backend, name string, err error) error {
	switch {
	case err == nil, errors.Is(err, ErrDamaged):
		return err
	case errors.Is(err, backend.ErrNotExist), errors.Is(err, backend.ErrTooLarge), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &DamageError{name, err}
	case backend.Unreadable(ctx, be, err):
		return &DamageError{name, &unreadableError{err}}
	}
	return err
}

// Hopeless reports whether a damaged file may be removed: load, which reads it, finds
// wrong bytes, or fails each time. A file that this process has no permission to read
// stays, since another user may be able to read it.
func Hopeless(ctx context.Context, load func() error) bool {
	for range ReadTries {
		err := load()
		if !errors.Is(err, ErrDamaged) || backend.IsDenied(err) || ctx.Err() != nil {
			return false
		}
		if !errors.Is(err, ErrUnreadable) {
			return true
		}
	}
	return true
}

// PutNamed stores a file under the hash of its bytes and returns the hash.
func (r *Store) PutNamed(ctx context.Context, dir string, b []byte) (layout.FileID, error) {
	id := layout.FileID(blake.Sum(b))
	if dir == layout.SnapshotsDir {
		r.SnapshotsPut.Add(1)
	}
	err := r.Backend.Put(ctx, dir+id.String(), b)
	if r.useReserve && backend.IsNoSpace(err) {
		if err := r.removeReserve(ctx); err != nil {
			return layout.FileID{}, err
		}
		err = r.Backend.Put(ctx, dir+id.String(), b)
	}
	if err != nil && !errors.Is(err, backend.ErrExist) {
		return layout.FileID{}, err
	}
	return id, nil
}

// ReadTries is how often check and repair try a read that fails before they count
// its bytes as lost.
const ReadTries = 4

// readerAt is a file of a backend as an io.ReaderAt.
type readerAt struct {
	ctx  context.Context
	be   backend.Backend
	name string
}

func (f readerAt) ReadAt(p []byte, off int64) (int, error) {
	return f.be.ReadAt(f.ctx, f.name, p, off)
}

// Raw returns the bytes of a repository file after comparing them with its name.
// name is "config", or a folder and an ID.
func (r *Store) Raw(ctx context.Context, name string) ([]byte, error) {
	if name == layout.ConfigName {
		return backend.ReadAll(ctx, r.Backend, name, layout.MaxConfigSize)
	}
	return r.ReadNamed(ctx, name, pack.MaxSize)
}

// Resolve finds the one file in a folder whose ID begins with prefix.
func (r *Store) Resolve(ctx context.Context, dir, prefix string) (layout.FileID, error) {
	var found []layout.FileID
	err := r.Backend.List(ctx, dir, func(f backend.Info) error {
		id, err := layout.ParseFileID(f.Name)
		if err == nil && strings.HasPrefix(id.String(), strings.ToLower(prefix)) {
			found = append(found, id)
		}
		return nil
	})
	switch {
	case err != nil:
		return layout.FileID{}, err
	case len(found) == 0 || prefix == "":
		return layout.FileID{}, ErrNoSnapshot
	case len(found) > 1:
		return layout.FileID{}, fmt.Errorf("%w: %d IDs begin with %q", ErrAmbiguous, len(found), prefix)
	}
	return found[0], nil
}

// CutMagic cuts the magic off the front of a file.
func CutMagic(b []byte, magic string) ([]byte, bool) {
	return bytes.CutPrefix(b, []byte(magic))
}

// List calls fn for the files of a folder that are part of the repository. It passes
// over all others, such as those that operating systems and sync programs leave.
func List(ctx context.Context, be backend.Backend, dir string, fn func(backend.Info) error) error {
	return be.List(ctx, dir, func(f backend.Info) error {
		if _, err := layout.ParseFileID(f.Name); err != nil {
			return nil
		}
		return fn(f)
	})
}

// NamesIn lists the files of a folder that are part of the repository.
func (r *Store) NamesIn(ctx context.Context, dir string) ([]string, error) {
	var names []string
	err := List(ctx, r.Backend, dir, func(f backend.Info) error {
		names = append(names, f.Name)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	return names, nil
}

// HasFiles reports whether a folder has files.
func HasFiles(ctx context.Context, be backend.Backend, dir string) (bool, error) {
	found := errors.New("found")
	err := List(ctx, be, dir, func(backend.Info) error { return found })
	if errors.Is(err, found) {
		return true, nil
	}
	return false, err
}
