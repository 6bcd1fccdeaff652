package mirror

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
)

// class is a set of files that are copied together. Files of a later class may need
// files of an earlier one, never the other way round.
type class int

// The classes in the order in which they are copied.
const (
	keys   class = iota
	copies       // of config
	config
	packs
	indexes
	records // snapshots, runs, secrets, parity, certificates and the ledger: they may need other files, and no file needs them
	classes
)

// folders are the folders of a mirror. locks/ and prunes/ are not copied, since their
// files are about running processes of the source.
var folders = [classes][]string{
	keys:    {layout.KeysDir},
	copies:  {layout.ConfigsDir},
	packs:   {layout.PacksDir},
	indexes: {layout.IndexDir},
	records: {layout.SnapshotsDir, layout.RunsDir, layout.SecretsDir, layout.ParityDir, layout.CertificatesDir, layout.LedgerDir},
}

// listing has the files of a repository by class. It maps the name of each file to its
// size.
type listing [classes]map[string]int64

// list lists the files to mirror. It lists records first. The files that records
// need are older, so a later listing shows them, unless another process has
// replaced them. Run checks for replaced files.
func list(ctx context.Context, be backend.Backend) (listing, error) {
	var l listing
	for c := records; c >= keys; c-- {
		var err error
		if l[c], err = listClass(ctx, be, c); err != nil {
			return l, err
		}
	}
	return l, nil
}

func listClass(ctx context.Context, be backend.Backend, c class) (map[string]int64, error) {
	files := map[string]int64{}
	if c == config {
		info, err := be.Stat(ctx, layout.ConfigName)
		if err == nil {
			files[layout.ConfigName] = info.Size
		}
		if errors.Is(err, backend.ErrNotExist) {
			err = nil
		}
		return files, err
	}
	for _, folder := range folders[c] {
		err := be.List(ctx, folder, func(f backend.Info) error {
			if _, ok := hashOf(f.Name); ok {
				files[f.Name] = f.Size
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", folder, err)
		}
	}
	return files, nil
}

// hashOf returns the hash in a file's name. ok is false if name is not the name of a
// repository file. Callers ignore other files.
func hashOf(name string) (hash id, ok bool) {
	file, err := layout.ParseFileID(name)
	return id(file), err == nil
}

// total returns the number of files of a listing and their total length.
func (l *listing) total() (files, bytes int64) {
	for _, m := range l {
		files += int64(len(m))
		bytes += sum(m)
	}
	return files, bytes
}

// size returns the length of a file, if the listing has it.
func (l *listing) size(name string) (int64, bool) {
	for _, m := range l {
		if n, ok := m[name]; ok {
			return n, true
		}
	}
	return 0, false
}

// some reports whether a listing has files.
func (l *listing) some() bool {
	files, _ := l.total()
	return files > 0
}

func (l *listing) has(name string) bool {
	_, ok := l.size(name)
	return ok
}

// judgeable returns the files that a judge opens: all but packs.
func (l *listing) judgeable() (names []string) {
	for _, c := range []class{keys, copies, config, indexes, records} {
		names = slices.AppendSeq(names, maps.Keys(l[c]))
	}
	return names
}

func sum(m map[string]int64) (n int64) {
	for _, size := range m {
		n += size
	}
	return n
}

// inFolder returns the files in a folder.
func inFolder(m map[string]int64, folder string) map[string]int64 {
	out := map[string]int64{}
	for name, size := range m {
		if strings.HasPrefix(name, folder) {
			out[name] = size
		}
	}
	return out
}

// noted returns the files that a mirror's notes say were copied.
func noted(m map[string]int64) map[string]int64 {
	out := inFolder(m, layout.SnapshotsDir)
	maps.Copy(out, inFolder(m, layout.CertificatesDir))
	return out
}

// extra returns the files of the target that the source does not have. Unless
// AcceptRemovals is set, it leaves out certificates that were made on the target.
func (m *mirrorer) extra(src, dst *listing, n *notes, c class) map[string]int64 {
	out := onlyIn(dst[c], src[c])
	maps.DeleteFunc(out, func(name string, _ int64) bool {
		hash, _ := hashOf(name)
		return strings.HasPrefix(name, layout.CertificatesDir) && !n.copied[hash] && !m.opts.AcceptRemovals
	})
	return out
}

// onlyIn returns the files of a that b does not have.
func onlyIn(a, b map[string]int64) map[string]int64 {
	out := map[string]int64{}
	for name, size := range a {
		if _, ok := b[name]; !ok {
			out[name] = size
		}
	}
	return out
}
