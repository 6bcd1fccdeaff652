package lab

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/snap-backup/snap/device/simulator"
	"github.com/snap-backup/snap/device/simulator/synthetic"
)

func testLab(t *testing.T) *Lab {
	t.Helper()
	l, err := New(t.Context(), Options{Dir: t.TempDir(), Devices: 2, Seed: 1, Encrypt: synthetic.EncryptAlternate, PlainText: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func TestDo(t *testing.T) {
	l := testLab(t)
	d := l.Devices()[0]
	for _, c := range []struct {
		line, reply string
		check       func() bool
	}{
		{"next", "it is day 2", func() bool { return l.Day() == 1 }},
		{"lock anna", "", func() bool { return d.Lock() == simulator.Locked }},
		{"enter 1", "it will be entered when the device asks", nil},
		{"deny 1", "the next computer that asks will be refused", nil},
		{"trust 1", "", nil},
		{"unlock Anna's", "", func() bool { return d.Lock() == simulator.Unlocked }},
		{"reboot 1", "", func() bool { return d.Lock() == simulator.NotYetUnlocked }},
		{"findmy 1 on", "", func() bool { return d.Value(simulator.DomainFindMy, "IsAssociated") == true }},
		{"ios 1 15.0", "", func() bool { return d.Value("", "ProductVersion") == "15.0" }},
		{"password 1 two words", "", func() bool { return d.Agent.WillEncrypt() }},
		{"password 1", "", func() bool { return !d.Agent.WillEncrypt() }},
		{"cancel 1", "0 programs were told", nil},
		{"violations", "none", nil},
		{"runs 2", "nothing yet", nil},
		{"cut 1 5000", "", nil},
		{"", "", nil},
	} {
		reply, err := l.Do(t.Context(), c.line)
		if err != nil || reply != c.reply || c.check != nil && !c.check() {
			t.Errorf("%q: %q, %v", c.line, reply, err)
		}
	}
	for _, line := range []string{"nonsense", "lock", "lock 9", "lock zoe", "cut 1", "cut 1 x", "cut 1 -5", "fault 1 nonsense", "battery 1 101", "free 1 x", "enter 1", "busy 1 x"} {
		if reply, err := l.Do(t.Context(), line); err == nil {
			t.Errorf("%q: %q", line, reply)
		}
	}
	if _, err := l.Do(t.Context(), "nonsense"); !errors.Is(err, ErrCommand) {
		t.Error(err)
	}
	help, err := l.Do(t.Context(), "help")
	if err != nil {
		t.Fatal(err)
	}
	for name := range commands {
		if !slices.ContainsFunc(strings.Split(help, "\n"), func(s string) bool { return strings.HasPrefix(s, name+" ") }) {
			t.Errorf("help does not mention %q", name)
		}
	}
}

// A spare device differs from the devices of the series, and NextDay does not change
// its content.
func TestSpare(t *testing.T) {
	l := testLab(t)
	d, err := l.AddSpare(t.Context(), simulator.Spec{})
	if err != nil {
		t.Fatal(err)
	}
	if found, err := l.Find("spare"); err != nil || found != d {
		t.Fatal(err)
	}
	before := d.Agent.Content()
	anna := l.Devices()[0].Agent.Content()
	for range 3 {
		if err := l.NextDay(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if d.Agent.Content() != before || l.Devices()[0].Agent.Content() == anna {
		t.Error("the wrong devices changed")
	}
	if l.Devices()[0].Agent.WillEncrypt() || !l.Devices()[1].Agent.WillEncrypt() {
		t.Error("the wrong devices encrypt")
	}
}
