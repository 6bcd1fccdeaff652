package ingest

import (
	"strings"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/mobilesync/folder"
)

// special are the paths of pipes, sockets, links and folders of a backup folder that
// are where the manifest may list files. They are never opened. A device may leave out a
// file, but neither a device nor a copy puts something else in its place.
type special map[string]bool

// note remembers a file if it is not a regular one.
func (s special) note(f folder.File) {
	_, nested := blob.ParsePath(f.Path, false)
	_, flat := blob.ParsePath(f.Path, true)
	if f.Skipped != "" || f.Dir && (nested || flat) {
		s[f.Path] = true
	}
}

// has reports whether something else is in the place of the file at path, or of the
// folder that should have it.
func (s special) has(path string) bool {
	dir, _, _ := strings.Cut(path, "/")
	return s[path] || s[dir]
}
