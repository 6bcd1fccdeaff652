package mobilesync

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/mobilesync/folder"
	"github.com/snap-backup/snap/device/mobilesync/foldertest"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/mobilesync/manifest/manifesttest"
)

func TestOpenPlain(t *testing.T) {
	dir := backupSpec{rows: manifesttest.Rows()}.build(t)
	b := mustOpen(t, dir)
	want := Device{
		UDID: "00008110-000A1234567890AB", Name: "Ann's iPhone", ProductType: "iPhone14,2", ProductName: "iPhone 13 & Pro",
		ProductVersion: "17.5", BuildVersion: "21F79", SerialNumber: "F17XXXX",
	}
	if b.Device() != want {
		t.Errorf("device %+v", b.Device())
	}
	if len(b.Dates()) == 0 || !b.Dates()[0].Equal(testDate) || b.Archived() || b.Encrypted() || !b.Readable() || !b.FullBackup() || b.StatusUUID() != "0D1C-1" || b.Layout() != Hashed {
		t.Errorf("dates %v archived %v encrypted %v readable %v full %v uuid %q layout %v", b.Dates(), b.Archived(), b.Encrypted(), b.Readable(), b.FullBackup(), b.StatusUUID(), b.Layout())
	}
	if problems := mustProblems(t, b); len(problems) != 0 {
		t.Errorf("problems %+v", problems)
	}
	records := mustRecords(t, b)
	manifesttest.Check(t, records)
	if a := records.Anomalies; a.Total() != 0 {
		t.Errorf("anomalies %+v", a)
	}
	for _, row := range manifesttest.Rows() {
		i, ok := records.ByFileID(row.FileID)
		if !ok {
			t.Fatalf("row %s is missing", row.RelativePath)
		}
		if got := records.At(i); fmt.Sprint(got) != fmt.Sprint(row) {
			t.Errorf("row is\n%+v, want\n%+v", got, row)
		}
	}
	if got := records.Domains(); !slices.Equal(got, []string{"AppDomain-a.b", "HomeDomain"}) {
		t.Errorf("domains %v", got)
	}
	if report := mustCompare(t, b, records); report.Listed != 3 || report.Blobs != 3 || report.Missing.Count+report.Size.Count+report.Other.Count+report.Extra.Count != 0 {
		t.Errorf("report %+v", report)
	}
	if err := b.CheckStable(t.Context()); err != nil {
		t.Error(err)
	}
	// Reading the manifest must not create side files.
	for _, name := range []string{"-wal", "-shm", "-journal"} {
		if _, err := os.Lstat(filepath.Join(dir, ManifestDB+name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Manifest.db%s: %v", name, err)
		}
	}
}

func TestOpenRefusals(t *testing.T) {
	empty := t.TempDir()
	if _, err := Open(t.Context(), empty); !errors.Is(err, ErrNoBackup) {
		t.Errorf("empty folder: %v", err)
	}
	if _, err := Open(t.Context(), filepath.Join(empty, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
	put(t, empty, "file", nil)
	if _, err := Open(t.Context(), filepath.Join(empty, "file")); err == nil {
		t.Error("a file was opened as a backup")
	}
}

func TestProblems(t *testing.T) {
	remove := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	write := func(name, content string) func(*testing.T, string) {
		return func(t *testing.T, dir string) { put(t, dir, name, []byte(content)) }
	}
	cut := func(name string, size int64) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, name), size); err != nil {
				t.Fatal(err)
			}
		}
	}
	tests := []struct {
		name    string
		spec    backupSpec
		change  func(*testing.T, string)
		fatal   []ProblemKind
		warning []ProblemKind
	}{
		{name: "uploading", spec: backupSpec{status: dict{{"SnapshotState", "uploading"}}}, fatal: []ProblemKind{ProblemUnfinished}},
		{name: "moving", spec: backupSpec{status: dict{{"SnapshotState", "moving"}}}, fatal: []ProblemKind{ProblemUnfinished}},
		{name: "state of odd type", spec: backupSpec{status: dict{{"SnapshotState", []byte("finished")}}}, fatal: []ProblemKind{ProblemUnfinished}},
		{name: "Snapshot", change: func(t *testing.T, dir string) { os.Mkdir(filepath.Join(dir, "Snapshot"), 0o755) }, fatal: []ProblemKind{ProblemSnapshot}},
		{name: "no Status", change: remove(StatusPlist), fatal: []ProblemKind{ProblemStatusPlist}},
		{name: "empty Status", change: write(StatusPlist, ""), fatal: []ProblemKind{ProblemStatusPlist}},
		{name: "no Manifest.plist", change: remove(ManifestPlist), fatal: []ProblemKind{ProblemManifestPlist}},
		{name: "invalid Manifest.plist", change: write(ManifestPlist, "bplist00xx"), fatal: []ProblemKind{ProblemManifestPlist}},
		{name: "cut Manifest.plist", change: cut(ManifestPlist, 300), fatal: []ProblemKind{ProblemManifestPlist}},
		{name: "placeholder", change: func(t *testing.T, dir string) {
			write(ManifestPlist, "")(t, dir)
			remove(ManifestDB)(t, dir)
		}, fatal: []ProblemKind{ProblemManifest, ProblemManifestPlist, ProblemPlaceholder}},
		{name: "no Info", change: remove(InfoPlist), warning: []ProblemKind{ProblemInfoPlist}},
		{name: "invalid Info", change: write(InfoPlist, "<plist><dict>"), warning: []ProblemKind{ProblemInfoPlist}},
		{name: "no Manifest.db", change: remove(ManifestDB), fatal: []ProblemKind{ProblemManifest}},
		{name: "empty Manifest.db", change: cut(ManifestDB, 0), fatal: []ProblemKind{ProblemManifestDamage}},
		{name: "cut Manifest.db", change: cut(ManifestDB, 8192), fatal: []ProblemKind{ProblemManifestDamage}},
		{name: "longer Manifest.db", change: func(t *testing.T, dir string) {
			f, err := os.OpenFile(filepath.Join(dir, ManifestDB), os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			f.Write(make([]byte, 16))
		}},
		{name: "hidden encryption", change: write(ManifestDB, strings.Repeat("x", 4096)), fatal: []ProblemKind{ProblemManifestDamage}},
		{name: "encrypted", spec: backupSpec{encrypted: true, manifest: dict{{"ManifestKey", make([]byte, 44)}}}, change: write(ManifestDB, strings.Repeat("x", 4112))},
		{name: "encrypted, no key", spec: backupSpec{encrypted: true}, change: write(ManifestDB, strings.Repeat("x", 4112)), warning: []ProblemKind{ProblemManifestKey}},
		{name: "encrypted, cut", spec: backupSpec{encrypted: true}, change: write(ManifestDB, strings.Repeat("x", 4111)), fatal: []ProblemKind{ProblemManifestDamage}},
		{name: "encrypted, plain manifest", spec: backupSpec{encrypted: true}, warning: []ProblemKind{ProblemEncryption}},
		{name: "encrypted, iOS 10.1", spec: backupSpec{encrypted: true, manifest: version("10.1")}},
		{name: "encrypted, iOS 10.0.2", spec: backupSpec{encrypted: true, manifest: version("10.0.2")}},
		{name: "encrypted, plain manifest of iOS 10.2", spec: backupSpec{encrypted: true, manifest: version("10.2")}, warning: []ProblemKind{ProblemEncryption}},
		{name: "encrypted, decrypted manifest", spec: backupSpec{encrypted: true, manifest: dict{{"ManifestKey", make([]byte, 44)}}}, warning: []ProblemKind{ProblemEncryption}},
		{name: "encryption not stated", spec: backupSpec{manifest: dict{{"IsEncrypted", "yes"}}}, warning: []ProblemKind{ProblemEncryption}},
		{name: "other device", spec: backupSpec{manifest: dict{{"Lockdown", dict{{"UniqueDeviceID", strings.Repeat("a", 40)}}}}}, warning: []ProblemKind{ProblemUDID}},
		{name: "write-ahead log", change: write(ManifestDB+"-wal", "rows"), warning: []ProblemKind{ProblemWAL}},
		{name: "both manifests", change: write(ManifestMBDB, "mbdb"), warning: []ProblemKind{ProblemBoth}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := tt.spec.build(t)
			if tt.change != nil {
				tt.change(t, dir)
			}
			problems := mustProblems(t, mustOpen(t, dir))
			if got := kinds(problems, true); !slices.Equal(got, tt.fatal) {
				t.Errorf("fatal %v, want %v", problems, tt.fatal)
			}
			if got := kinds(problems, false); !slices.Equal(got, tt.warning) {
				t.Errorf("warnings %v, want %v", problems, tt.warning)
			}
		})
	}
}

