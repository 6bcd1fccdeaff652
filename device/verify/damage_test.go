package verify

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/device/mobilesync/foldertest"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/repo"
)

// want is an expected finding: its kind, its consequence, and a part of a name or of
// the text.
type want struct {
	kind string
	c    repo.Consequence
	part string
}

// Which backups a case is about.
const (
	plain     = 1 << iota
	decrypted // encrypted, and imported with the password
	locked    // encrypted, and imported without it, which the verification has
	opaque    // encrypted, and no password is known
	encrypted = decrypted | locked
	all       = plain | encrypted
)

func flip(at int) func([]byte) []byte {
	return func(b []byte) []byte { b[(at+len(b))%len(b)] ^= 0x41; return b }
}

func cut(n int) func([]byte) []byte { return func(b []byte) []byte { return b[:len(b)-n] } }

func gone([]byte) []byte { return nil }

func zeros([]byte) []byte { return []byte{} }

// damage is a change of a backup, and what must be found.
type damage struct {
	name   string
	on     int
	change func(m *made)
	quick  []want
	full   []want // in addition
}

// damages are all kinds of damage, and the anomalies that were met in the wild.
var damages = []damage{
	{"sound", all | opaque, func(*made) {}, nil, nil},
	{"database missing", all, func(m *made) { m.file(smsDB).blob = gone }, []want{{finding.Missing, repo.Damage, smsDB}}, nil},
	{"one photo missing", all, func(m *made) { m.file(photo).blob = gone }, []want{{finding.Missing, repo.Remark, photo}}, nil},
	{"two photos missing", all, func(m *made) { m.file(photo).blob, m.file(photo2).blob = gone, gone }, []want{{finding.Missing, repo.Damage, photo}}, nil},
	{"emptied", all, func(m *made) { m.file(photo).blob = zeros }, []want{{finding.Emptied, repo.Damage, photo}}, nil},
	{"in a cloud", all, func(m *made) {
		m.file(photo).blob = zeros
		m.file(photo).row = func(r *manifest.Record) { r.BSDFlags = 0x40000000 }
	}, nil, nil},
	{"empty file of 0 bytes", encrypted, func(m *made) { m.file(empty).blob = zeros }, nil, nil},
	{"cut photo", all, func(m *made) { m.file(photo).blob = cut(160) }, []want{{finding.Size, repo.Damage, photo}}, nil},
	{"cut encrypted photo", encrypted, func(m *made) { m.file(photo).blob = cut(160) }, []want{{finding.Size, repo.Damage, photo}}, []want{{finding.Cipher, repo.Damage, photo}}},
	{"odd length", encrypted, func(m *made) { m.file(photo).blob = cut(5) }, nil, []want{{finding.Cipher, repo.Damage, photo}}},
	{"flipped, with digest", all, func(m *made) { m.file(photo2).blob = flip(5000) }, nil, []want{{finding.Digest, repo.Damage, photo2}}},
	{"flipped database, with digest", all, func(m *made) { m.file(smsDB).blob = flip(4096 + 3) }, nil, []want{{finding.Digest, repo.Damage, smsDB}, {finding.Database, repo.Damage, smsDB}}},
	{"flipped database", all, func(m *made) { m.file(bigDB).blob = flip(4096 + 3) }, nil, []want{{finding.Database, repo.Damage, bigDB}}},
	{"cut database", plain, func(m *made) { m.file(bigDB).blob = cut(4096) }, nil, []want{{finding.Database, repo.Damage, bigDB}}},
	{"database of another size", all, func(m *made) { m.file(bigDB).row = func(r *manifest.Record) { r.Size += 8192 } }, nil, nil},
	{"bad padding", encrypted, func(m *made) { m.file(photo).blob = flip(-1) }, nil, []want{{finding.Cipher, repo.Damage, photo}}},
	{"damaged key", encrypted, func(m *made) { m.file(photo).row = func(r *manifest.Record) { r.EncryptionKey[20] ^= 1 } }, []want{{finding.NoKey, repo.Damage, photo}}, nil},
	{"unknown class", encrypted | opaque, func(m *made) { m.file(photo).row = func(r *manifest.Record) { r.EncryptionKey[0] = 77 } }, []want{{finding.NoKey, repo.Damage, photo}, {finding.Anomaly, repo.Remark, "class"}}, nil},
	{"long key", encrypted, func(m *made) {
		m.file(photo).row = func(r *manifest.Record) { r.EncryptionKey = make([]byte, 172) }
	}, []want{{finding.NoKey, repo.Damage, photo}}, nil},
	{"another class than the row says", encrypted, func(m *made) { m.file(photo).row = func(r *manifest.Record) { r.ProtectionClass = 2 } }, []want{{finding.Anomaly, repo.Remark, "class"}}, nil},
	{"not encrypted", encrypted, func(m *made) {
		f := m.file(photo)
		f.row = func(r *manifest.Record) { r.EncryptionKey = nil }
		f.blob = func([]byte) []byte { return f.content }
	}, []want{{finding.Anomaly, repo.Remark, "not encrypted"}}, nil},
	{"two sets of keys", encrypted, func(m *made) {
		for _, f := range m.files[:5] {
			f.row = func(r *manifest.Record) { copy(r.EncryptionKey[4:], foldertest.Noise(9, 40)) }
		}
	}, []want{{finding.Keys, repo.Damage, "two backups"}, {finding.NoKey, repo.Damage, smsDB}}, nil},
	{"key of the manifest too short", opaque, func(m *made) { m.manifest["ManifestKey"] = make([]byte, 40) }, []want{{finding.NoKey, repo.Damage, "40 bytes"}}, nil},
	{"keybag without rounds", opaque, func(m *made) {
		m.manifest["BackupKeyBag"] = bytes.Replace(m.bag, []byte("ITER\x00\x00\x00\x04\x00\x00\x00\x01"), []byte("ITER\x00\x00\x00\x04\x00\x00\x00\x00"), 1)
	}, []want{{finding.NoKey, repo.Damage, "keybag"}}, nil},
	{"keybag of noise", opaque, func(m *made) { m.manifest["BackupKeyBag"] = foldertest.Noise(3, 500) }, []want{{finding.NoKey, repo.Damage, "keybag"}}, nil},
	{"damaged property list", all, func(m *made) { m.files[3].content = append(bytes.Clone(m.files[3].content[:30]), make([]byte, 40)...) }, nil, []want{{finding.Plist, repo.Damage, list}}},
	{"property list of zeros", all, func(m *made) { m.files[3].content = make([]byte, 50) }, nil, []want{{finding.Plist, repo.Damage, list}}},
	{"no property list", all, func(m *made) { m.files[3].content = []byte("{ a = b; }") }, nil, []want{{finding.Plist, repo.Remark, list}}},
	{"first byte of a property list", all, func(m *made) { m.files[3].blob, m.files[3].content = nil, flip(0)(bytes.Clone(m.files[3].content)) }, nil, []want{{finding.Plist, repo.Damage, list}}},
	{"first byte of XML", all, func(m *made) {
		m.files[3].content = []byte("?xml version=\"1.0\"?><plist version=\"1.0\"><dict/></plist>\n")
	}, nil, []want{{finding.Plist, repo.Damage, list}}},
	{"first byte of an archive", all, func(m *made) { m.file(text).content = flip(2)(bytes.Clone(m.files[3].content)) }, nil, []want{{finding.Plist, repo.Damage, text}}},
	{"XML in another encoding", all, func(m *made) {
		m.files[3].content = []byte("<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?><plist version=\"1.0\"><string>M\xfcller</string></plist>\n")
	}, nil, []want{{finding.Plist, repo.Remark, list}}},
	{"XML without a type", all, func(m *made) {
		m.files[3].content = []byte("<?xml version=\"1.0\"?><plist version=\"1.0\"><dict/></plist>\n")
	}, nil, nil},
	{"first bytes of a database", all, func(m *made) { m.file(bigDB).content = flip(7)(m.file(bigDB).content) }, nil, []want{{finding.Database, repo.Damage, bigDB}}},
	{"first line of a database", all, func(m *made) { copy(m.file(bigDB).content, "abcdefghijklmnop") }, nil, []want{{finding.Database, repo.Damage, bigDB}}},
	{"encrypted by an app", all, func(m *made) { m.file(bigDB).content = foldertest.Noise(7, 8192) }, nil, nil},
	{"broken rule of an app", all, func(m *made) { m.file(bigDB).content = ruleBreaker(m) }, nil, []want{{finding.Database, repo.Remark, bigDB}}},
	{"database damaged on the device", all, func(m *made) { m.file(smsDB).content = flip(4096 + 3)(m.file(smsDB).content) }, nil, []want{{finding.Database, repo.Remark, smsDB}}},
	{"database cut on the device", all, func(m *made) { m.file(smsDB).content = cut(4096)(m.file(smsDB).content) }, nil, []want{{finding.Database, repo.Remark, smsDB}}},
	{"property list damaged on the device", all, func(m *made) { m.files[2].content = m.files[2].content[:30] }, nil, []want{{finding.Plist, repo.Remark, list}}},
	{"odd padding of the device", encrypted, func(m *made) { m.file(photo2).sent = flip(-1) }, nil, []want{{finding.Cipher, repo.Remark, photo2}}},
	{"no padding of the device", encrypted, func(m *made) { m.file(photo2).sent = cut(16) }, nil, []want{{finding.Cipher, repo.Remark, photo2}}},
	{"no padding", encrypted, func(m *made) { m.file(photo).sent = cut(16) }, nil, []want{{finding.Cipher, repo.Damage, photo}}},
	{"damaged, not listed", all, func(m *made) {
		m.more["aa/aa"+strings.Repeat("0", 38)] = flip(4096 + 3)(madeDatabase(m, 300))
	}, []want{{finding.Extra, repo.Remark, "aa/aa"}}, []want{{finding.Database, repo.Remark, "aa/aa"}}},
	{"status of an old version", all, func(m *made) { m.status["Version"] = "2.1" }, []want{{"status-version", repo.Incomplete, "2.1"}}, nil},
	{"status of a new version", all, func(m *made) { m.status["Version"] = "4.2" }, []want{{"status-version", repo.Remark, "4.2"}}, nil},
	{"index of the manifest", all, func(m *made) {
		m.sql = []string{"CREATE INDEX odd ON Files(flags)", "PRAGMA writable_schema=ON", "UPDATE sqlite_schema SET sql='CREATE INDEX odd ON Files(relativePath)' WHERE name='odd'"}
	}, nil, []want{{finding.Database, repo.Damage, "Manifest.db"}}},
	{"not listed", all, func(m *made) { m.more["aa/aa"+strings.Repeat("0", 38)] = []byte("more") }, []want{{finding.Extra, repo.Remark, "aa/aa"}}, nil},
	{"folder Snapshot", all, func(m *made) { m.more["Snapshot/Manifest.db"] = []byte("x") }, []want{{"snapshot", repo.Incomplete, "Snapshot"}}, nil},
	{"unfinished", all, func(m *made) { m.status["SnapshotState"] = "uploading" }, []want{{"unfinished", repo.Incomplete, "uploading"}}, nil},
	{"no Status.plist", all, func(m *made) { m.status = nil }, []want{{"status-plist", repo.Incomplete, "Status.plist"}}, nil},
	{"no Info.plist", all, func(m *made) { m.info = nil }, []want{{"info-plist", repo.Remark, "Info.plist"}}, nil},
	{"another UDID", all, func(m *made) { m.info["Target Identifier"] = strings.Repeat("ab", 20) }, []want{{"udid", repo.Remark, "Info.plist"}}, nil},
	{"manifest not encrypted", opaque, func(m *made) { m.plainDB = true }, []want{{"encryption", repo.Remark, "Manifest.db"}}, nil},
	{"padding after the manifest", plain, func(m *made) { m.tail = bytes.Repeat([]byte{16}, 16) }, []want{{finding.Anomaly, repo.Remark, "16 bytes"}}, nil},
	{"odd flags", all, func(m *made) { m.sql = []string{"UPDATE Files SET flags=17 WHERE relativePath='" + text + "'"} }, []want{{finding.Anomaly, repo.Remark, text}}, nil},
	{"flags of a folder", all, func(m *made) { m.sql = []string{"UPDATE Files SET flags=2 WHERE relativePath='" + text + "'"} }, []want{{finding.Anomaly, repo.Remark, ""}, {finding.Anomaly, repo.Damage, text}}, nil},
	{"nearly empty manifest", all, func(m *made) { m.sql = []string{"DELETE FROM Files WHERE relativePath<>'" + text + "'"} }, []want{{finding.Manifest, repo.Damage, ""}, {finding.Extra, repo.Remark, ""}}, nil},
	{"no path", all, func(m *made) {
		m.sql = []string{"UPDATE Files SET relativePath=NULL WHERE relativePath='" + text + "'"}
	}, []want{{finding.Anomaly, repo.Remark, "HomeDomain/ ("}}, nil},
	{"no description", all, func(m *made) { m.sql = []string{"UPDATE Files SET file=NULL WHERE relativePath='" + empty + "'"} }, []want{{finding.Anomaly, repo.Remark, empty}}, nil},
	{"wrong FileID", all, func(m *made) {
		m.sql = []string{"UPDATE Files SET domain='OtherDomain' WHERE relativePath='" + text + "'"}
	}, []want{{finding.Anomaly, repo.Remark, "OtherDomain/" + text}}, nil},
	{"upper case FileID", all, func(m *made) {
		m.sql = []string{"UPDATE Files SET fileID=upper(fileID) WHERE relativePath='" + text + "'"}
	}, []want{{finding.Anomaly, repo.Remark, text}}, nil},
	{"manifest without Files", plain, func(m *made) { m.sql = []string{"DROP TABLE Files"} }, []want{{finding.Manifest, repo.Incomplete, "Files"}}, nil},
}

