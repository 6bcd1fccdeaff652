package materialize

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"hash/maphash"
	"io"
	"path"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/folder"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
	"golang.org/x/text/unicode/norm"
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
// colon). A file or folder gets "~2" if its name is taken, even if the two names differ
// only by case. A path that is too long is shortened. Result.Renamed lists the files
// whose path has such a number or is shortened.
//
// A file that could not be decrypted when it was stored is not written, since
// it would be noise under the name of a file. Result.NotDecrypted lists such files.
func WriteDecrypted(ctx context.Context, r *repo.Repo, s *repo.Snapshot, target string, opts Options) (*Result, error) {
	if s.Encrypted && !s.Unlocked && !finding.Has(s.Findings, finding.Decrypted) {
		return nil, fmt.Errorf("snapshot %s: %w", s.ID.Short(), ErrLocked)
	}
	name, err := folderName(s)
	if err != nil {
		return nil, err
	}
	undecrypted, err := findUndecrypted(ctx, r, s, opts.Incomplete)
	if err != nil {
		return nil, err
	}
	return write(ctx, r, s, target, name+decryptedSuffix, func(l *lists) mapper { return newDecryptedMapper(undecrypted, l) }, opts)
}

// mapper returns the entry to write for an entry of the snapshot, or false if
// nothing is written for it. Each walk needs its own mapper.
type mapper func(*tree.Entry) (tree.Entry, bool)

// lists are what mappers report about files.
type lists struct {
	renamed     []Renamed
	undecrypted []string
}

// asStored returns the mapper of Write, which changes nothing.
func asStored(*lists) mapper { return func(e *tree.Entry) (tree.Entry, bool) { return *e, true } }

// newDecryptedMapper returns the mapper of WriteDecrypted. It gives files their
// paths by domain and name, their plaintext, and the times that they have on the
// device. l may be nil.
func newDecryptedMapper(undecrypted func(*tree.Entry) bool, l *lists) mapper {
	names := folding{seed: maphash.MakeSeed(), dirs: map[uint64]string{}, taken: map[uint64]int{}}
	return func(e *tree.Entry) (tree.Entry, bool) {
		if e.Kind == tree.Dir {
			return tree.Entry{}, false
		}
		name := noDomainFolder + "/" + e.Path
		if e.Domain != "" {
			name = e.Domain + "/" + e.Name
		}
		if undecrypted(e) {
			if l != nil {
				l.undecrypted = append(l.undecrypted, finding.Name(e.Domain, e.Name, e.Path))
			}
			return tree.Entry{}, false
		}
		out := tree.Entry{Mode: 0o600, ModTime: e.ModTime, Content: e.Content}
		if e.Record != nil {
			out.ModTime = tree.AtSecond(e.Record.ModTime)
		}
		var changed bool
		if out.Path, changed = names.pathOf(name); changed && l != nil {
			l.renamed = append(l.renamed, Renamed{name, out.Path})
		}
		return out, true
	}
}

// findUndecrypted returns a function that reports whether an entry of an unlocked
// snapshot is stored as the device encrypted it: its row in the manifest has a
// key, but the entry has none. A file of a folder that a program has decrypted is not
// encrypted if it has the length that its row says.
func findUndecrypted(ctx context.Context, r *repo.Repo, s *repo.Snapshot, incomplete bool) (func(*tree.Entry) bool, error) {
	no := func(*tree.Entry) bool { return false }
	decrypted := finding.Has(s.Findings, finding.Decrypted)
	if !s.Unlocked && !decrypted {
		return no, nil
	}
	records, err := readManifest(ctx, r, s)
	if errors.Is(err, manifest.ErrCorrupt) || incomplete && errors.Is(err, repo.ErrDamaged) {
		// Nothing says which files are encrypted.
		return func(e *tree.Entry) bool { return e.Encryption == nil && isBlob(e) }, nil
	}
	if err != nil || records == nil {
		return no, err
	}
	return func(e *tree.Entry) bool {
		if e.Encryption != nil || e.Content.Size == 0 {
			return false
		}
		id, ok := blob.ParsePath(e.Path, false)
		if !ok {
			return false
		}
		i, ok := records.ByFileID(id)
		if !ok {
			return false
		}
		rec := records.At(i)
		return rec.EncryptionKey != nil && !(decrypted && rec.Size == e.Content.Size)
	}, nil
}

