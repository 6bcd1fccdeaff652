// Package replace replaces damaged files of a repository by good ones, atomically: an
// interruption loses neither file.
//
// A backend never overwrites, so the damaged file must be removed before the good one
// is stored. The good bytes are therefore stored in another file first:
//
//	healing/NAME   the good bytes of NAME
//
// Finish completes interrupted replacements. The package needs no key and never reads
// what files contain: it handles files that are named by the BLAKE3-256 of their bytes,
// and the config. For the config it checks only that it is complete.
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

// Dir is the folder of good files that replace damaged ones.
const Dir = layout.HealingDir

// Put stores data under a name, and replaces the file of that name if there is one.
// data must be good.
func Put(ctx context.Context, be backend.Backend, name string, data []byte) error {
	if err := be.Put(ctx, Dir+name, data); err != nil && !errors.Is(err, backend.ErrExist) {
		return fmt.Errorf("store a good copy of %s: %w", name, err)
	}
	return move(ctx, be, name, data)
}

// move stores data under its name and removes its copy in Dir.
func move(ctx context.Context, be backend.Backend, name string, data []byte) error {
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

// Finish completes all interrupted Puts. It removes files in Dir that are damaged
// themselves.
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
		if !isGood(name, data) {
			if err := remove(ctx, be, Dir+name); err != nil {
				return err
			}
			continue
		}
		if current, err := backend.ReadAll(ctx, be, name, layout.MaxFileSize); err == nil && isCurrent(name, current, data) {
			if err := remove(ctx, be, Dir+name); err != nil {
				return err
			}
			continue
		}
		if err := move(ctx, be, name, data); err != nil {
			return err
		}
	}
	return nil
}

// isCurrent reports whether a file need not be replaced. For the config, the bytes must
// be equal, since the current config may be damaged or incomplete.
func isCurrent(name string, current, replacement []byte) bool {
	if name == layout.ConfigName {
		return bytes.Equal(current, replacement)
	}
	return isGood(name, current)
}

// isGood reports whether data has the hash that is its name. For the config it reports
// whether data is complete: JSON followed by a newline. A config that was cut short is
// not.
func isGood(name string, data []byte) bool {
	if name == layout.ConfigName {
		return bytes.HasSuffix(data, []byte("\n")) && json.Valid(data)
	}
	id := blake.Sum(data)
	return name[strings.LastIndexByte(name, '/')+1:] == hex.EncodeToString(id[:])
}
