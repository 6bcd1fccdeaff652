package repo_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

var updateFindings = flag.Bool("update-findings", false, "write the golden repository with findings anew; only for a new format version")

// findingsDir is a golden repository with one snapshot that has findings, and three
// certificates of it. One of them is compressed.
const findingsDir = "testdata/golden-v1-findings"

// goldenFindings returns findings with up to n names each.
func goldenFindings(n int) []repo.Finding {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("CameraRollDomain/Media/DCIM/100APPLE/IMG_%04d.HEIC", i))
	}
	return []repo.Finding{
		{Kind: "missing", Consequence: repo.Damage, Count: 300, Names: names, Text: "300 files are listed and not there"},
		{Kind: "stray", Consequence: repo.Remark, Count: 1, Names: []string{"Icon\r"}, Text: "1 file is no part of the backup, and was left out"},
		{Kind: "unfinished", Consequence: repo.Incomplete, Text: "the device did not finish the backup"},
	}
}

// goldenCertificates returns the certificates of the snapshot.
func goldenCertificates(s *repo.Snapshot) []*repo.Certificate {
	at := func(day int) time.Time { return time.Date(2026, 3, day, 9, 0, 0, 0, time.UTC) }
	c := repo.Certificate{Version: 1, Snapshot: s.FirstID(), Root: s.Root, Host: "host", Program: "snap test", Files: 5, Bytes: 15000}
	full, drill, copied := c, c, c
	full.Time, full.Kind, full.Level, full.Result = at(2), repo.CertificateVerify, repo.LevelFull, repo.ResultFailed
	full.ReadFiles, full.ReadBytes, full.SharedFiles, full.SharedBytes = 4, 14000, 1, 1000
	full.DigestFiles, full.DigestBytes, full.Databases, full.Seconds = 2, 9000, 1, 1.5
	full.NotChecked, full.Findings = []string{"2 files have no digest"}, goldenFindings(300)
	drill.Time, drill.Kind, drill.Level, drill.Result = at(3), repo.CertificateDrill, repo.LevelDevice, repo.ResultFailed
	copied.Time, copied.Kind, copied.Result = at(1), repo.CertificateImport, repo.ResultFailed
	copied.Findings = goldenFindings(1)
	copied.CopiedFrom = &repo.CertificateOrigin{Repository: "00112233445566778899aabbccddeeff", Certificate: repo.FileID{1}, Snapshot: repo.FileID{2}}
	return []*repo.Certificate{&copied, &full, &drill}
}

