package sftp

import (
	"cmp"
	"context"
	"io/fs"
	"slices"
	"strings"

	"github.com/snap-backup/snap/repo/backend"
)

// listsAtATime is how many folders List reads ahead. A repository has 256 folders of
// packs, and each takes four round trips.
const listsAtATime = 16

// List implements [backend.Backend]. In memory, it keeps only the entries of the folders
// above the current file, and of the folders that it reads ahead.
func (b *Backend) List(ctx context.Context, prefix string, fn func(backend.Info) error) error {
	name := strings.TrimSuffix(prefix, "/")
	if err := backend.ValidPrefix(prefix); err != nil {
		return b.opError("list", "", err)
	}
	if err := ctx.Err(); err != nil {
		return b.opError("list", name, err)
	}
	exists := false
	err := b.do(ctx, "list", name, func(c *conn) error {
		if name == "" {
			exists = true
			return nil
		}
		info, err := c.client.Lstat(b.path(name))
		switch {
		case b.isMissing(c, name, err):
			return nil
		case err != nil:
			return err
		case !info.IsDir():
			return notFolder(info)
		}
		exists = true
		return nil
	})
	if err != nil || !exists {
		return err
	}
	return b.list(ctx, prefix, b.readFolder(ctx, prefix), fn)
}

// listing is the entries of a folder, sorted, or why they cannot be read.
type listing struct {
	entries []fs.FileInfo
	err     error
}

// readFolder begins to read a folder. If the folder does not exist, it has no entries: it
// was removed since its own entry was read.
func (b *Backend) readFolder(ctx context.Context, prefix string) <-chan listing {
	name := strings.TrimSuffix(prefix, "/")
	result := make(chan listing, 1)
	go func() {
		var l listing
		l.err = b.do(ctx, "list", name, func(c *conn) (err error) {
			l.entries, err = c.client.ReadDirContext(ctx, b.path(name))
			if name != "" && b.isMissing(c, name, err) {
				return nil
			}
			return err
		})
		l.entries = slices.DeleteFunc(l.entries, func(e fs.FileInfo) bool {
			return backend.ValidName(prefix+e.Name()) != nil
		})
		slices.SortFunc(l.entries, func(x, y fs.FileInfo) int { return cmp.Compare(sortKey(x), sortKey(y)) })
		result <- l
	}()
	return result
}

// list calls fn for all files below a folder. prefix is the folder with a slash at its
// end, or "" for all files.
func (b *Backend) list(ctx context.Context, prefix string, folder <-chan listing, fn func(backend.Info) error) error {
	l := <-folder
	if l.err != nil {
		return l.err
	}
	ahead := make(map[string]<-chan listing) // folders that are being read
	next := 0                                // the entries before this one have been looked at
	for i, e := range l.entries {
		for ; next < len(l.entries) && (next <= i || len(ahead) < listsAtATime); next++ {
			if n := prefix + l.entries[next].Name(); isListed(l.entries[next], n) {
				ahead[n] = b.readFolder(ctx, n+"/")
			}
		}
		if err := ctx.Err(); err != nil {
			return b.opError("list", strings.TrimSuffix(prefix, "/"), err)
		}
		name := prefix + e.Name()
		var err error
		switch {
		case backend.IsHashed(name) && !e.Mode().IsRegular():
			err = fn(backend.Info{Name: name}) // reading it returns the reason
		case e.IsDir():
			read := ahead[name]
			delete(ahead, name)
			err = b.list(ctx, name+"/", read, fn)
		case e.Mode().IsRegular():
			err = fn(describe(name, e))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// isListed reports whether an entry is a folder whose files List shows.
func isListed(e fs.FileInfo, name string) bool { return e.IsDir() && !backend.IsHashed(name) }

// sortKey returns a key by which entries are sorted in the order of the full names of
// files: a folder "a" sorts as "a/", which is after "a-b" and "a.b".
func sortKey(e fs.FileInfo) string {
	if isListed(e, e.Name()) {
		return e.Name() + "/"
	}
	return e.Name()
}
