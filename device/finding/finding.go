// Package finding collects what is wrong or unusual with a backup: its kinds,
// their consequences, and sentences about them for people.
//
// Programs that judge a backup add to a Log as they read. The package itself
// reads nothing and judges nothing.
package finding

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/snap-backup/snap/repo"
)

// Kinds of findings about files. The names are stable.
const (
	Missing    = "missing"    // a file that the manifest lists is not there
	Emptied    = "emptied"    // 0 bytes, where the manifest promises more
	Size       = "size"       // another length than the manifest says
	Digest     = "digest"     // another SHA-1 than the manifest says
	Database   = "database"   // an SQLite database that is cut off or damaged
	NoKey      = "no-key"     // encrypted, and its key is missing, damaged or of an unknown form
	Cipher     = "cipher"     // encrypted, and its bytes do not decrypt to a file
	Plist      = "plist"      // a property list that cannot be parsed
	Unreadable = "unreadable" // left out, because it could not be read
	Lost       = "lost"       // stored, but the repository has lost its content
	Stray      = "stray"      // left out, because no device writes it
	Extra      = "extra"      // named like a blob, but not listed
)

// Kinds of findings about the backup as a whole. The kinds of problems of
// package mobilesync come in addition.
const (
	Anomaly     = "anomaly"         // rows of the manifest that no device writes
	DeviceError = "device-error"    // what the device said about its own errors
	Changed     = "changed"         // the backup changed while it was read
	Date        = "date"            // an impossible date
	Manifest    = "manifest-damage" // the manifest cannot be read
	Keys        = "keys"            // two sets of keys
	Nested      = "nested"          // another backup is inside this one
	Decrypted   = "decrypted"       // a program has decrypted the backup in place
	Refused     = "refused"         // a device refuses the backup
)

// sentences describe one file, and several files of a kind.
var sentences = map[string][2]string{
	Missing:    {"a file in the manifest is missing", "files in the manifest are missing"},
	Emptied:    {"a file is empty, although the manifest gives a size", "files are empty, although the manifest gives sizes"},
	Size:       {"a file differs in size from the manifest", "files differ in size from the manifest"},
	Digest:     {"a file differs from its digest in the manifest", "files differ from their digests in the manifest"},
	Database:   {"a database is damaged", "databases are damaged"},
	NoKey:      {"a file has no usable key", "files have no usable key"},
	Cipher:     {"a file cannot be decrypted", "files cannot be decrypted"},
	Plist:      {"a property list is damaged", "property lists are damaged"},
	Unreadable: {"a file could not be read and was left out", "files could not be read and were left out"},
	Lost:       {"the repository has lost the content of a file", "files have lost their content in the repository"},
	Stray:      {"an entry of the folder was left out, since no device writes it", "entries of the folder were left out, since no device writes them"},
	Anomaly:    {"the manifest calls a file a folder or a link", "the manifest calls files folders or links"},
}

// remarks are the sentences for findings without a consequence, where they differ.
var remarks = map[string][2]string{
	Database: {"a database has faults that the device wrote itself, or breaks rules of its app", "databases have faults that the device wrote itself, or break rules of their apps"},
	Plist:    {"a file is named like a property list, but is none that snap can parse", "files are named like property lists, but are none that snap can parse"},
	Cipher:   {"a file has no valid padding, as the device wrote it", "files have no valid padding, as the device wrote them"},
	Anomaly:  {"a row of the manifest is unusual", "rows of the manifest are unusual"},
}

// Log collects findings. It may be used by several goroutines. The zero value
// is empty.
type Log struct {
	mu    sync.Mutex
	files map[group]*names
	notes []repo.Finding
}

// group is a kind of findings with one consequence.
type group struct {
	kind        string
	consequence repo.Consequence
}

// names of affected files.
type names struct {
	list  []string
	count int64
}

// maxNames bounds the names of one kind in memory. Files beyond this limit are
// only counted.
const maxNames = 1 << 20

// File adds a file that is affected by damage of a kind.
func (l *Log) File(kind, name string) { l.add(kind, repo.Damage, name) }