// TestDamages verifies backups with each kind of damage, or with a sample of them if
// -short is set. Findings of the import are
// removed from the record, so that the verification is on its own.
func TestDamages(t *testing.T) {
	t.Parallel()
	type damaged struct {
		damage
		on int
	}
	var cases []damaged
	for _, tt := range damages {
		for _, on := range []int{plain, decrypted, locked, opaque} {
			if tt.on&on != 0 && (tt.name != "cut photo" || on == plain) {
				cases = append(cases, damaged{tt, on})
			}
		}
	}
	for _, i := range faultpoint.Choose(t, len(cases), len(cases)) {
		tt, on := cases[i].damage, cases[i].on
		t.Run(fmt.Sprintf("%s/%s", tt.name, map[int]string{plain: "plain", decrypted: "decrypted", locked: "locked", opaque: "opaque"}[on]), func(t *testing.T) {
			t.Parallel()
			m := newMade(t, on != plain)
			tt.change(m)
			atImport, later := "", ""
			switch on {
			case decrypted:
				atImport, later = password, password
			case locked:
				later = password
			}
			_, r, s := imported(t, m.write(), atImport)
			old := *s
			old.Findings, old.Complete = nil, true
			if quick := wantedOf(tt.quick, on); on != locked && (worst(quick) == repo.Remark) != (finding.Worst(s.Findings) == repo.Remark) && tt.full == nil {
				t.Errorf("import: want %v, found %+v", quick, s.Findings)
			}
			for _, level := range []Level{Quick, Full} {
				rep := run(t, r, &old, Options{Level: level, Unlock: unlock(later)})
				wanted := wantedOf(tt.quick, on)
				if level == Full {
					wanted = append(wanted, wantedOf(tt.full, on)...)
				}
				compare(t, level, rep, wanted)
			}
		})
	}
}

