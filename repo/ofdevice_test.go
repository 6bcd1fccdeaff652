package repo_test

import (
	"errors"
	"testing"

	"github.com/snap-backup/snap/repo"
)

// The rules by which a name selects the snapshots of a device also select a connected
// device: see TestFind of package device.
func TestOfDevice(t *testing.T) {
	t.Parallel()
	var list []*repo.Snapshot
	for _, d := range []repo.Device{
		{UDID: "00008110-AAAA", Name: "Anna\u2019s iPhone"},
		{UDID: "00008110-BBBB", Name: "Anna\u2019s iPad"},
		{UDID: "00008020-CCCC", Name: "Ben"},
		{UDID: "00008020-DDDD", Name: "Ben the second"},
		{UDID: "00008020-EEEE", Name: ""},
		{UDID: "00008110-AAAA", Name: "Renamed"},
	} {
		list = append(list, &repo.Snapshot{Device: d})
	}
	for _, c := range []struct {
		name  string
		udid  string // "" if no device matches
		count int
		err   error
	}{
		{"00008110aaaa", "00008110-AAAA", 2, nil},
		{"anna's iphone", "00008110-AAAA", 2, nil}, // two snapshots, one of them under a newer name
		{"anna's ip", "", 0, repo.ErrAmbiguous},
		{"anna's ipa", "00008110-BBBB", 1, nil},
		{"ben", "00008020-CCCC", 1, nil}, // a complete name takes precedence over a prefix
		{"ben ", "00008020-DDDD", 1, nil},
		{"be", "", 0, repo.ErrAmbiguous},
		{"ren", "00008110-AAAA", 2, nil},
		{"00008020-d", "00008020-DDDD", 1, nil},
		{"00008020", "", 0, repo.ErrAmbiguous},
		{"000", "", 0, nil},
		{"nobody", "", 0, nil},
	} {
		got, err := repo.OfDevice(list, c.name)
		if !errors.Is(err, c.err) || len(got) != c.count || c.count > 0 && got[0].Device.UDID != c.udid {
			t.Errorf("%q: %d snapshots, %v; want %d of %s, %v", c.name, len(got), err, c.count, c.udid, c.err)
		}
	}
}