func version(v string) dict {
	return dict{{"Lockdown", dict{{"UniqueDeviceID", testUDID}, {"ProductVersion", v}}}}
}

// A backup that cannot be unlocked says why.
func TestWhyNotUnlockable(t *testing.T) {
	for name, c := range map[string]struct {
		spec   backupSpec
		change func(t *testing.T, dir string)
		says   string
	}{
		"iOS 10.1":           {backupSpec{encrypted: true, manifest: version("10.1")}, nil, "the layout of iOS 10.0 and 10.1"},
		"decrypted manifest": {backupSpec{encrypted: true, manifest: version("17.5")}, nil, "has no ManifestKey"},
		"no key":             {backupSpec{encrypted: true}, func(t *testing.T, dir string) { put(t, dir, ManifestDB, make([]byte, 4096)) }, "has no ManifestKey"},
		"no manifest":        {backupSpec{encrypted: true}, func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, ManifestDB)) }, "it has no Manifest.db"},
		"iOS 9": {backupSpec{encrypted: true}, func(t *testing.T, dir string) {
			os.Rename(filepath.Join(dir, ManifestDB), filepath.Join(dir, ManifestMBDB))
		}, "the layout of iOS 9"},
	} {
		dir := c.spec.build(t)
		if c.change != nil {
			c.change(t, dir)
		}
		if _, err := mustOpen(t, dir).Unlock(t.Context(), []byte("x"), nil); !errors.Is(err, ErrNotUnlockable) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// If rows are missing in Manifest.db because a program left them in the write-ahead
// log, the error says so.
func TestManifestInLog(t *testing.T) {
	dir := backupSpec{rows: manifesttest.Rows()}.build(t)
	os.Remove(filepath.Join(dir, ManifestDB))
	manifesttest.WriteDB(t, filepath.Join(dir, ManifestDB), "CREATE TABLE Other(a)", nil)
	if _, err := mustOpen(t, dir).Records(t.Context()); !errors.Is(err, manifest.ErrCorrupt) || strings.Contains(err.Error(), "-wal") {
		t.Errorf("without a log: %v", err)
	}
	put(t, dir, ManifestDB+"-wal", []byte("rows"))
	if _, err := mustOpen(t, dir).Records(t.Context()); !errors.Is(err, manifest.ErrCorrupt) || !strings.Contains(err.Error(), "Manifest.db-wal") {
		t.Errorf("with a log: %v", err)
	}
}

func TestCheckStable(t *testing.T) {
	finished := manifesttest.Plist(dict{{"SnapshotState", "finished"}})
	tests := []struct {
		name, want string
		change     func(t *testing.T, dir string)
	}{
		{"nothing", "", func(*testing.T, string) {}},
		{"touched property list", "", func(t *testing.T, dir string) {
			os.Chtimes(filepath.Join(dir, StatusPlist), time.Now(), time.Now())
		}},
		{"blob", "", func(t *testing.T, dir string) { put(t, dir, "00/extra", nil) }},
		{"status", StatusPlist, func(t *testing.T, dir string) { put(t, dir, StatusPlist, finished) }},
		{"status gone", StatusPlist, func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, StatusPlist)) }},
		{"same length", ManifestPlist, func(t *testing.T, dir string) {
			path := filepath.Join(dir, ManifestPlist)
			data, _ := os.ReadFile(path)
			os.WriteFile(path, []byte(strings.Replace(string(data), "10.0", "10.1", 1)), 0o644)
		}},
		{"manifest written", ManifestDB, func(t *testing.T, dir string) {
			path := filepath.Join(dir, ManifestDB)
			data, _ := os.ReadFile(path)
			os.WriteFile(path, data, 0o644)
		}},
		{"manifest grown", ManifestDB, func(t *testing.T, dir string) { os.Truncate(filepath.Join(dir, ManifestDB), 1<<20) }},
		{"Snapshot", "Snapshot", func(t *testing.T, dir string) { os.Mkdir(filepath.Join(dir, "Snapshot"), 0o755) }},
		{"old manifest", ManifestMBDB, func(t *testing.T, dir string) { put(t, dir, ManifestMBDB, []byte("x")) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := backupSpec{}.build(t)
			// Set an old time, so that any write changes it.
			old := time.Now().Add(-time.Hour)
			if err := os.Chtimes(filepath.Join(dir, ManifestDB), old, old); err != nil {
				t.Fatal(err)
			}
			b := mustOpen(t, dir)
			tt.change(t, dir)
			err := b.CheckStable(t.Context())
			var changed *folder.ChangedError
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (!errors.As(err, &changed) || changed.Path != tt.want || !errors.Is(err, folder.ErrChanged)):
				t.Errorf("got %v, want a change of %s", err, tt.want)
			}
		})
	}
}

