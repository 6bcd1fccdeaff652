package repo

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
)

// readNamed reads a whole file whose name is the hash of its bytes.
func (r *Repo) readNamed(ctx context.Context, name string, limit int64) ([]byte, error) {
	return readNamed(ctx, r.be, name, limit)
}

func readNamed(ctx context.Context, be backend.Backend, name string, limit int64) ([]byte, error) {
	id, err := fileID(name)
	if err != nil {
		return nil, &DamageError{name, errors.New("its name is not a hash")}
	}
	b, err := backend.ReadAll(ctx, be, name, limit)
	switch {
	case errors.Is(err, backend.ErrNotExist), errors.Is(err, backend.ErrTooLarge), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, &DamageError{name, err}
	case err != nil:
		return nil, err
	}
	if FileID(blake.Sum(b)) != id {
		return nil, &DamageError{name, errors.New("its bytes are not those that its name stands for")}
	}
	return b, nil
}

// putNamed stores a file under the hash of its bytes and returns that.
func (r *Repo) putNamed(ctx context.Context, dir string, b []byte) (FileID, error) {
	id := FileID(blake.Sum(b))
	err := r.be.Put(ctx, dir+id.String(), b)
	if r.useReserve && backend.IsNoSpace(err) {
		if err := r.giveUpReserve(ctx); err != nil {
			return FileID{}, err
		}
		err = r.be.Put(ctx, dir+id.String(), b)
	}
	if err != nil && !errors.Is(err, backend.ErrExist) {
		return FileID{}, err
	}
	return id, nil
}

// readTries is how often check and repair try a read that fails before its place
// on the disk counts as lost.
const readTries = 4

// readerAt is a file of a backend as an io.ReaderAt.
type readerAt struct {
	ctx  context.Context
	be   backend.Backend
	name string
}

func (f readerAt) ReadAt(p []byte, off int64) (int, error) {
	return f.be.ReadAt(f.ctx, f.name, p, off)
}

// Raw returns the bytes of a repository file after checking that they fit its
// name, for inspection. name is "config" or a folder and an ID.
func (r *Repo) Raw(ctx context.Context, name string) ([]byte, error) {
	if name == configName {
		return backend.ReadAll(ctx, r.be, name, maxConfigSize)
	}
	return r.readNamed(ctx, name, pack.MaxSize)
}

// resolve finds the one file in a folder whose ID begins with prefix.
func (r *Repo) resolve(ctx context.Context, dir, prefix string) (FileID, error) {
	var found []FileID
	err := r.be.List(ctx, dir, func(f backend.Info) error {
		id, err := fileID(f.Name)
		if err == nil && strings.HasPrefix(id.String(), strings.ToLower(prefix)) {
			found = append(found, id)
		}
		return nil
	})
	switch {
	case err != nil:
		return FileID{}, err
	case len(found) == 0 || prefix == "":
		return FileID{}, ErrNoSnapshot
	case len(found) > 1:
		return FileID{}, fmt.Errorf("%q fits %d IDs: %w", prefix, len(found), ErrAmbiguous)
	}
	return found[0], nil
}

// hasMagic cuts the magic off the front of a file.
func hasMagic(b []byte, magic string) ([]byte, bool) {
	return bytes.CutPrefix(b, []byte(magic))
}

// namesIn lists the files of a folder that are named by a hash.
func (r *Repo) namesIn(ctx context.Context, dir string) ([]string, error) {
	var names []string
	err := r.be.List(ctx, dir, func(f backend.Info) error {
		if _, err := fileID(f.Name); err == nil {
			names = append(names, f.Name)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	return names, nil
}

// hasFiles reports whether there is anything in a folder.
func hasFiles(ctx context.Context, be backend.Backend, dir string) bool {
	found := errors.New("found")
	return errors.Is(be.List(ctx, dir, func(backend.Info) error { return found }), found)
}
