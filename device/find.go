package device

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// minPrefix is how much of a UDID has to be given at least.
const minPrefix = 4

// nameTimeout is how long a device may take to tell its name.
const nameTimeout = 5 * time.Second

// Find returns the one connected device that is meant: by UDID, with or without
// dash, by name, or by the beginning of either. Case does not matter, nor does
// the kind of apostrophe. "" means the device that is connected, if there is
// only one. The error is ErrNotFound or ErrAmbiguous and names what is there.
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

// names asks all devices for their names. One that does not answer has none.
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
	_ = g.Wait() // names are never errors
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

// choose picks by name and beginnings. names belong to list.
func choose(list []Entry, names []string, device string) (Entry, error) {
	var whole, begin []int
	for i, e := range list {
		switch {
		case device == "":
			whole = append(whole, i)
		case foldName(names[i]) == foldName(device):
			whole = append(whole, i)
		case names[i] != "" && strings.HasPrefix(foldName(names[i]), foldName(device)),
			len(plainUDID(device)) >= minPrefix && strings.HasPrefix(plainUDID(e.UDID), plainUDID(device)):
			begin = append(begin, i)
		}
	}
	fits := whole
	if len(fits) == 0 {
		fits = begin
	}
	if len(fits) == 1 {
		return list[fits[0]], nil
	}
	if len(list) == 0 {
		return Entry{}, ErrNone
	}
	kind := ErrAmbiguous
	if len(fits) == 0 {
		kind = ErrNotFound
		for i := range list {
			fits = append(fits, i)
		}
	}
	var there []string
	for _, i := range fits {
		there = append(there, strings.TrimSpace(fmt.Sprintf("%s %s", list[i].UDID, names[i])))
	}
	slices.Sort(there)
	switch {
	case device == "":
		return Entry{}, fmt.Errorf("%w: name one of them: %s", kind, strings.Join(there, ", "))
	case kind == ErrNotFound:
		return Entry{}, fmt.Errorf("%w: %q is none of %s", kind, device, strings.Join(there, ", "))
	}
	return Entry{}, fmt.Errorf("%w %q: there is %s", kind, device, strings.Join(there, ", "))
}

func plainUDID(s string) string { return strings.ToLower(strings.ReplaceAll(s, "-", "")) }

// foldName makes names equal that people take for equal.
func foldName(s string) string { return strings.ToLower(strings.ReplaceAll(s, "\u2019", "'")) }
