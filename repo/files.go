package repo

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/snap-backup/snap/crypto/blake"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend"
)

// FileID names a repository file: BLAKE3-256 of its bytes.
type FileID [32]byte

// String returns the ID as 64 lower-case hex digits.
func (id FileID) String() string { return hex.EncodeToString(id[:]) }

// Short returns the first 8 hex digits, for people.
func (id FileID) Short() string { return hex.EncodeToString(id[:4]) }

// MarshalText implements encoding.TextMarshaler.
func (id FileID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *FileID) UnmarshalText(b []byte) error {
	if len(b) != 2*len(id) {
		return fmt.Errorf("file ID %.80q: want %d hex digits", b, 2*len(id))
	}
	_, err := hex.Decode(id[:], b)
	return err
}

// Folders of a repository, as prefixes of names.
const (
	configName   = "config"
	keysDir      = "keys/"
	packsDir     = "packs/"
	indexDir     = "index/"
	snapshotsDir = "snapshots/"
	locksDir     = "locks/"
	prunesDir    = "prunes/"
)

func packName(id pack.ID) string {
	s := id.String()
	return packsDir + s[:2] + "/" + s
}

// fileID parses the ID at the end of a file's name.
func fileID(name string) (FileID, error) {
	var id FileID
	err := id.UnmarshalText([]byte(name[strings.LastIndexByte(name, '/')+1:]))
	return id, err
}

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
