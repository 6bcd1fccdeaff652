package agent

import (
	"bytes"
	"encoding/hex"
	"maps"
	"slices"

	"github.com/snap-backup/snap/device/protocol/devicelink"
)

// listing is the data files that a host has in a folder and its 256 others.
type listing map[fileID]struct{}

func (l listing) has(id fileID) bool {
	_, ok := l[id]
	return ok
}

func (l listing) sorted() []fileID {
	return slices.SortedFunc(maps.Keys(l), func(a, b fileID) int { return bytes.Compare(a[:], b[:]) })
}

// list asks for everything in a folder of a backup: the data files in its
// folders of two digits, and the other names in the folder itself.
func (t *talk) list(dir string) (files listing, others map[string]bool, err error) {
	top, err := t.listOne(dir)
	if err != nil {
		return nil, nil, err
	}
	files, others = listing{}, map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(top)) {
		if len(name) != 2 || !top[name] || !isHex(name) {
			others[name] = true
			continue
		}
		inner, err := t.listOne(dir + "/" + name)
		if err != nil {
			return nil, nil, err
		}
		for file, folder := range inner {
			id, err := hex.DecodeString(file)
			if err == nil && len(id) == len(fileID{}) && file[:2] == name && isHex(file) && !folder {
				files[fileID(id)] = struct{}{}
			} else {
				others[name+"/"+file] = true
			}
		}
	}
	return files, others, nil
}

func isHex(s string) bool {
	for _, c := range s {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// listOne asks for the names in one folder, and whether they are folders.
func (t *talk) listOne(dir string) (map[string]bool, error) {
	const name = "DLContentsOfDirectory"
	s, err := t.ask(name, dir, map[string]any{})
	if err != nil {
		return nil, err
	}
	if err := accept(s, []int64{devicelink.StatusNoFile}, name); err != nil {
		return nil, err
	}
	entries, ok := s.Payload.(map[string]any)
	if !ok && s.Code == devicelink.StatusOK {
		t.agent.violate("%s of %s is answered by a %T", name, dir, s.Payload)
	}
	out := make(map[string]bool, len(entries))
	for entry, v := range entries {
		d, _ := v.(map[string]any)
		kind, _ := d["DLFileType"].(string)
		switch kind {
		case "DLFileTypeDirectory", "DLFileTypeRegular", "DLFileTypeUnknown":
		default:
			t.agent.violate("%s of %s: %q has the type %q", name, dir, entry, kind)
		}
		out[entry] = kind == "DLFileTypeDirectory"
	}
	return out, nil
}
