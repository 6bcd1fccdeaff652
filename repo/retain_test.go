package repo_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/keep"
)

func TestCheckRetention(t *testing.T) {
	t.Parallel()
	day := func(udid string, n int, complete bool) *repo.Snapshot {
		return &repo.Snapshot{
			ID: repo.FileID{byte(n), udid[0]}, Time: time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC),
			Device: repo.Device{UDID: udid, Name: "device " + udid}, Complete: complete,
		}
	}
	a1, a2, a3 := day("AB-1", 1, true), day("ab1", 2, true), day("AB-1", 3, false)
	b1, b2 := day("B", 1, false), day("B", 2, false)
	pinned := day("C", 1, true)
	pinned.Pin = &repo.Pin{}
	all := []*repo.Snapshot{a1, b1, pinned, a2, b2, a3}
	for name, c := range map[string]struct {
		forget []*repo.Snapshot
		want   error
	}{
		"nothing":                     {nil, nil},
		"one of two":                  {[]*repo.Snapshot{a1}, nil},
		"both complete ones":          {[]*repo.Snapshot{a1, a2}, repo.ErrLastSnapshot},
		"the incomplete one":          {[]*repo.Snapshot{a3}, nil},
		"one of two incomplete ones":  {[]*repo.Snapshot{b1}, nil},
		"both of two incomplete ones": {[]*repo.Snapshot{b1, b2}, repo.ErrLastSnapshot},
		"a pinned one":                {[]*repo.Snapshot{pinned}, repo.ErrPinned},
	} {
		if err := repo.CheckRetention(all, nil, repo.RetainNone(c.forget)); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
	// A policy is applied to each device separately.
	policy := &keep.Policy{Last: 1}
	got := repo.Retain(all, all, nil, policy, time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), time.UTC)
	if len(got) != 3 || got[0].UDID != "AB-1" || len(got[0].Snapshots) != 3 {
		t.Fatalf("%+v", got)
	}
	going := repo.Forgotten(got)
	if len(going) != 2 || going[0] != a1 || going[1] != b1 {
		t.Errorf("it forgets %+v", going)
	}
	if err := repo.CheckRetention(all, nil, got); err != nil {
		t.Error(err)
	}
	// A policy with tags may keep no snapshot of a device.
	if err := repo.CheckRetention(all, nil, repo.Retain(all, all, nil, &keep.Policy{Tags: [][]string{{"x"}}}, time.Now(), time.UTC)); !errors.Is(err, repo.ErrLastSnapshot) {
		t.Errorf("a policy that keeps nothing: %v", err)
	}
}

// No rule removes a misdated snapshot, or the one that was stored last, even if the rules
// keep no other one.
func TestRulesSpareWrongDates(t *testing.T) {
	t.Parallel()
	now := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	day := func(n int, tags ...string) *repo.Snapshot {
		at := time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC)
		return &repo.Snapshot{ID: repo.FileID{byte(n)}, Time: at, StoredAt: at, Device: repo.Device{UDID: "A"}, Complete: true, Tags: tags}
	}
	other, old, misdated, last := day(1), day(2, "x"), day(3, "x"), day(4, "x")
	misdated.Misdated = true
	all := []*repo.Snapshot{other, old, misdated, last}
	policy := &keep.Policy{Tags: [][]string{{"y"}}}
	got := repo.Retain(all, all[1:], nil, policy, now, time.UTC)
	if going := repo.Forgotten(got); len(going) != 1 || going[0] != old {
		t.Errorf("of those with a tag it forgets %+v", going)
	}
	if err := repo.CheckRetention(all, nil, got); err != nil {
		t.Error(err)
	}
	got = repo.Retain(all, all, nil, policy, now, time.UTC)
	if going := repo.Forgotten(got); len(going) != 2 || going[0] != other || going[1] != old {
		t.Errorf("of all it forgets %+v", going)
	}
	if err := repo.CheckRetention(all, nil, got); !errors.Is(err, repo.ErrLastSnapshot) {
		t.Errorf("a policy that only spares: %v", err)
	}
	only := []*repo.Snapshot{misdated}
	if err := repo.CheckRetention(only, nil, repo.Retain(only, only, nil, policy, now, time.UTC)); err != nil {
		t.Errorf("nothing is removed: %v", err)
	}
}

