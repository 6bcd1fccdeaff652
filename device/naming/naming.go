// Package naming chooses paths for the files of a device that every file system accepts.
//
// Characters that some system does not allow in names are escaped (%3A for a colon). A
// file or folder gets "~2" if its name is taken, even if the two names differ only by case.
// A path that is too long is shortened. No name leads out of the folder: there are neither
// empty elements nor "..", and no names that Windows reserves.
package naming

import (
	"fmt"
	"hash/fnv"
	"hash/maphash"
	"io"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/snap-backup/snap/device/mobilesync/folder"
	"golang.org/x/text/unicode/norm"
)

// noDomainFolder is the folder of files without a domain: manifests and extra files.
const noDomainFolder = "_backup"

// Full returns the name of a file on its device, with its domain. A file without a domain
// is in the folder _backup, with its path in the backup folder.
func Full(domain, name, path string) string {
	if domain == "" {
		return noDomainFolder + "/" + path
	}
	return domain + "/" + name
}

// New returns Paths that have chosen none yet.
func New() *Paths {
	return &Paths{seed: maphash.MakeSeed(), dirs: map[uint64]string{}, taken: map[uint64]int{}}
}

const (
	// maxFolderPath bounds the path of a file's folder, in bytes. Deeper folders are
	// left out, so that the file's path stays below the limit of folder.CheckPath.
	maxFolderPath = 700
	// maxShort is the length in bytes to which a name is cut.
	maxShort = 200
)

// Paths chooses paths for the names of a device. A device distinguishes case, but the
// target's file system may not. A manifest can have a file and a folder of the same name.
// The same sequence of names always gets the same paths.
// Paths keeps hashes of names, since there may be hundreds of thousands.
type Paths struct {
	seed  maphash.Seed
	dirs  map[uint64]string // chosen paths of folders, by the hash of the wanted path without case
	taken map[uint64]int    // by the same hash: how often a path was wanted
}

// hash ignores what some file system ignores: case, and how accents are composed.
func (p *Paths) hash(name string) uint64 {
	return maphash.String(p.seed, norm.NFC.String(strings.ToLower(norm.NFC.String(name))))
}

// Path returns a path that folder.CheckPath accepts and that differs from all earlier ones
// by more than case. changed is true if the path differs from name
// by more than escaped characters and the case of folders, or if an escaped character
// would have made the name look like another one.
func (p *Paths) Path(name string) (_ string, changed bool) {
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
			chosen := p.unused(wanted)
			return chosen, changed || chosen != wanted
		}
		h := p.hash(wanted)
		if _, ok := p.dirs[h]; !ok {
			p.dirs[h] = p.unused(wanted)
		}
		chosen := p.dirs[h]
		changed = changed || !strings.EqualFold(chosen, wanted)
		dir, rest = chosen, after
	}
}

// unused returns name, or name with a number if it is taken.
func (p *Paths) unused(name string) string {
	h := p.hash(name)
	p.taken[h]++
	if dir, last := path.Split(name); p.taken[h] > 1 && len(last) > maxShort {
		name = dir + strings.ToValidUTF8(last[:maxShort], "")
	}
	for n := p.taken[h]; n > 1; n++ {
		twin := fmt.Sprintf("%s~%d", name, n)
		if th := p.hash(twin); p.taken[th] == 0 {
			p.taken[h], p.taken[th] = n, 1
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