func makeFindings(t *testing.T) *memory.Backend {
	ctx := context.Background()
	be := memory.New()
	opts := recordOptions(60, time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC))
	r, err := repo.Create(ctx, be, []byte(goldenPassword), crypto.SlotInfo{Kind: crypto.PasswordSlot, Label: "golden"}, opts)
	if err == nil {
		err = r.LoadIndex(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := &repo.Snapshot{
		Time: time.Date(2026, 3, 1, 7, 0, 0, 0, time.UTC), Device: repo.Device{UDID: repotest.UDID, Name: "Anna’s iPhone"},
		Source: repo.Source{Kind: repo.FromFolder, Folder: repotest.UDID}, Findings: goldenFindings(20),
	}
	if err := repotest.StoreSnapshot(ctx, r, recordFiles(1), s, nil); err != nil {
		t.Fatal(err)
	}
	for _, c := range goldenCertificates(s) {
		if _, err := r.WriteCertificate(ctx, c); err != nil {
			t.Fatal(err)
		}
	}
	return be
}

// TestGoldenFindings reads findings and certificates that an earlier version of the
// program wrote.
func TestGoldenFindings(t *testing.T) {
	ctx := context.Background()
	if *updateFindings {
		writeGoldenTo(t, findingsDir, makeFindings(t))
	}
	r, err := repotest.Open(ctx, loadGoldenFrom(t, findingsDir), []byte(goldenPassword), recordOptions(50, time.Date(2026, 4, 9, 8, 0, 0, 0, time.UTC)))
	if err != nil {
		t.Fatal(err)
	}
	s, err := r.FindSnapshot(ctx, "latest")
	if err != nil || !reflect.DeepEqual(s.Findings, goldenFindings(20)) || !s.Damaged() || s.Complete {
		t.Fatalf("%+v, %v", s, err)
	}
	list, damaged, err := r.Certificates(ctx)
	if err != nil || len(damaged) > 0 {
		t.Fatal(damaged, err)
	}
	want := goldenCertificates(s)
	for i, c := range list {
		c.ID = repo.FileID{}
		if i < len(want) && !reflect.DeepEqual(c, want[i]) {
			t.Errorf("got  %+v\nwant %+v", c, want[i])
		}
	}
	if len(list) != len(want) {
		t.Errorf("%d certificates", len(list))
	}
	rep, err := r.Check(ctx, repo.CheckOptions{ReadData: 1, DryRun: true})
	if err != nil || !rep.Clean() || len(rep.Problems)+len(rep.Unreferenced) > 0 {
		t.Errorf("check: %+v, %v", rep, err)
	}
}

// certificateVector has the opened bytes of a certificate file, and the JSON in their
// plain form.
type certificateVector struct {
	File   string   `json:"file"`
	Opened hexBytes `json:"opened"`
	Plain  string   `json:"plain"`
}

// findingsVector has the values of the golden repository with findings.
type findingsVector struct {
	Repository   string              `json:"repository"`
	Key          hexBytes            `json:"certificate_key"`
	Snapshot     string              `json:"snapshot"`
	Certificates []certificateVector `json:"certificates"`
}

func readFindings(t *testing.T) findingsVector {
	t.Helper()
	be := loadGoldenFrom(t, findingsDir)
	master := repotest.MasterKey(t, be, []byte(goldenPassword))
	key := master.Derive(crypto.ForCertificates)
	v := findingsVector{Repository: "repo/" + findingsDir, Key: key[:]}
	all := repotest.Content(t, be)
	open := func(name string, p crypto.Purpose) []byte {
		b, err := crypto.NewSealer(master.Derive(p), nil).Open(nil, all[name][8:], nil)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, name := range repotest.FilesIn(t, be, repotest.SnapshotsDir) {
		v.Snapshot = string(open(name, crypto.ForSnapshots))
	}
	for _, name := range repotest.FilesIn(t, be, repotest.CertificatesDir) {
		opened := open(name, crypto.ForCertificates)
		plain, err := pack.Expand(opened, 64<<20)
		if err != nil {
			t.Fatal(err)
		}
		v.Certificates = append(v.Certificates, certificateVector{name, opened, string(plain[1:])})
	}
	return v
}

// TestFormatOfFindings reads the golden repository with findings by the rules of
// docs/format.md, and compares what it reads with docs/format-vectors.json.
func TestFormatOfFindings(t *testing.T) {
	var v struct {
		Password string
		Findings struct {
			Key          string `json:"certificate_key"`
			Snapshot     string
			Certificates []struct{ File, Opened, Plain string }
		} `json:"findings"`
	}
	if err := json.Unmarshal(try(os.ReadFile("../docs/format-vectors.json")), &v); err != nil {
		t.Fatal(err)
	}
	r := open(findingsDir, v.Password)
	if got := hex.EncodeToString(r.key("snap v1 certificate")); got != v.Findings.Key {
		t.Errorf("certificate key %s, want %s", got, v.Findings.Key)
	}
	var s struct {
		Root     string
		Findings []struct {
			Kind, Consequence, Text string
			Count                   int
			Names                   []string
		}
	}
	names := r.list("snapshots")
	plain := try(unseal(r.key("snap v1 snapshot"), r.readNamed(names[0], "snapsn01"), ""))
	if err := json.Unmarshal(plain, &s); err != nil || len(names) != 1 || string(plain) != v.Findings.Snapshot {
		t.Fatalf("%v, %s", err, plain)
	}
	for i, f := range s.Findings {
		want := goldenFindings(20)[i]
		if f.Kind != want.Kind || f.Consequence != string(want.Consequence) || f.Count != int(want.Count) || f.Text != want.Text || !slices.Equal(f.Names, want.Names) {
			t.Errorf("got %+v, want %+v", f, want)
		}
	}
	names = r.list("certificates")
	if len(names) != 3 || len(v.Findings.Certificates) != 3 {
		t.Fatal(names)
	}
	forms := [3]int{}
	for i, name := range names {
		form, c := r.certificate(name)
		forms[form]++
		want := v.Findings.Certificates[i]
		if want.File != name || want.Plain != c.plain || want.Opened != hex.EncodeToString(c.opened) {
			t.Errorf("%s: %s, want %s", name, c.plain, want.Plain)
		}
		if c.Version != 1 || c.Root != s.Root || "snapshots/"+c.Snapshot != r.list("snapshots")[0] || c.Kind == "" || c.Result != "failed" {
			t.Errorf("%s: %+v", name, c)
		}
	}
	if forms != [3]int{0, 2, 1} {
		t.Errorf("forms %v", forms)
	}
}