// TestRetainIncompleteSnapshots applies a policy after a pack was damaged: all
// earlier snapshots are incomplete, and a new one is complete.
func TestRetainIncompleteSnapshots(t *testing.T) {
	t.Parallel()
	day := func(n int) *repo.Snapshot {
		return &repo.Snapshot{ID: repo.FileID{byte(n)}, Time: time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC), Device: repo.Device{UDID: "A"}}
	}
	was, wasNot, now := day(1), day(2), day(3)
	was.Lost = &repo.Lost{WasComplete: true, Files: 1}
	wasNot.Lost = &repo.Lost{Files: 1}
	now.Complete = true
	three := []*repo.Snapshot{was, wasNot, now}
	going := repo.Forgotten(repo.Retain(three, three, nil, &keep.Policy{Daily: 7}, time.Date(2026, 1, 4, 0, 0, 0, 0, time.UTC), time.UTC))
	if len(going) != 1 || going[0] != wasNot {
		t.Errorf("forgotten: %v; want only the one that was never complete", going)
	}
}

// The last snapshot of a device that passed a drill is kept or, if there is none, the
// last one that passed a full verify.
func TestRetainProvenSnapshots(t *testing.T) {
	t.Parallel()
	day := func(n int) *repo.Snapshot {
		return &repo.Snapshot{ID: repo.FileID{byte(n)}, Time: time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC), Device: repo.Device{UDID: "A", Name: "A"}, Complete: true}
	}
	all := []*repo.Snapshot{day(1), day(2), day(3), day(4), day(5)}
	all[1].Original = &repo.FileID{9}
	all[4].Root[0] = 1
	certificate := func(n int, kind, level, result string) *repo.Certificate {
		return &repo.Certificate{Snapshot: all[n-1].FirstID(), Time: time.Unix(int64(n), 0), Kind: kind, Level: level, Result: result}
	}
	first := certificate(1, repo.CertificateDrill, repo.LevelFolder, repo.ResultPassed)
	second := certificate(2, repo.CertificateVerify, repo.LevelFull, repo.ResultPassed)
	others := []*repo.Certificate{
		certificate(3, repo.CertificateVerify, repo.LevelQuick, repo.ResultPassed),
		certificate(3, repo.CertificateDrill, repo.LevelDevice, repo.ResultFailed),
		certificate(3, repo.CertificateImport, "", repo.ResultPassed),
		certificate(5, repo.CertificateDrill, repo.LevelDevice, repo.ResultPassed), // the snapshot has lost files since
	}
	now := time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		certificates []*repo.Certificate
		keep         int // day; 0 for none
		reason       string
	}{
		"nothing":        {others, 0, ""},
		"a drill":        {append(others, first, second), 1, "last drilled"},
		"a full verify":  {append(others, second), 2, "last verified"},
		"no certificate": {nil, 0, ""},
	} {
		decided := repo.Retain(all, all, c.certificates, &keep.Policy{Last: 1}, now, time.UTC)[0].Snapshots
		for i, d := range decided[:4] {
			kept := i+1 == c.keep
			if d.Keep != kept || kept && !slices.Equal(d.Reasons, []string{c.reason}) {
				t.Errorf("%s: day %d: %+v", name, i+1, d)
			}
		}
		given := repo.Retain(all, all, c.certificates, &keep.Policy{Last: 1, ForgetProven: true}, now, time.UTC)
		if n := len(repo.Forgotten(given)); n != 4 {
			t.Errorf("%s: %d forgotten", name, n)
		}
		if c.keep == 0 {
			continue
		}
		proven := all[c.keep-1]
		if err := repo.CheckRetention(all, c.certificates, repo.RetainNone([]*repo.Snapshot{proven})); !errors.Is(err, repo.ErrLastSnapshot) || !strings.Contains(err.Error(), proven.ID.Short()) {
			t.Errorf("%s: %v", name, err)
		}
		if err := repo.CheckRetention(all, c.certificates, repo.RetainNone(all[2:4])); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A policy does not forget an earlier snapshot in favour of one that failed a verify or
// drill and has not passed since.
func TestRetainRefutedSnapshots(t *testing.T) {
	t.Parallel()
	day := func(n int) *repo.Snapshot {
		return &repo.Snapshot{ID: repo.FileID{byte(n)}, Time: time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC), Device: repo.Device{UDID: "A", Name: "A"}, Complete: true}
	}
	good, bad := day(1), day(2)
	both := []*repo.Snapshot{good, bad}
	at := 0
	certificate := func(kind, level, result string) *repo.Certificate {
		at++
		return &repo.Certificate{Snapshot: bad.FirstID(), Time: time.Unix(int64(at), 0), Kind: kind, Level: level, Result: result}
	}
	imported := certificate(repo.CertificateImport, "", repo.ResultFailed)
	quickPassed := certificate(repo.CertificateVerify, repo.LevelQuick, repo.ResultPassed)
	fullFailed := certificate(repo.CertificateVerify, repo.LevelFull, repo.ResultFailed)
	quickLater := certificate(repo.CertificateVerify, repo.LevelQuick, repo.ResultPassed)
	quickFailed := certificate(repo.CertificateVerify, repo.LevelQuick, repo.ResultFailed)
	quickLast := certificate(repo.CertificateVerify, repo.LevelQuick, repo.ResultPassed)
	drillPassed := certificate(repo.CertificateDrill, repo.LevelDevice, repo.ResultPassed)
	deviceFailed := certificate(repo.CertificateDrill, repo.LevelDevice, repo.ResultFailed)
	folderPassed := certificate(repo.CertificateDrill, repo.LevelFolder, repo.ResultPassed)
	fullPassed := certificate(repo.CertificateVerify, repo.LevelFull, repo.ResultPassed)
	lockedPassed := certificate(repo.CertificateVerify, repo.LevelFull, repo.ResultPassed)
	lockedPassed.Locked = true
	other := certificate(repo.CertificateDrill, repo.LevelDevice, repo.ResultFailed)
	other.Root[0] = 1 // before a repair
	for name, test := range map[string]struct {
		list    []*repo.Certificate
		refuted *repo.Certificate
	}{
		"import":               {[]*repo.Certificate{imported, quickPassed}, nil},
		"full":                 {[]*repo.Certificate{quickPassed, fullFailed}, fullFailed},
		"quick proves nothing": {[]*repo.Certificate{fullFailed, quickLater, quickFailed, quickLast}, fullFailed},
		"quick after quick":    {[]*repo.Certificate{quickFailed, quickLast}, nil},
		"drill after full":     {[]*repo.Certificate{fullFailed, drillPassed}, fullFailed},
		"full after full":      {[]*repo.Certificate{fullFailed, fullPassed}, nil},
		"folder after device":  {[]*repo.Certificate{deviceFailed, folderPassed, fullPassed}, deviceFailed},
		"locked after full":    {[]*repo.Certificate{fullFailed, lockedPassed}, fullFailed},
		"another tree":         {[]*repo.Certificate{other}, nil},
	} {
		if got := repo.Refuted(test.list, bad); got != test.refuted {
			t.Errorf("%s: %+v", name, got)
		}
		going := repo.Forgotten(repo.Retain(both, both, test.list, &keep.Policy{Last: 1}, time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC), time.UTC))
		if (len(going) == 0) != (test.refuted != nil) {
			t.Errorf("%s: %d snapshots are forgotten", name, len(going))
		}
	}
}