// TestLostRow imports a backup whose manifest has lost the row of a database. The snapshot
// before tells what its blob was.
func TestLostRow(t *testing.T) {
	t.Parallel()
	for _, pw := range []string{"", password} {
		m := newMade(t, pw != "")
		_, r, _ := imported(t, m.write(), pw)
		m.sql = []string{"DELETE FROM Files WHERE relativePath='" + smsDB + "'"}
		m.file(smsDB).blob = flip(4096 + 3) // which must not fail the verification
		s := importInto(t, r, m.write(), pw)
		if err := r.LoadIndex(t.Context()); err != nil {
			t.Fatal(err)
		}
		rep := run(t, r, s, Options{Level: Full, Unlock: unlock(pw)})
		for _, list := range [][]repo.Finding{s.Findings, rep.Findings} {
			if finding.Worst(list) != repo.Remark || !slices.ContainsFunc(list, func(f repo.Finding) bool {
				return f.Kind == finding.Extra && f.Count == 1 && strings.HasPrefix(f.Names[0], "HomeDomain/"+smsDB) && strings.Contains(f.Text, "the previous snapshot has 1")
			}) {
				t.Errorf("%+v", list)
			}
		}
	}
}

// wantedOf returns what can be found in a backup.
func wantedOf(list []want, on int) []want {
	list = slices.Clone(list)
	if on == opaque {
		list = slices.DeleteFunc(list, func(w want) bool { return w.part == photo || w.part == "class" })
	}
	return list
}

