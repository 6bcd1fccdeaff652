package hostfiles

import (
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"maps"
	"slices"

	"github.com/snap-backup/snap/device/protocol/devicelink"
)

// FileID is the name of a data file.
type FileID = [sha1.Size]byte

// Listing is the set of data files in a backup folder of a host.
type Listing map[FileID]struct{}

// Has reports whether a file is in the listing.
func (l Listing) Has(id FileID) bool {
	_, ok := l[id]
	return ok
}

// Sorted returns the names of the files in ascending order.
func (l Listing) Sorted() []FileID {
	return slices.SortedFunc(maps.Keys(l), func(a, b FileID) int { return bytes.Compare(a[:], b[:]) })
}

// List lists a backup folder. It returns the data files, which are in subfolders with
// names of two hexadecimal digits, and the paths of everything else.
func (c *Client) List(dir string) (files Listing, others map[string]bool, err error) {
	top, err := c.ListFolder(dir)
	if err != nil {
		return nil, nil, err
	}
	files, others = Listing{}, map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(top)) {
		if len(name) != 2 || !top[name] || !isHex(name) {
			others[name] = true
			continue
		}
		inner, err := c.ListFolder(dir + "/" + name)
		if err != nil {
			return nil, nil, err
		}
		for file, folder := range inner {
			id, err := hex.DecodeString(file)
			if err == nil && len(id) == len(FileID{}) && file[:2] == name && isHex(file) && !folder {
				files[FileID(id)] = struct{}{}
			} else {
				others[name+"/"+file] = true
			}
		}
	}
	return files, others, nil
}

func isHex(s string) bool {
	for _, r := range s {
		if (r < '0' || r > '9') && (r < 'a' || r > 'f') {
			return false
		}
	}
	return true
}

// ListFolder returns the names in a folder. The value of a name is true if it belongs
// to a folder.
func (c *Client) ListFolder(dir string) (map[string]bool, error) {
	const name = "DLContentsOfDirectory"
	s, err := c.Ask(name, dir, map[string]any{})
	if err != nil {
		return nil, err
	}
	if err := accept(s, []int64{devicelink.StatusNoFile}, name); err != nil {
		return nil, err
	}
	entries, ok := s.Payload.(map[string]any)
	if !ok && s.Code == devicelink.StatusOK {
		c.violate("the answer to %s of %s is a %T", name, dir, s.Payload)
	}
	out := make(map[string]bool, len(entries))
	for entry, v := range entries {
		d, _ := v.(map[string]any)
		kind, _ := d["DLFileType"].(string)
		switch kind {
		case "DLFileTypeDirectory", "DLFileTypeRegular", "DLFileTypeUnknown":
		default:
			c.violate("%s of %s: %q has the type %q", name, dir, entry, kind)
		}
		out[entry] = kind == "DLFileTypeDirectory"
	}
	return out, nil
}
