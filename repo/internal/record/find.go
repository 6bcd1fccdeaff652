package record

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/snap-backup/snap/internal/words"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/store"
)

// FindSnapshot finds the snapshot that spec names, as repo.Repo.FindSnapshot
// describes.
func FindSnapshot(ctx context.Context, r *store.Store, spec string) (*Snapshot, error) {
	s, _, err := findSnapshot(ctx, r, spec)
	return s, err
}

// findSnapshot is FindSnapshot. If it needs all records, it also returns an error for
// each that cannot be read: spec may mean one of them.
func findSnapshot(ctx context.Context, r *store.Store, spec string) (*Snapshot, []error, error) {
	if what, _, _ := strings.Cut(spec, ":"); what != "latest" {
		// Usually one record is enough. Then damage to others does not matter.
		id, err := r.Resolve(ctx, layout.SnapshotsDir, spec)
		if err == nil {
			s, err := Load(ctx, r, id)
			return s, nil, err
		}
		if !errors.Is(err, store.ErrNoSnapshot) {
			return nil, nil, fmt.Errorf("snapshot %q: %w", spec, err)
		}
	}
	list, damaged, err := List(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	s, err := FindIn(list, spec)
	if errors.Is(err, store.ErrNoSnapshot) {
		// A damaged record may be the one that was meant.
		err = errors.Join(append([]error{err}, damaged...)...)
	}
	return s, damaged, err
}

const (
	maxTypos = 2 // more wrong characters are no typing error
	maxMeant = 3 // how many snapshots an error suggests
)

// maxNames is how many devices an error names.
const maxNames = 6

// NoDevice returns the error that no snapshot of a list is of a device. It names the devices
// that there are.
func NoDevice(list []*Snapshot, device string) error {
	var names []string
	for _, own := range ByDevice(list) {
		names = append(names, strconv.Quote(own[len(own)-1].Device.Name))
	}
	known := ""
	if more := len(names) - maxNames; more > 0 {
		known = fmt.Sprintf("; there are %s and %d more", strings.Join(names[:maxNames], ", "), more)
	} else if len(names) > 0 {
		known = "; there are " + strings.Join(names, ", ")
	}
	return fmt.Errorf("no device has the name or UDID %q%s: %w", device, known, store.ErrNoSnapshot)
}

// FindIn is like FindSnapshot, but searches a list of snapshots.
func FindIn(list []*Snapshot, spec string) (*Snapshot, error) {
	what, device, byDevice := strings.Cut(spec, ":")
	all := list
	var err error
	switch {
	case what != "latest":
		list, err = byID(list, strings.ToLower(spec))
	case byDevice:
		if list, err = OfDevice(all, device); err == nil && len(list) == 0 {
			err = NoDevice(all, device)
		}
	}
	if err == nil && len(list) == 0 {
		err = store.ErrNoSnapshot
		if what != "latest" && len(all) > 0 {
			err = fmt.Errorf("%w%s", err, near(all, spec))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("snapshot %q: %w", spec, err)
	}
	if what == "latest" {
		return lastStored(list, list[len(list)-1]), nil
	}
	return list[len(list)-1], nil
}

// near returns a question that names what may be meant by a text that names no snapshot:
// snapshots whose IDs are similar, or a device.
func near(list []*Snapshot, spec string) string {
	if own, err := OfDevice(list, spec); err == nil && len(own) > 0 {
		return fmt.Sprintf("; did you mean %q?", "latest:"+spec)
	}
	if words.Distance(strings.ToLower(spec), "latest") <= maxTypos {
		return `; did you mean "latest"?`
	}
	if len(spec) < minPrefix {
		return ""
	}
	var meant []string
	for _, s := range slices.Backward(list) {
		id := s.ID.String()
		begin := id[:min(len(id), len(spec))]
		if len(meant) < maxMeant && (words.Distance(begin, strings.ToLower(spec)) <= maxTypos || begin[:minPrefix] == strings.ToLower(spec)[:minPrefix]) {
			meant = append(meant, fmt.Sprintf("%s (%s)", s.ID.Short(), s.Device.Name))
		}
	}
	if len(meant) == 0 {
		return ""
	}
	return "; did you mean " + strings.Join(meant, " or ") + "?"
}

// byID returns the one snapshot whose ID begins with prefix. It looks at former IDs
// only if no current ID matches.
func byID(list []*Snapshot, prefix string) ([]*Snapshot, error) {
	if prefix == "" {
		return nil, nil
	}
	fits := func(id layout.FileID) bool { return strings.HasPrefix(id.String(), prefix) }
	var found []*Snapshot
	for _, s := range list {
		if fits(s.ID) {
			found = append(found, s)
		}
	}
	for _, s := range list {
		if len(found) == 0 || !fits(found[0].ID) {
			if s.Original != nil && fits(*s.Original) || slices.ContainsFunc(s.Former, fits) {
				found = append(found, s)
			}
		}
	}
	if len(found) > 1 {
		return nil, fmt.Errorf("%w: %d IDs begin with %q", store.ErrAmbiguous, len(found), prefix)
	}
	return found, nil
}

// minPrefix is the least length of a prefix of a UDID that can name a device.
const minPrefix = 4

// OfDevice returns the snapshots of one device, as repo.OfDevice describes.
func OfDevice(list []*Snapshot, device string) ([]*Snapshot, error) {
	udid, name := PlainUDID(device), foldName(device)
	for _, fits := range []func(d *Device) bool{
		func(d *Device) bool { return PlainUDID(d.UDID) == udid },
		func(d *Device) bool { return foldName(d.Name) == name },
		func(d *Device) bool {
			return name != "" && strings.HasPrefix(foldName(d.Name), name) ||
				len(udid) >= minPrefix && strings.HasPrefix(PlainUDID(d.UDID), udid)
		},
	} {
		udids := map[string]bool{}
		for _, s := range list {
			if fits(&s.Device) {
				udids[PlainUDID(s.Device.UDID)] = true
			}
		}
		if len(udids) > 1 {
			return nil, fmt.Errorf("%w: %q matches %d devices; use the complete name or the UDID", store.ErrAmbiguous, device, len(udids))
		}
		if len(udids) == 1 {
			// Include snapshots from when the device had another name.
			return slices.DeleteFunc(slices.Clone(list), func(s *Snapshot) bool { return !udids[PlainUDID(s.Device.UDID)] }), nil
		}
	}
	return nil, nil
}

// foldName returns a name in lower case, with the apostrophe of keyboards instead
// of the one that iOS writes, so that similar names become equal.
func foldName(s string) string { return strings.ToLower(strings.ReplaceAll(s, "\u2019", "'")) }

// SameDevice reports whether two UDIDs name one device.
func SameDevice(a, b string) bool { return PlainUDID(a) == PlainUDID(b) }

// PlainUDID returns a UDID in lower case without dashes, for comparisons.
func PlainUDID(s string) string { return strings.ToLower(strings.ReplaceAll(s, "-", "")) }

// ByDevice groups snapshots by device, in the order of the devices' names.
func ByDevice(list []*Snapshot) [][]*Snapshot {
	at := map[string]int{}
	var groups [][]*Snapshot
	for _, s := range list {
		udid := PlainUDID(s.Device.UDID)
		i, ok := at[udid]
		if !ok {
			i = len(groups)
			at[udid] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], s)
	}
	name := func(g []*Snapshot) string { d := g[len(g)-1].Device; return d.Name + "\x00" + d.UDID }
	slices.SortFunc(groups, func(a, b []*Snapshot) int { return strings.Compare(name(a), name(b)) })
	return groups
}