func TestIdentity(t *testing.T) {
	const old = "1cb128eafa77c5be74283e9a3a2130af36a3c059"
	info := func(s string) []byte { return []byte("<plist><dict>" + s + "</dict></plist>") }
	local := time.Date(2024, 1, 2, 3, 4, 5, 0, time.Local)
	silent := dict{{"Lockdown", "none"}, {"Date", 7}}
	// the dates in Manifest.plist and Info.plist, unless a test replaces them
	before, host := testDate.Add(-time.Minute), time.Date(2024, 5, 6, 7, 0, 0, 0, time.UTC)
	dates := func(list ...time.Time) []time.Time { return list }
	tests := []struct {
		name, folder string
		spec         backupSpec
		udid         string
		fromName     bool
		archived     bool
		dates        []time.Time
	}{
		{"manifest first", "whatever", backupSpec{}, "00008110-000A1234567890AB", false, false, dates(testDate, before, host)},
		{"then target", "x", backupSpec{manifest: silent, info: info("<key>Target Identifier</key><string>" + strings.ToUpper(old) + "</string><key>Unique Identifier</key><string>00008110-000A1234567890AB</string>")}, old, false, false, dates(testDate)},
		{"odd identifier", old, backupSpec{manifest: silent, info: info("<key>Unique Identifier</key><string>../../etc</string>")}, old, true, false, dates(testDate)},
		{"folder", strings.ToUpper(old), backupSpec{manifest: silent, info: info("")}, old, true, false, dates(testDate)},
		{"archived", old + "-20240102-030405", backupSpec{manifest: silent, status: dict{{"Date", "x"}}, info: info("")}, old, true, true, dates(local)},
		{"archived, dated", old + "-20240102-030405", backupSpec{}, "00008110-000A1234567890AB", false, true, dates(testDate, before, host, local)},
		{"no such day", old + "-20241302-030405", backupSpec{manifest: silent, status: dict{{"Date", "x"}}, info: info("")}, old + "-20241302-030405", true, false, nil},
		{"lost clock", old, backupSpec{status: dict{{"Date", time.Unix(0, 0)}}}, "00008110-000A1234567890AB", false, false, dates(time.Unix(0, 0), before, host)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := tt.spec.build(t)
			moved := filepath.Join(filepath.Dir(dir), tt.folder)
			if err := os.Rename(dir, moved); err != nil {
				t.Fatal(err)
			}
			b := mustOpen(t, moved)
			if d := b.Device(); d.UDID != tt.udid || d.FromName != tt.fromName || b.Archived() != tt.archived || !slices.EqualFunc(b.Dates(), tt.dates, time.Time.Equal) {
				t.Errorf("got %+v, archived %v, %v", d, b.Archived(), b.Dates())
			}
		})
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"  Ann’s\x1b[31m iPhone\n": "Ann’s[31m iPhone",
		"a\u202eb\u0000c":          "abc",
		"\xff\xfe":                 "",
	} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
	if got := clean(strings.Repeat("ä", 1000)); len(got) > 256 || got[:2] != "ä" {
		t.Errorf("clean returns %d bytes", len(got))
	}
}