// readManifest returns the records of Manifest.db, or nil if there is none.
func readManifest(ctx context.Context, r *repo.Repo, s *repo.Snapshot) (*manifest.Records, error) {
	e, err := r.Find(ctx, s, tree.Key{Path: mobilesync.ManifestDB})
	if err != nil || e == nil {
		return nil, err
	}
	f, err := blob.OpenContent(ctx, r, &e.Content, time.Time{})
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return manifest.ReadDB(ctx, f, e.Content.Size)
}

func isBlob(e *tree.Entry) bool {
	_, ok := blob.ParsePath(e.Path, false)
	return ok
}

const (
	// maxFolderPath bounds the path of a file's folder, in bytes. Deeper folders are
	// left out, so that the file's path stays below the limit of folder.CheckPath.
	maxFolderPath = 700
	// maxShort is the length in bytes to which a name is cut.
	maxShort = 200
)

// folding chooses paths for the names of a device. A device distinguishes case,
// but the target's file system may not. A manifest can have a file and a folder
// of the same name. The same sequence of names always gets the same paths.
// folding keeps hashes of names, since there may be hundreds of thousands.
type folding struct {
	seed  maphash.Seed
	dirs  map[uint64]string // chosen paths of folders, by the hash of the wanted path without case
	taken map[uint64]int    // by the same hash: how often a path was wanted
}

// hash ignores what some file system ignores: case, and how accents are composed.
func (f *folding) hash(name string) uint64 {
	return maphash.String(f.seed, norm.NFC.String(strings.ToLower(norm.NFC.String(name))))
}

// pathOf returns a path that CheckPath accepts and that differs from all
// earlier ones by more than case. changed is true if the path differs from name
// by more than escaped characters and the case of folders, or if an escaped character
// would have made the name look like another one.
func (f *folding) pathOf(name string) (_ string, changed bool) {
	dir, rest := "", name
	for {
		part, after, more := strings.Cut(rest, "/")
		if part == "" && more {
			rest = after
			continue
		}
		short := escape(part)
		if more && len(dir)+len(short) > maxFolderPath {
			above := fnv.New32a()
			_, _ = io.WriteString(above, name[:strings.LastIndexByte(name, '/')])
			part = name[strings.LastIndexByte(name, '/')+1:]
			short, more, changed = fmt.Sprintf("~%08x-%s", above.Sum32(), escape(part)), false, true
		}
		wanted := path.Join(dir, short)
		changed = changed || len(short) < len(part) || turns(part)
		if !more {
			chosen := f.unused(wanted)
			return chosen, changed || chosen != wanted
		}
		h := f.hash(wanted)
		if _, ok := f.dirs[h]; !ok {
			f.dirs[h] = f.unused(wanted)
		}
		chosen := f.dirs[h]
		changed = changed || !strings.EqualFold(chosen, wanted)
		dir, rest = chosen, after
	}
}

// unused returns name, or name with a number if it is taken.
func (f *folding) unused(name string) string {
	h := f.hash(name)
	f.taken[h]++
	if dir, last := path.Split(name); f.taken[h] > 1 && len(last) > maxShort {
		name = dir + strings.ToValidUTF8(last[:maxShort], "")
	}
	for n := f.taken[h]; n > 1; n++ {
		twin := fmt.Sprintf("%s~%d", name, n)
		if th := f.hash(twin); f.taken[th] == 0 {
			f.taken[h], f.taken[th] = n, 1
			return twin
		}
	}
	return name
}

// turns reports whether a name has characters that change the direction of text.
// With them, a program can be shown as if it were a photo.
func turns(name string) bool {
	return strings.ContainsFunc(name, func(r rune) bool { return unicode.Is(unicode.Bidi_Control, r) })
}

// escape returns a name that every system allows, for one element of a path.
func escape(name string) string {
	if name != "" && folder.CheckPath(name) == nil && !strings.Contains(name, "%") && !turns(name) {
		return name
	}
	var b strings.Builder
	for i, r := range name {
		_, size := utf8.DecodeRuneInString(name[i:])
		last := i+size == len(name)
		if r == utf8.RuneError || unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || strings.ContainsRune(`%\:<>"|?*`, r) || last && (r == '.' || r == ' ') {
			fmt.Fprintf(&b, "%%%02X", name[i:i+size])
			continue
		}
		b.WriteRune(r)
	}
	out := b.String()
	if len(out) > maxShort {
		out = strings.ToValidUTF8(out[:maxShort], "")
	}
	if out == "" || folder.CheckPath(out) != nil {
		out = "%" + out // device names of Windows, and the empty name
	}
	return out
}
