// Package replace puts a good file in the place of a damaged one.
//
// A backend never overwrites, so the damaged file has to go before the good one
// can come. So that nothing is lost if that is cut off in between, the good
// bytes are stored beside it first:
//
//	healing/NAME   the bytes of NAME, on their way to their place
//
// Whatever is found there later is brought to its place by Finish. The package
// knows nothing of what files mean, and needs no key: it handles files that are
// named by the BLAKE3-256 of their bytes, and config, which it takes if it is whole.
package replace

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/snap-backup/snap/crypto/blake"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
)

// Dir is the folder of files on their way.
const Dir = layout.HealingDir

// Put stores data, which fits the name, in the place of whatever is there.
func Put(ctx context.Context, be backend.Backend, name string, data []byte) error {
	if err := be.Put(ctx, Dir+name, data); err != nil && !errors.Is(err, backend.ErrExist) {
		return fmt.Errorf("store a good copy of %s: %w", name, err)
	}
	return settle(ctx, be, name, data)
}

func settle(ctx context.Context, be backend.Backend, name string, data []byte) error {
	if err := remove(ctx, be, name); err != nil {
		return err
	}
	if err := be.Put(ctx, name, data); err != nil && !errors.Is(err, backend.ErrExist) {
		return fmt.Errorf("replace %s: %w", name, err)
	}
	return remove(ctx, be, Dir+name)
}

func remove(ctx context.Context, be backend.Backend, name string) error {
	if err := be.Delete(ctx, name); err != nil && !errors.Is(err, backend.ErrNotExist) {
		return fmt.Errorf("replace %s: %w", name, err)
	}
	return nil
}

// Finish brings files that an interrupted Put has left on their way to their
// places. One that is damaged itself is removed.
func Finish(ctx context.Context, be backend.Backend) error {
	var names []string
	if err := be.List(ctx, Dir, func(f backend.Info) error {
		names = append(names, strings.TrimPrefix(f.Name, Dir))
		return nil
	}); err != nil {
		return fmt.Errorf("list %s: %w", Dir, err)
	}
	for _, name := range names {
		data, err := backend.ReadAll(ctx, be, Dir+name, layout.MaxFileSize)
		if errors.Is(err, backend.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if !fits(name, data) {
			if err := remove(ctx, be, Dir+name); err != nil {
				return err
			}
			continue
		}
		if there, err := backend.ReadAll(ctx, be, name, layout.MaxFileSize); err == nil && isGood(name, there, data) {
			if err := remove(ctx, be, Dir+name); err != nil {
				return err
			}
			continue
		}
		if err := settle(ctx, be, name, data); err != nil {
			return err
		}
	}
	return nil
}

// isGood reports whether a file in its place needs no replacing by one on its
// way. The bytes of config tell nothing: what is on its way was found good, and
// what is in its place was found damaged or is torn, unless they are the same.
func isGood(name string, there, onItsWay []byte) bool {
	if name == layout.ConfigName {
		return bytes.Equal(there, onItsWay)
	}
	return fits(name, there)
}

// fits reports whether data are the bytes that a name stands for. Of config that
// is whether they are whole: it is JSON and a newline, and whatever a disk leaves
// of it that lost its end is not.
func fits(name string, data []byte) bool {
	if name == layout.ConfigName {
		return bytes.HasSuffix(data, []byte("\n")) && json.Valid(data)
	}
	id := blake.Sum(data)
	return name[strings.LastIndexByte(name, '/')+1:] == hex.EncodeToString(id[:])
}
