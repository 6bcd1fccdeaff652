package device

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/snap-backup/snap/internal/words"
	"golang.org/x/sync/errgroup"
)

// minPrefix is the length of the shortest prefix of a UDID that Find accepts.
const minPrefix = 4

// nameTimeout is how long a device may take to send its name.
const nameTimeout = 5 * time.Second

// Find returns a connected device by its name or UDID, or by the beginning of its
// name or UDID. The dash of a UDID may be missing. Find ignores case and the kind
// of apostrophe. "" means the only connected device. The error is ErrNotFound or
// ErrAmbiguous and lists the connected devices.
func (m *Mux) Find(ctx context.Context, device string) (Entry, error) {
	list, err := m.List(ctx)
	if err != nil {
		return Entry{}, err
	}
	if e, ok := exactUDID(list, device); ok {
		return e, nil
	}
	if device == "" && len(list) == 1 {
		return list[0], nil
	}
	names, err := m.names(ctx, list)
	if err != nil {
		return Entry{}, err
	}
	return choose(list, names, device)
}

func exactUDID(list []Entry, device string) (Entry, bool) {
	for _, e := range list {
		if plainUDID(e.UDID) == plainUDID(device) {
			return e, true
		}
	}
	return Entry{}, false
}

// names asks all devices for their names. The name of a device that does not
// answer is "".
func (m *Mux) names(ctx context.Context, list []Entry) ([]string, error) {
	names := make([]string, len(list))
	var g errgroup.Group
	g.SetLimit(8)
	for i, e := range list {
		g.Go(func() error {
			names[i] = m.name(ctx, e)
			return nil
		})
	}
	_ = g.Wait() // no error is returned above
	return names, ctx.Err()
}

func (m *Mux) name(ctx context.Context, e Entry) string {
	ctx, cancel := context.WithTimeout(ctx, nameTimeout)
	defer cancel()
	s, err := m.lockdown(ctx, e)
	if err != nil {
		return ""
	}
	defer s.Close()
	v, err := s.Value(ctx, "", "DeviceName")
	if err != nil {
		return ""
	}
	name, _ := v.(string)
	return name
}

// choose returns the device with this name, or with this prefix of its name or
// UDID. names are the names of the devices in list.
func choose(list []Entry, names []string, device string) (Entry, error) {
	var exact, prefix []int
	for i, e := range list {
		switch {
		case device == "":
			exact = append(exact, i)
		case foldName(names[i]) == foldName(device):
			exact = append(exact, i)
		case names[i] != "" && strings.HasPrefix(foldName(names[i]), foldName(device)),
			len(plainUDID(device)) >= minPrefix && strings.HasPrefix(plainUDID(e.UDID), plainUDID(device)):
			prefix = append(prefix, i)
		}
	}
	found := exact
	if len(found) == 0 {
		found = prefix
	}
	if len(found) == 1 {
		return list[found[0]], nil
	}
	if len(list) == 0 {
		return Entry{}, ErrNone
	}
	kind := ErrAmbiguous
	if len(found) == 0 {
		kind = ErrNotFound
		for i := range list {
			found = append(found, i)
		}
	}
	slices.SortFunc(found, func(a, b int) int {
		return cmp.Or(words.Compare(names[a], names[b]), strings.Compare(list[a].UDID, list[b].UDID))
	})
	var all []string
	for _, i := range found {
		all = append(all, strings.TrimSpace(fmt.Sprintf("%s %s", list[i].UDID, names[i])))
	}
	choices := strings.Join(all, ", ")
	switch {
	case device == "":
		return Entry{}, fmt.Errorf("%w: choose one of: %s", kind, choices)
	case errors.Is(kind, ErrNotFound):
		return Entry{}, fmt.Errorf("%w: %q; connected devices: %s", kind, device, choices)
	}
	return Entry{}, fmt.Errorf("%w %q: %s", kind, device, choices)
}

func plainUDID(s string) string { return strings.ToLower(strings.ReplaceAll(s, "-", "")) }

// foldName returns the same text for names that look equal to people.
func foldName(s string) string { return strings.ToLower(strings.ReplaceAll(s, "\u2019", "'")) }
