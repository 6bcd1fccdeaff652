package transfer

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/snap-backup/snap/device/mobilesync/folder"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// ErrLocked says that a snapshot of an encrypted backup was stored without the
// backup password, so that nobody can look into its files.
var ErrLocked = errors.New("the snapshot was stored locked")

// decryptedSuffix marks the folder that Decrypt writes, so that nobody takes it
// for a backup.
const decryptedSuffix = "-decrypted"

// noDomainFolder holds what belongs to no domain: manifests and extra files.
const noDomainFolder = "_backup"

// Decrypt writes the files of a snapshot as they are on the device, by domain
// and path, into target/UDID-decrypted. That is for looking at and taking out
// files: no device restores from it. It works like Materialize in all else.
//
// Names that some system could not hold are escaped (%3A for a colon), and of
// two names that differ by case alone the second gets "~2".
func Decrypt(ctx context.Context, r *repo.Repo, s *repo.Snapshot, target string, opts MaterializeOptions) (*MaterializeResult, error) {
	if s.Encrypted && !s.Unlocked {
		return nil, fmt.Errorf("snapshot %s: %w", s.ID.Short(), ErrLocked)
	}
	name, err := FolderName(s)
	if err != nil {
		return nil, err
	}
	return materialize(ctx, r, s, target, name+decryptedSuffix, newDecryptedView, opts)
}

// view changes entries before they are written. It is used for one walk.
type view func(*tree.Entry) (tree.Entry, bool)

// asStored is the view of Materialize.
func asStored() view { return func(e *tree.Entry) (tree.Entry, bool) { return *e, true } }

// newDecryptedView shows the device's own files: by domain and name, as what
// they hold, with the times that they have on the device.
func newDecryptedView() view {
	names := folding{seed: maphash.MakeSeed(), dirs: map[uint64]string{}, files: map[uint64]int{}}
	return func(e *tree.Entry) (tree.Entry, bool) {
		if e.Kind == tree.Dir {
			return tree.Entry{}, false
		}
		out := tree.Entry{Mode: 0o600, ModTime: e.ModTime, Content: e.Content}
		if e.Record != nil {
			out.ModTime = e.Record.ModTime * 1e9
		}
		if e.Domain == "" {
			out.Path = names.place(noDomainFolder + "/" + e.Path)
		} else {
			out.Path = names.place(e.Domain + "/" + e.Name)
		}
		return out, true
	}
}

// folding finds places for names of a device, on which case matters, in a
// folder in which it may not. Equal sequences of names get equal places. Names
// are kept by hash: there may be hundreds of thousands.
type folding struct {
	seed  maphash.Seed
	dirs  map[uint64]string // the place of a folder, by its name without case
	files map[uint64]int    // how many files have a name without case
}

func (f *folding) hash(name string) uint64 { return maphash.String(f.seed, strings.ToLower(name)) }

// place returns a path that CheckPath accepts and that differs from all before
// by more than case.
func (f *folding) place(name string) string {
	dir, rest := "", name
	for {
		part, after, more := strings.Cut(rest, "/")
		if part == "" && more {
			rest = after
			continue
		}
		here := path.Join(dir, escape(part))
		if !more {
			return f.free(here)
		}
		h := f.hash(here)
		if known, ok := f.dirs[h]; ok {
			here = known
		} else {
			f.dirs[h] = here
		}
		dir, rest = here, after
	}
}

// free returns a name that no file has yet.
func (f *folding) free(name string) string {
	h := f.hash(name)
	f.files[h]++
	for n := f.files[h]; n > 1; n++ {
		twin := fmt.Sprintf("%s~%d", name, n)
		if th := f.hash(twin); f.files[th] == 0 {
			f.files[h], f.files[th] = n, 1
			return twin
		}
	}
	return name
}

// escape makes one element of a path into a name that every system can hold.
func escape(name string) string {
	if name != "" && folder.CheckPath(name) == nil && !strings.Contains(name, "%") {
		return name
	}
	var b strings.Builder
	for i, r := range name {
		_, size := utf8.DecodeRuneInString(name[i:])
		last := i+size == len(name)
		if r == utf8.RuneError || unicode.IsControl(r) || strings.ContainsRune(`%\:<>"|?*`, r) || last && (r == '.' || r == ' ') {
			fmt.Fprintf(&b, "%%%02X", name[i:i+size])
			continue
		}
		b.WriteRune(r)
	}
	out := b.String()
	if len(out) > 200 {
		out = strings.ToValidUTF8(out[:200], "")
	}
	if out == "" || folder.CheckPath(out) != nil {
		out = "%" + out // device names of Windows, and nothing at all
	}
	return out
}