// worst returns the worst consequence.
func worst(list []want) repo.Consequence {
	var found []repo.Finding
	for _, w := range list {
		found = append(found, repo.Finding{Consequence: w.c})
	}
	return finding.Worst(found)
}

func compare(t *testing.T, level Level, rep *Report, wanted []want) {
	t.Helper()
	passed := true
	for _, w := range wanted {
		passed = passed && w.c == repo.Remark
		ok := slices.ContainsFunc(rep.Findings, func(f repo.Finding) bool {
			return f.Kind == w.kind && f.Consequence == w.c && (strings.Contains(f.Text, w.part) || slices.ContainsFunc(f.Names, func(n string) bool { return strings.Contains(n, w.part) }))
		})
		if !ok {
			t.Errorf("%s: no finding %v in %+v", level, w, rep.Findings)
		}
	}
	for _, f := range rep.Findings {
		if !slices.ContainsFunc(wanted, func(w want) bool { return w.kind == f.Kind && w.c == f.Consequence }) {
			t.Errorf("%s: unexpected %+v", level, f)
		}
	}
	if rep.Passed != passed {
		t.Errorf("%s: passed: %v", level, rep.Passed)
	}
	if !passed && len(rep.Losses) == 0 && slices.ContainsFunc(rep.Findings, func(f repo.Finding) bool { return f.Consequence == repo.Damage && len(f.Names) > 0 }) {
		t.Errorf("%s: nothing is said of losses", level)
	}
}
