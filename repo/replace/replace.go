// Package replace replaces damaged files of a repository by good ones. After an
// interruption, the damaged file or the good one still exists.
//
// A backend never overwrites, so the damaged file must be removed before the good one
// is stored. The good bytes are therefore stored in another file first:
//
//	healing/NAME   the good bytes of NAME
//
// Finish completes interrupted replacements. The package needs no key. It handles the
// config, and files that are named by the BLAKE3-256 of their bytes. A config is good if
// it is complete, any other file if it has the hash in its name.
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
	err := be.Put(ctx, Dir+name, data)
	if errors.Is(err, backend.ErrExist) {
		// Left by an interrupted Put. It must be good before NAME is removed.
		if left, rerr := backend.ReadAll(ctx, be, Dir+name, layout.MaxFileSize); rerr != nil || !bytes.Equal(left, data) {
			if err := remove(ctx, be, Dir+name); err != nil {
				return err
			}
			err = be.Put(ctx, Dir+name, data)
		}
	}
	if err != nil && !errors.Is(err, backend.ErrExist) {
		return fmt.Errorf("store a good copy of %s: %w", name, err)
	}
	return move(ctx, be, name, data)
}

// move stores data under its name and removes its copy in Dir.
func move(ctx context.Context, be backend.Backend, name string, data []byte) error {
	if _, err := MoveAside(ctx, be, name); err != nil { // a folder cannot be removed
		return err
	}
	if err := remove(ctx, be, name); err != nil {
		return err
	}
	if err := be.Put(ctx, name, data); err != nil && !errors.Is(err, backend.ErrExist) {
		return fmt.Errorf("replace %s: %w", name, err)
	}
	return remove(ctx, be, Dir+name)
}

// MoveAside moves away what is not a file and has the name of one, if the store can do that.
// It returns its new name, or "" if there was nothing to move.
func MoveAside(ctx context.Context, be backend.Backend, name string) (aside string, err error) {
	if f, ok := be.(backend.Folders); ok {
		if aside, err = f.MoveAside(ctx, name); err != nil {
			return aside, fmt.Errorf("replace %s: %w", name, err)
		}
	}
	return aside, nil
}

func remove(ctx context.Context, be backend.Backend, name string) error {
	if err := be.Delete(ctx, name); err != nil && !errors.Is(err, backend.ErrNotExist) {
		return fmt.Errorf("replace %s: %w", name, err)
	}
	return nil
}

// Delete removes a file for good, with what an interrupted Put has left of it: otherwise
// Finish would bring the file back. The error is that of [backend.Backend.Delete].
func Delete(ctx context.Context, be backend.Backend, name string) error {
	if err := be.Delete(ctx, Dir+name); err != nil && !errors.Is(err, backend.ErrNotExist) {
		return fmt.Errorf("remove what an interrupted repair has left: %w", err)
	}
	return be.Delete(ctx, name)
}

// Waiting returns the files of a folder that an interrupted Put has removed and not yet
// stored again. Finish stores them.
func Waiting(ctx context.Context, be backend.Backend, folder string) ([]string, error) {
	var names []string
	err := be.List(ctx, Dir+folder, func(f backend.Info) error {
		if name := strings.TrimPrefix(f.Name, Dir); layout.IsFile(name) {
			names = append(names, name)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", Dir+folder, err)
	}
	var waiting []string
	for _, name := range names {
		if _, err := be.Stat(ctx, name); !errors.Is(err, backend.ErrNotExist) {
			continue
		}
		data, err := backend.ReadAll(ctx, be, Dir+name, layout.MaxFileSize)
		if err == nil && isGood(name, data) || backend.Unreadable(ctx, be, err) {
			waiting = append(waiting, name)
		}
	}
	return waiting, ctx.Err()
}

// Clear removes a damaged file for good, as Delete does. What is not a file and has its name
// is moved away instead; then Clear returns its new name.
func Clear(ctx context.Context, be backend.Backend, name string) (aside string, err error) {
	if aside, err = MoveAside(ctx, be, name); err != nil || aside != "" { // a folder cannot be removed
		return aside, err
	}
	if err := Delete(ctx, be, name); err != nil && !errors.Is(err, backend.ErrNotExist) {
		return "", err
	}
	return "", nil
}

// Finish completes all interrupted Puts. It removes files in Dir that are damaged
// themselves. What is not a file, it moves away, and returns the new names.
func Finish(ctx context.Context, be backend.Backend) (aside []string, err error) {
	var names []string
	if err := be.List(ctx, Dir, func(f backend.Info) error {
		if name := strings.TrimPrefix(f.Name, Dir); layout.IsFile(name) {
			names = append(names, name)
		}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("list %s: %w", Dir, err)
	}
	for _, name := range names {
		moved, err := MoveAside(ctx, be, Dir+name)
		if err != nil {
			return aside, err
		}
		if moved != "" {
			aside = append(aside, moved)
			continue
		}
		data, err := backend.ReadAll(ctx, be, Dir+name, layout.MaxFileSize)
		if errors.Is(err, backend.ErrNotExist) {
			continue
		}
		if backend.Unreadable(ctx, be, err) {
			// It may be good: another user or computer may be able to read it.
			if current, err := backend.ReadAll(ctx, be, name, layout.MaxFileSize); err != nil || !isGood(name, current) {
				continue
			}
			if err := remove(ctx, be, Dir+name); err != nil {
				return aside, err
			}
			continue
		}
		if err != nil && !errors.Is(err, backend.ErrTooLarge) {
			return aside, err
		}
		if !isGood(name, data) {
			if err := remove(ctx, be, Dir+name); err != nil {
				return aside, err
			}
			continue
		}
		current, err := backend.ReadAll(ctx, be, name, layout.MaxFileSize)
		if err == nil && (isCurrent(name, current, data) || name == layout.ConfigName && hasCopy(ctx, be, current)) {
			if err := remove(ctx, be, Dir+name); err != nil {
				return aside, err
			}
			continue
		}
		if err := move(ctx, be, name, data); err != nil {
			return aside, err
		}
	}
	return aside, nil
}

// isCurrent reports whether a file need not be replaced. For the config, the bytes must
// be equal, since the current config may be damaged or incomplete.
func isCurrent(name string, current, replacement []byte) bool {
	if name == layout.ConfigName {
		return bytes.Equal(current, replacement)
	}
	return isGood(name, current)
}

// hasCopy reports whether a config is good, since configs/ has a copy of it. A file in
// Dir, which anybody may have put there, must not replace it.
func hasCopy(ctx context.Context, be backend.Backend, config []byte) bool {
	id := layout.FileID(blake.Sum(config))
	_, err := be.Stat(ctx, layout.ConfigsDir+id.String())
	return err == nil
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
