package drill

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
)

// Both kinds of drills find every kind of damage, name the file, and leave nothing
// behind.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	for _, i := range faultpoint.Sample(t, len(damages), 9) {
		d := damages[i]
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			f := newFolder(t, d.encrypted)
			d.do(f)
			o := f.stored(memory.New())
			device, err := Device(t.Context(), *o)
			if err != nil {
				t.Fatal(err)
			}
			to := t.TempDir()
			folder, err := Folder(t.Context(), *o, to)
			if err != nil {
				t.Fatal(err)
			}
			nothingIn(t, to)
			nothingIn(t, o.Temp)
			for _, r := range []*Report{device, folder} {
				if r.Passed() != (d.kind == "") || d.kind != "" && !slices.Contains(kinds(r.Findings), d.kind) {
					t.Errorf("%s: passed is %v, findings %+v", r.Level, r.Passed(), r.Findings)
				}
				if d.kind == "" && (r.ReadFiles < 100 || r.DigestFiles == 0 || r.Databases < 5 || len(r.NotChecked) == 0) {
					t.Errorf("%s: %+v", r.Level, r)
				}
				t.Logf("%s: %+v", r.Level, r)
				c := r.Certificate(o)
				if c.Kind != repo.CertificateDrill || c.Level != r.Level || (c.Result == repo.ResultPassed) != r.Passed() || c.Snapshot != o.Snapshot.FirstID() {
					t.Errorf("%+v", c)
				}
				for _, finding := range r.Findings {
					if finding.Kind == d.kind && d.affected != "" && !strings.Contains(strings.Join(finding.Names, " "), d.affected) {
						t.Errorf("%s: %+v", r.Level, finding)
					}
				}
			}
		})
	}
}

// A drill of the folder without the password does not prove that the snapshot would
// restore, also if the repository has the files decrypted.
func TestFolderWithoutPassword(t *testing.T) {
	t.Parallel()
	f := newFolder(t, true)
	o := f.stored(memory.New())
	if !o.Snapshot.Unlocked {
		t.Fatal("the snapshot is locked")
	}
	for _, known := range []bool{true, false} {
		if !known {
			o.Password = nil
		}
		r, err := Folder(t.Context(), *o, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if c := r.Certificate(o); c.Result != repo.ResultPassed || c.Locked == known {
			t.Errorf("the password is known: %v; %+v", known, c)
		}
	}
}

// A missing file that is damage stays damage, although the snapshot that had it has been
// forgotten.
func TestMissingStaysDamage(t *testing.T) {
	t.Parallel()
	f := newFolder(t, false)
	file, rec := f.pick(func(rec *manifest.Record) bool { return !isDatabase(rec) && !rec.HasDigest })
	f.check(os.Remove(file))
	o := f.stored(memory.New())
	if !o.Snapshot.Complete {
		t.Fatalf("one missing file is damage: %+v", o.Snapshot.Findings)
	}
	known := *o.Snapshot
	known.Complete = false
	known.Findings = []repo.Finding{{Kind: finding.Missing, Consequence: repo.Damage, Count: 1, Names: []string{rec.RelativePath}, Text: "a file is missing"}}
	o.Snapshot = &known
	device, err := Device(t.Context(), *o)
	f.check(err)
	folder, err := Folder(t.Context(), *o, t.TempDir())
	f.check(err)
	for _, r := range []*Report{device, folder} {
		if r.Passed() {
			t.Errorf("%s: passed, findings %+v", r.Level, r.Findings)
		}
	}
}

// What has the name of a database and is none is damage, if it is zeros or of another
// length than the manifest says.
func TestNoDatabase(t *testing.T) {
	t.Parallel()
	for kind, content := range map[string]func(n int) []byte{
		finding.Database: func(n int) []byte { return make([]byte, n) },
		finding.Size:     func(int) []byte { return bytes.Repeat([]byte("text "), 50) },
	} {
		f := newFolder(t, false)
		file, _ := f.pick(func(rec *manifest.Record) bool {
			return mobilesync.NamedLikeDatabase(rec.RelativePath) && !rec.HasDigest
		})
		f.edit(file, func(b []byte) []byte { return content(len(b)) })
		o := f.stored(memory.New())
		if !o.Snapshot.Damaged() {
			t.Errorf("%s: import finds %+v", kind, o.Snapshot.Findings)
		}
		o.Snapshot.Findings, o.Snapshot.Complete = nil, true // the drill finds it itself
		device, err := Device(t.Context(), *o)
		f.check(err)
		folder, err := Folder(t.Context(), *o, t.TempDir())
		f.check(err)
		for _, r := range []*Report{device, folder} {
			if !slices.Contains(kinds(r.Findings), kind) || r.Passed() {
				t.Errorf("%s: no %s in %+v", r.Level, kind, r.Findings)
			}
		}
	}
}
