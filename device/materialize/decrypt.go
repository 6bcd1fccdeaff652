package materialize

import (
	"context"
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

// decryptedSuffix is the end of the folder's name, so that the folder is not
// mistaken for a backup.
const decryptedSuffix = "-decrypted"

// noDomainFolder is the folder of files without a domain: manifests and extra
// files.
const noDomainFolder = "_backup"

// WriteDecrypted writes the files of a snapshot as they are on the device, by
// domain and path, to target/UDID-decrypted. That folder is for people; no
// device can be restored from it. Otherwise WriteDecrypted works like Write.
//
// Characters that some system does not allow in names are escaped (%3A for a
// colon). If two names differ only by case, the second gets "~2".
func WriteDecrypted(ctx context.Context, r *repo.Repo, s *repo.Snapshot, target string, opts Options) (*Result, error) {
	if s.Encrypted && !s.Unlocked {
		return nil, fmt.Errorf("snapshot %s: %w", s.ID.Short(), ErrLocked)
	}
	name, err := folderName(s)
	if err != nil {
		return nil, err
	}
	return write(ctx, r, s, target, name+decryptedSuffix, newDecryptedView, opts)
}

// view returns the entry to write for an entry of the snapshot, or false if
// nothing is written for it. Each walk needs its own view.
type view func(*tree.Entry) (tree.Entry, bool)

// asStored is the view of Write.
func asStored() view { return func(e *tree.Entry) (tree.Entry, bool) { return *e, true } }

// newDecryptedView returns a view of the device's own files: by domain and name,
// decrypted, with the times that they have on the device.
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
			out.Path = names.pathOf(noDomainFolder + "/" + e.Path)
		} else {
			out.Path = names.pathOf(e.Domain + "/" + e.Name)
		}
		return out, true
	}
}

// folding chooses paths for the names of a device. A device distinguishes case,
// but the target's file system may not. The same sequence of names always gets
// the same paths. folding keeps hashes of names, since there may be hundreds of
// thousands.
type folding struct {
	seed  maphash.Seed
	dirs  map[uint64]string // paths of folders, by the hash of the name without case
	files map[uint64]int    // number of files, by the hash of the name without case
}

func (f *folding) hash(name string) uint64 { return maphash.String(f.seed, strings.ToLower(name)) }

// pathOf returns a path that CheckPath accepts and that differs from all
// earlier ones by more than case.
func (f *folding) pathOf(name string) string {
	dir, rest := "", name
	for {
		part, after, more := strings.Cut(rest, "/")
		if part == "" && more {
			rest = after
			continue
		}
		current := path.Join(dir, escape(part))
		if !more {
			return f.unused(current)
		}
		h := f.hash(current)
		if known, ok := f.dirs[h]; ok {
			current = known
		} else {
			f.dirs[h] = current
		}
		dir, rest = current, after
	}
}

// unused returns name, or name with a number if it is taken.
func (f *folding) unused(name string) string {
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

// escape returns a name that every system allows, for one element of a path.
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
		out = "%" + out // device names of Windows, and the empty name
	}
	return out
}
