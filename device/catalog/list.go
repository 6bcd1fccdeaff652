package catalog

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/repo/tree"
)

// Received returns the paths of all received files.
func (n *Catalog) Received() []string {
	var out []string
	for b := range 256 {
		for id := range n.arrived[b] {
			out = append(out, snapshotDir+"/"+id.Path(false))
		}
		for id := range n.moved[b] {
			out = append(out, id.Path(false))
		}
	}
	for path, o := range n.others.all() {
		if o.parent == nil {
			out = append(out, path)
		}
	}
	return out
}

// Count returns the number of received blobs, their bytes, and the number of
// received files in the spool.
func (n *Catalog) Count() (files, bytes, spooled int64) {
	for _, a := range []*blobTable{&n.arrived, &n.moved} {
		for b := range a {
			for _, f := range a[b] {
				files++
				bytes += n.files[f].Size
				if n.files[f].Spooled() {
					spooled++
				}
			}
		}
	}
	for _, o := range n.others.all() {
		if o.parent == nil && n.files[o.file].Spooled() {
			spooled++
		}
	}
	return files, bytes, spooled
}

// Empty reports whether the catalog has no folders, and no files except blobs.
func (n *Catalog) Empty() bool { return n.dirs.count == 0 && n.others.count == 0 }

const digits = "0123456789abcdef"

// ByteName returns the two hexadecimal digits of a byte, which name a folder of
// blobs.
func ByteName(b byte) string { return string([]byte{digits[b>>4], digits[b&15]}) }

// byteOf is the inverse of ByteName.
func byteOf(name string) (byte, bool) {
	if len(name) != 2 {
		return 0, false
	}
	b := 0
	for i := range 2 {
		d := strings.IndexByte(digits, name[i])
		if d < 0 {
			return 0, false
		}
		b = b<<4 | d
	}
	return byte(b), true
}

// Item is a file or folder in a folder.
type Item struct {
	Name string      // one element
	Dir  *tree.Entry // nil for a file
	Size int64
}

// List returns what is in a folder, sorted; "" is the top.
func (n *Catalog) List(dir string) ([]Item, error) {
	if _, ok := n.dirs.get(dir); !ok && dir != "" {
		return nil, fmt.Errorf("%s: %w", dir, fs.ErrNotExist)
	}
	out := n.listBlobs(dir)
	for name, o := range n.others.folders[dir] {
		size := int64(0)
		if o.parent != nil {
			size = blob.Size(o.parent)
		} else {
			size = n.files[o.file].Size
		}
		out = append(out, Item{Name: name, Size: size})
	}
	for name, e := range n.dirs.folders[dir] {
		out = append(out, Item{Name: name, Dir: &e})
	}
	slices.SortFunc(out, func(a, b Item) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func (n *Catalog) listBlobs(dir string) (out []Item) {
	if rest, ok := InSnapshot(dir); ok {
		if b, ok := byteOf(rest); ok {
			return n.listReceived(nil, n.arrived[b])
		}
		return nil
	}
	if n.parent != nil && n.parent.flat {
		if dir == "" {
			out = n.listParent(out, 0, len(n.parent.blobs))
		}
		return out
	}
	if b, ok := byteOf(dir); ok {
		out = n.listReceived(out, n.moved[b])
		if n.parent != nil {
			out = n.listParent(out, n.parent.first[b], n.parent.first[int(b)+1])
		}
	}
	return out
}

func (n *Catalog) listReceived(out []Item, blobs map[blob.ID]uint32) []Item {
	for id, f := range blobs {
		out = append(out, Item{Name: id.Path(true), Size: n.files[f].Size})
	}
	return out
}

func (n *Catalog) listParent(out []Item, from, to int) []Item {
	for i := from; i < to; i++ {
		if !n.isDropped(i) {
			b := &n.parent.blobs[i]
			out = append(out, Item{Name: b.id.Path(true), Size: b.size()})
		}
	}
	return out
}
