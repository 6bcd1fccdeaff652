package verify

import (
	"slices"
	"testing"

	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/repo"
)

func TestLossesAreInWords(t *testing.T) {
	t.Parallel()
	m := newMade(t, false)
	m.file(photo).blob, m.file(photo2).blob, m.file(smsDB).blob, m.file(bigDB).blob = gone, gone, gone, zeros
	m.files[3].content = make([]byte, 40)
	_, r, s := imported(t, m.write(), "")
	rep := run(t, r, s, Options{Level: Full})
	want := []string{"1 message database", "2 photos of May 2026", "1 other database", "1 file of the app com.example"}
	if !slices.Equal(rep.Losses, want) {
		t.Errorf("got %q, want %q", rep.Losses, want)
	}
}

func TestLossesWithoutRows(t *testing.T) {
	t.Parallel()
	damage := func(kind string, count int64, names ...string) repo.Finding {
		return repo.Finding{Kind: kind, Consequence: repo.Damage, Count: count, Names: names}
	}
	const id = " (00112233445566778899aabbccddeeff00112233)"
	for _, tt := range []struct {
		findings []repo.Finding
		want     []string
	}{
		{nil, []string{}},
		{[]repo.Finding{{Kind: finding.Size, Consequence: repo.Remark, Count: 1, Names: []string{"HomeDomain/a" + id}}}, []string{}},
		{[]repo.Finding{{Kind: finding.Keys, Consequence: repo.Damage, Text: "about no file"}}, []string{}},
		{[]repo.Finding{damage(finding.Missing, 12, "CameraRollDomain/Media/DCIM/a.MOV"+id)}, []string{"1 video", "11 other files"}},
		{[]repo.Finding{damage(finding.Database, 1, "Manifest.db"), damage(finding.Lost, 2, "Info.plist", "HomeDomain/Manifest.db"+id)}, []string{"1 manifest (the list of all files)", "1 property list of the backup itself", "1 other database"}},
		{[]repo.Finding{damage(finding.Missing, 1, "aa/blob"), damage(finding.Digest, 1, "aa/blob")}, []string{"1 other file"}},
		{[]repo.Finding{damage(finding.Lost, 2, "HomeDomain/Library/AddressBook/x (1).db"+id, "AppDomainGroup-group.com.a/b"+id)}, []string{"1 contacts database", "1 file of the app com.a"}},
	} {
		if got := losses(tt.findings, nil); !slices.Equal(got, tt.want) {
			t.Errorf("%+v: got %q, want %q", tt.findings, got, tt.want)
		}
	}
}

// FuzzPlace checks that no name of a file makes words fail.
func FuzzPlace(f *testing.F) {
	f.Add("HomeDomain/Library/a (b) (00112233445566778899aabbccddeeff00112233)")
	f.Add(" (")
	f.Add("Library/a (b) (00112233445566778bbccd899aabbccddeeff00112") // longer than an ID
	f.Fuzz(func(t *testing.T, name string) {
		if got := losses([]repo.Finding{{Consequence: repo.Damage, Count: 1, Names: []string{name}}}, nil); len(got) != 1 {
			t.Errorf("%q: %q", name, got)
		}
	})
}