// Remark adds a file with something unusual that has no consequence.
func (l *Log) Remark(kind, name string) { l.add(kind, repo.Remark, name) }

func (l *Log) add(kind string, c repo.Consequence, name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.files == nil {
		l.files = map[group]*names{}
	}
	n := l.files[group{kind, c}]
	if n == nil {
		n = &names{}
		l.files[group{kind, c}] = n
	}
	if n.count++; len(n.list) < maxNames {
		n.list = append(n.list, name)
	}
}

// Note adds a finding that is about no file in particular. text is a sentence
// without a full stop.
func (l *Log) Note(kind string, c repo.Consequence, text string) {
	l.Count(kind, c, 0, text)
}

// Count is like Note, but for a number of things without names.
func (l *Log) Count(kind string, c repo.Consequence, count int64, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.notes = append(l.notes, repo.Finding{Kind: kind, Consequence: c, Count: count, Text: text})
}

// Add adds a finding with its names.
func (l *Log) Add(f repo.Finding) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.notes = append(l.notes, f)
}

// Findings returns what was added, with all names. The worst consequences come
// first.
func (l *Log) Findings() []repo.Finding {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := append([]repo.Finding{}, l.notes...)
	for g, n := range l.files {
		slices.Sort(n.list)
		out = append(out, repo.Finding{Kind: g.kind, Consequence: g.consequence, Count: n.count, Names: slices.Clone(n.list), Text: sentence(g, n)})
	}
	slices.SortStableFunc(out, func(a, b repo.Finding) int {
		return cmp.Or(cmp.Compare(rank(a.Consequence), rank(b.Consequence)), strings.Compare(a.Kind, b.Kind))
	})
	return slices.Clip(out)
}

// sentence describes the files of a kind and names the first.
func sentence(g group, n *names) string {
	s, ok := remarks[g.kind]
	if !ok || g.consequence != repo.Remark {
		s = sentences[g.kind]
	}
	if s == [2]string{} {
		s = [2]string{"a file has a finding of kind " + g.kind, "files have a finding of kind " + g.kind}
	}
	if n.count == 1 {
		return fmt.Sprintf("%s: %s", s[0], n.list[0])
	}
	return fmt.Sprintf("%d %s, the first is %s", n.count, s[1], n.list[0])
}

func rank(c repo.Consequence) int {
	switch c {
	case repo.Incomplete:
		return 0
	case repo.Remark:
		return 2
	}
	return 1
}

// Merge adds a finding about files to a list. If the list has a finding of the same kind
// and consequence that names files, the two become one, which has each name once.
func Merge(list []repo.Finding, f repo.Finding) []repo.Finding {
	i := slices.IndexFunc(list, func(g repo.Finding) bool {
		return g.Kind == f.Kind && g.Consequence == f.Consequence && len(g.Names) > 0
	})
	if i < 0 || len(f.Names) == 0 {
		return append(list, f)
	}
	out := slices.Clone(list)
	all := slices.Concat(out[i].Names, f.Names)
	slices.Sort(all)
	n := &names{list: slices.Compact(slices.Clone(all))}
	n.count = out[i].Count + f.Count - int64(len(all)-len(n.list))
	out[i].Names, out[i].Count, out[i].Text = n.list, n.count, sentence(group{f.Kind, f.Consequence}, n)
	return out
}

// Has reports whether there is a finding of a kind.
func Has(findings []repo.Finding, kind string) bool {
	return slices.ContainsFunc(findings, func(f repo.Finding) bool { return f.Kind == kind })
}

// Worst returns the worst consequence of findings: Remark if there are none.
func Worst(findings []repo.Finding) repo.Consequence {
	worst := repo.Remark
	for _, f := range findings {
		if rank(f.Consequence) < rank(worst) {
			worst = f.Consequence
		}
	}
	return worst
}

// Name names a file for people: by its place on the device and its blob, or, if
// the place is not known, by its path in the backup folder.
func Name(domain, name, path string) string {
	if domain == "" {
		return path
	}
	return fmt.Sprintf("%s/%s (%s)", domain, name, path[strings.LastIndexByte(path, '/')+1:])
}
