package mobilesync

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/mobilesync/manifest/manifesttest"
)

// samples returns a path in the folder of public sample backups, which are not part
// of the project. It skips the test if this folder is not set.
func samples(t *testing.T, path ...string) string {
	t.Helper()
	dir := os.Getenv("SNAP_TEST_SAMPLES")
	if dir == "" {
		t.Skip("SNAP_TEST_SAMPLES names no folder of samples")
	}
	return filepath.Join(append([]string{dir}, path...)...)
}

func kinds(problems []Problem, fatal bool) []ProblemKind {
	var out []ProblemKind
	for _, p := range problems {
		if p.Fatal == fatal {
			out = append(out, p.Kind)
		}
	}
	slices.Sort(out)
	return out
}

func mustProblems(t *testing.T, b *Backup) []Problem {
	t.Helper()
	problems, err := b.Problems(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return problems
}

func mustRecords(t *testing.T, b *Backup) *manifest.Records {
	t.Helper()
	records, err := b.Records(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return records
}

func mustCompare(t *testing.T, b *Backup, records *manifest.Records) Report {
	t.Helper()
	report, err := b.Compare(b.Files(t.Context()), records)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// TestSampleRealManifest reads the manifest of a real iOS 14.3 phone. A program has
// decrypted it and kept the padding. The folder has no Manifest.plist, no
// Status.plist and few blobs.
func TestSampleRealManifest(t *testing.T) {
	b := mustOpen(t, samples(t, "mvt", "ios_backup"))
	if b.Layout() != Hashed || b.Encrypted() || !b.Readable() {
		t.Errorf("layout %v, encrypted %v, readable %v", b.Layout(), b.Encrypted(), b.Readable())
	}
	if d := b.Device(); d.ProductType != "iPhone9,3" || d.ProductVersion != "14.3" || d.BuildVersion != "18C66" || len(d.UDID) != 40 || d.FromName {
		t.Errorf("device %+v", d)
	}
	if len(b.Dates()) == 0 {
		t.Error("no date")
	}
	if got, want := kinds(mustProblems(t, b), true), []ProblemKind{ProblemManifestPlist, ProblemStatusPlist}; !slices.Equal(got, want) {
		t.Errorf("problems %v, want %v", got, want)
	}
	records := mustRecords(t, b)
	manifesttest.Check(t, records)
	if records.Len() != 3721 || records.Anomalies.Total() != 0 {
		t.Fatalf("%d rows, %+v", records.Len(), records.Anomalies)
	}
	var files, folders, links, keys, digests, targets, described int
	for _, r := range records.All() {
		switch r.Flags {
		case manifest.FlagFile:
			files++
		case manifest.FlagFolder:
			folders++
		case manifest.FlagSymlink:
			links++
		}
		if len(r.EncryptionKey) == 44 && uint32(r.EncryptionKey[0]) == r.ProtectionClass {
			keys++
		}
		if r.HasDigest {
			digests++
		}
		if r.Target != "" {
			targets++
		}
		if r.HasMeta && r.Mode != 0 && r.ModTime > 0 && r.ChangeTime > 0 && r.Birth > 0 && r.Inode > 0 && r.Size >= 0 {
			described++
		}
	}
	if files != 1089 || folders != 2618 || links != 14 || keys != 1089 || digests != 477 || targets != 14 || described != 3721 {
		t.Errorf("files %d folders %d links %d keys %d digests %d targets %d described %d", files, folders, links, keys, digests, targets, described)
	}
	i, ok := records.ByFileID(manifesttest.FileID("HomeDomain", "Library/SMS/sms.db"))
	if r := records.At(max(i, 0)); !ok || r.RelativePath != "Library/SMS/sms.db" || r.Domain != "HomeDomain" || !r.IsFile() {
		t.Errorf("messages: %v %+v", ok, r)
	}
	report := mustCompare(t, b, records)
	if report.Listed != 1089 || report.Blobs != 10 || report.Missing.Count != 1079 || report.Extra.Count != 1 ||
		report.Extra.Names[0] != "e7/e794f6ffcc3c222535f47684a63d5178da3c4500" || len(report.Missing.Names) != 20 || report.Other.Count != 0 {
		t.Errorf("report %+v", report)
	}
	if n := report.DatabaseSize + report.Size.Count; n == 0 {
		t.Error("no blob of another size, although the sample was modified")
	}
	if err := b.CheckStable(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestSampleTrimmed(t *testing.T) {
	b := mustOpen(t, samples(t, "ios-backup-browser", "sample_backup"))
	if got, want := kinds(mustProblems(t, b), true), []ProblemKind{ProblemUnfinished}; !slices.Equal(got, want) {
		t.Errorf("problems %v, want %v", got, want)
	}
	if d := b.Device(); d.UDID != "sample_backup" || !d.FromName {
		t.Errorf("device %+v", d)
	}
	records := mustRecords(t, b)
	if records.Len() != 6 || records.Anomalies.Total() != 0 {
		t.Fatalf("%d rows, %+v", records.Len(), records.Anomalies)
	}
	report := mustCompare(t, b, records)
	if report.Listed != 1 || report.Blobs != 1 || report.Missing.Count+report.Size.Count+report.Extra.Count+report.Other.Count != 0 {
		t.Errorf("report %+v", report)
	}
}

func TestSampleEncrypted(t *testing.T) {
	b := mustOpen(t, samples(t, "pyiosbackup", "encrypted-ios10.2-layout"))
	if b.Layout() != Hashed || !b.Encrypted() || b.Readable() {
		t.Errorf("layout %v, encrypted %v, readable %v", b.Layout(), b.Encrypted(), b.Readable())
	}
	if len(b.KeyBag()) != 1388 || len(b.ManifestKey()) != 44 {
		t.Errorf("keybag of %d bytes, manifest key of %d", len(b.KeyBag()), len(b.ManifestKey()))
	}
	if _, err := b.Records(t.Context()); !errors.Is(err, ErrEncrypted) {
		t.Errorf("rows of an encrypted manifest: %v", err)
	}
}

func TestSampleFlat(t *testing.T) {
	b := mustOpen(t, samples(t, "pyiosbackup", "encrypted-mbdb-layout"))
	if b.Layout() != Flat || !b.Encrypted() || !b.Readable() || len(b.KeyBag()) != 1336 {
		t.Errorf("layout %v, encrypted %v, readable %v, keybag of %d bytes", b.Layout(), b.Encrypted(), b.Readable(), len(b.KeyBag()))
	}
	records := mustRecords(t, b)
	if records.Len() != 1 || records.Anomalies.Total() != 0 {
		t.Fatalf("%d rows, %+v", records.Len(), records.Anomalies)
	}
	r := records.At(0)
	if r.Domain != "MyTestDomain" || r.RelativePath != "Media/Test.txt" || r.Size != 9 || len(r.EncryptionKey) != 44 || r.ProtectionClass != 4 || r.Flags != manifest.FlagFile {
		t.Errorf("row %+v", r)
	}
	if report := mustCompare(t, b, records); report.Listed != 1 || report.Blobs != 1 || report.Size.Count != 0 || report.Other.Count != 0 {
		t.Errorf("report %+v", report)
	}
}