func TestFind(t *testing.T) {
	dir := backupSpec{}.build(t)
	root := filepath.Dir(dir)
	put(t, root, "another/Info.plist", nil)
	put(t, root, "early/Status.plist", nil)
	put(t, root, "file", nil)
	got, err := Find(root)
	if want := []Found{{Dir: dir}, {Dir: filepath.Join(root, "early")}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if got, err := Find(dir); err != nil || !slices.Equal(got, []Found{{Dir: dir}}) {
		t.Errorf("a backup itself: %v, %v", got, err)
	}
	if _, err := Find(filepath.Join(root, "another")); !errors.Is(err, ErrNoBackup) {
		t.Errorf("no backup: %v", err)
	}
	if _, err := Find(filepath.Join(root, "nowhere")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
	link := filepath.Join(root, "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Skip(err)
	}
	if got, err := Find(root); err != nil || !slices.Contains(got, Found{Dir: link}) {
		t.Errorf("through a link: %v, %v", got, err)
	}
	if b := mustOpen(t, link); b.Dir() == link || b.Device().UDID == "link" {
		t.Errorf("link not resolved: %s", b.Dir())
	}
}

// Nothing that may be a backup is left out in silence.
func TestFindNamesFaults(t *testing.T) {
	good := backupSpec{}.build(t)
	const udid = "00008110-000A1234567B801E"
	for name, c := range map[string]struct {
		make func(t *testing.T, root string)
		want string // the name that is found beside the good backup
		err  error
		// what Find returns without the good backup, if want is ""
		alone error
	}{
		"device without files":    {func(t *testing.T, root string) { mkdir(t, root, udid) }, udid, ErrNoManifest, nil},
		"archive without files":   {func(t *testing.T, root string) { mkdir(t, root, udid+"-20240102-030405") }, udid + "-20240102-030405", ErrNoManifest, nil},
		"device with other files": {func(t *testing.T, root string) { put(t, root, udid+"/note.txt", nil) }, udid, ErrNoManifest, nil},
		"begun":                   {func(t *testing.T, root string) { put(t, root, udid+"/Info.plist", nil) }, udid, nil, nil},
		"begun, renamed": {func(t *testing.T, root string) {
			put(t, root, "phone/Info.plist", nil)
			mkdir(t, root, "phone/Snapshot")
		}, "phone", nil, nil},
		"foreign":               {func(t *testing.T, root string) { put(t, root, "app/Info.plist", nil) }, "", nil, ErrNoBackup},
		"file like device":      {func(t *testing.T, root string) { put(t, root, udid, nil) }, "", nil, ErrNoBackup},
		"dead link":             {func(t *testing.T, root string) { symlink(t, "nowhere", root, "link") }, "link", ErrDeadLink, nil},
		"dead link of a system": {func(t *testing.T, root string) { symlink(t, "nowhere", root, ".link") }, "", nil, ErrNoBackup},
		"link to a file": {func(t *testing.T, root string) {
			put(t, root, "file", nil)
			symlink(t, "file", root, "link")
		}, "", nil, ErrNoBackup},
		"link to itself":                          {func(t *testing.T, root string) { symlink(t, "link", root, "link") }, "link", errors.ErrUnsupported, nil},
		"folder that may not be read":             {func(t *testing.T, root string) { lock(t, mkdir(t, root, "mine")) }, "mine", fs.ErrPermission, nil},
		"folder of a system that may not be read": {func(t *testing.T, root string) { lock(t, mkdir(t, root, "lost+found")) }, "", nil, ErrNoBackup},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			c.make(t, root)
			foldertest.Unprivileged(t, func() {
				found, err := Find(root)
				switch {
				case c.want == "":
					if !errors.Is(err, c.alone) {
						t.Errorf("alone: %v, %v", found, err)
					}
				case err != nil || len(found) != 1 || !is(found[0], filepath.Join(root, c.want), c.err):
					t.Errorf("alone: %v, %v", found, err)
				}
			})
			if err := os.CopyFS(filepath.Join(root, "#good"), os.DirFS(good)); err != nil {
				t.Fatal(err)
			}
			foldertest.Unprivileged(t, func() {
				found, err := Find(root)
				if err != nil || len(found) == 0 || found[0] != (Found{Dir: filepath.Join(root, "#good")}) {
					t.Errorf("beside a good one: %v, %v", found, err)
					return
				}
				if rest := found[1:]; c.want == "" && len(rest) > 0 || c.want != "" && (len(rest) != 1 || !is(rest[0], filepath.Join(root, c.want), c.err)) {
					t.Errorf("beside a good one: %v", rest)
				}
			})
		})
	}
}

// is reports whether f is the folder dir, found with err. errors.ErrUnsupported
// stands for any error.
func is(f Found, dir string, err error) bool {
	return f.Dir == dir && (errors.Is(f.Err, err) || err == errors.ErrUnsupported && f.Err != nil)
}

func mkdir(t *testing.T, root, name string) string {
	t.Helper()
	dir := filepath.Join(root, filepath.FromSlash(name))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func symlink(t *testing.T, to, root, name string) {
	t.Helper()
	if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
		t.Skip(err)
	}
}

// lock makes a folder unreadable for the test.
func lock(t *testing.T, dir string) {
	t.Helper()
	if err := os.Chmod(dir, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(dir, 0o755) }) // for the removal of the folder
}

func TestHint(t *testing.T) {
	if err := hintFor("darwin", fs.ErrPermission); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "Full Disk Access") {
		t.Error(err)
	}
	if err := hintFor("linux", fs.ErrPermission); err != fs.ErrPermission {
		t.Error(err)
	}
}

func TestLocations(t *testing.T) {
	for goos, want := range map[string]int{"darwin": 1, "windows": 3, "linux": 0} {
		if got := appleFolders(goos, "home", ""); len(got) != want {
			t.Errorf("%s: %v", goos, got)
		}
		if got := appleFolders(goos, "", ""); len(got) != 0 {
			t.Errorf("%s without a home: %v", goos, got)
		}
	}
	for _, place := range DefaultLocations() {
		if !filepath.IsAbs(place) || filepath.Base(place) != "Backup" {
			t.Errorf("unexpected folder %s", place)
		}
	}
}

func TestHostileDatabases(t *testing.T) {
	tests := []struct {
		name, schema string
		fill         func(tx *sql.Tx) error
	}{
		{"no table", "CREATE TABLE Other(a)", nil},
		{"view", "CREATE VIEW Files AS WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM r) SELECT n AS fileID, n AS domain, n AS relativePath, 1 AS flags, n AS file FROM r", nil},
		{"virtual table", "CREATE VIRTUAL TABLE Files USING fts5(fileID, domain, relativePath, flags, file)", nil},
		{"computed column", "CREATE TABLE Files(fileID, domain, relativePath AS (printf('%.*c', 1000000, 'x')), flags, file)", nil},
		{"missing column", "CREATE TABLE Files(fileID, domain, relativePath, flags)", nil},
		{"long statement", "CREATE TABLE Files(fileID, domain, relativePath, flags, file DEFAULT '" + strings.Repeat("x", 1<<20) + "')", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), ManifestDB)
			manifesttest.WriteDB(t, path, tt.schema, tt.fill)
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			info, _ := f.Stat()
			if _, err := manifest.ReadDB(t.Context(), f, info.Size()); !errors.Is(err, manifest.ErrCorrupt) {
				t.Errorf("got %v", err)
			}
		})
	}
}
