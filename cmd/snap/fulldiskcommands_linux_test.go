package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/internal/faultpoint"
	"golang.org/x/sys/unix"
)

// fillUp writes a file that leaves some bytes free on a disk. The returned function
// removes it.
func fillUp(t *testing.T, disk string, leave int64) (empty func()) {
	t.Helper()
	filler := filepath.Join(disk, "filler")
	var st unix.Statfs_t
	if err := unix.Statfs(disk, &st); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if size := int64(st.Bavail)*st.Bsize - leave; size > 0 {
		if err := unix.Fallocate(int(f.Fd()), 0, 0, size); err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		t.Helper()
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
	}
}

// fullDisk is a repository with snapshots of several days, on a small disk.
type fullDisk struct {
	*seriesRig
	disk string
}

// onFullDisk is a command on a full disk.
type onFullDisk struct {
	name string
	// prepare changes the repository first; it may be nil.
	prepare func(g *fullDisk)
	// args are the command's arguments. GOOD stands for a mirror on another disk,
	// DISK for the full disk, and AWAY for a folder on another disk.
	args string
	// codes are the accepted exit codes if the disk has no room. If it has some room,
	// 0 is accepted, too.
	codes []int
	// forgets says that snapshots may be removed.
	forgets bool
}

func (g *fullDisk) flip(pattern string) {
	g.t.Helper()
	files, err := filepath.Glob(filepath.Join(g.repo, filepath.FromSlash(pattern)))
	if err != nil || len(files) == 0 {
		g.t.Fatalf("%s: %v", pattern, err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		g.t.Fatal(err)
	}
	b[len(b)/3] ^= 1
	if err := os.WriteFile(files[0], b, 0o600); err != nil {
		g.t.Fatal(err)
	}
}

func onFullDisks() []onFullDisk {
	full, fine := []int{exitNoSpace}, []int{0}
	either := []int{0, exitNoSpace} // a prune may remove unused packs, and still find no room to repack others
	return []onFullDisk{
		{name: "import", args: "import --skip-if-unchanged Backup", codes: full},
		{name: "forget", args: "forget --keep-last 1", codes: fine, forgets: true},
		{name: "forget and prune", args: "forget --keep-last 1 --prune --max-unused 0", codes: either, forgets: true},
		{name: "prune", args: "prune --max-unused 0", codes: either, prepare: func(g *fullDisk) { g.run(0, "forget", "--keep-last", "1") }},
		{name: "mirror to it", args: "mirror -r GOOD DISK/mirror", codes: full},
		{name: "mirror from it", args: "mirror AWAY/mirror", codes: fine},
		{name: "copy to it", args: "copy -r GOOD --to DISK/other", codes: full, prepare: func(g *fullDisk) { g.run(0, "init", "-r", filepath.Join(g.disk, "other")) }},
		{name: "copy from it", args: "copy --to AWAY/other", codes: fine, prepare: func(g *fullDisk) { g.run(0, "init", "-r", g.path("other")) }},
		{name: "materialize from it", args: "materialize --replace latest AWAY/given", codes: fine},
		{name: "materialize to it", args: "materialize -r GOOD --replace latest DISK/given", codes: full},
		{name: "extract to it", args: "extract -r GOOD latest * --to DISK/given", codes: full},
		{name: "archive to it", args: "extract -r GOOD latest * --zip DISK/given.zip", codes: full},
		{name: "init", args: "init -r DISK/new", codes: full},
		{name: "key add", args: "key add --new-password-file added", codes: full},
		{name: "key passwd", args: "key passwd --new-password-file changed", codes: full},
		{name: "note", args: "note latest text", codes: full},
		{name: "parity", args: "parity 50%", codes: full},
		{name: "check", args: "check --read-data", codes: fine},
		{name: "unlock", args: "unlock", codes: fine},
		{name: "repair index", args: "repair index", codes: full, prepare: func(g *fullDisk) { g.flip("index/*") }},
		{name: "repair packs", args: "repair packs", codes: full, prepare: func(g *fullDisk) { g.flip("packs/*/*") }},
		{name: "repair by parity", args: "repair", codes: full, prepare: func(g *fullDisk) { g.flip("packs/*/*"); g.flip("snapshots/*") }},
		{name: "repair from a mirror", args: "repair --from GOOD", codes: full, prepare: func(g *fullDisk) { g.flip("packs/*/*"); g.flip("index/*") }},
	}
}

// TestCommandsOnFullDisk runs commands on a disk that is full to its last byte or has
// little room. A command that lacks room says so, nothing is lost, and the next run
// succeeds once there is room.
func TestCommandsOnFullDisk(t *testing.T) {
	t.Parallel()
	disk, dir := smallDisk(t, "24m"), t.TempDir()
	if disk == "" {
		return
	}
	series, err := synthetic.New(synthetic.Config{Seed: 4, Scale: synthetic.Tiny, StateDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer series.Close()
	g := &fullDisk{disk: disk, seriesRig: &seriesRig{
		shell: newShell(t, filepath.Join(dir, "base"), "SNAP_PASSWORD=sesame", "SNAP_TO_PASSWORD=sesame", packSizeVariable+"=200000"),
		dir:   dir, store: dir, series: series, want: map[string]fingerprints{}, secrets: []string{"sesame"}, count: map[string]int{},
	}}
	g.run(0, "init", "--parity", "10%")
	for range 2 {
		g.run(0, g.nextDay()...)
	}
	good := filepath.Join(dir, "good")
	g.run(0, "mirror", good)
	g.nextDay() // for the import
	base := g.repo
	g.repo = filepath.Join(disk, "repo")
	for name, text := range map[string]string{"added": "another one\n", "changed": "open\n"} {
		if err := os.WriteFile(g.path(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rooms, commands := []int64{0, 16 << 10, 300 << 10}, onFullDisks()
	for _, i := range faultpoint.Choose(t, len(rooms)*len(commands), 4) {
		c, room := commands[i/len(rooms)], rooms[i%len(rooms)]
		t.Run(fmt.Sprintf("%s,_%d_bytes_free", strings.ReplaceAll(c.name, " ", "_"), room), func(t *testing.T) {
			g.shell.t = t
			g.onFullDisk(c, base, good, room)
		})
	}
}

func (g *fullDisk) onFullDisk(c onFullDisk, base, good string, room int64) {
	t := g.t
	t.Helper()
	if err := os.CopyFS(g.repo, os.DirFS(base)); err != nil {
		t.Fatal(err)
	}
	defer func() {
		for _, path := range []string{g.repo, filepath.Join(g.disk, "mirror"), filepath.Join(g.disk, "other"), filepath.Join(g.disk, "given"), filepath.Join(g.disk, "given.zip"),
			filepath.Join(g.disk, "new"), g.path("mirror"), g.path("other"), g.path("given"), filepath.Join(g.disk, "filler")} {
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
		}
	}()
	g.secrets = []string{"sesame", "open"}
	g.findPassword(g.repo)
	if c.prepare != nil {
		c.prepare(g)
	}
	_, before := g.snapshots(good)
	args := strings.Fields(strings.NewReplacer("GOOD", good, "DISK", g.disk, "AWAY", g.dir,
		"Backup", g.path("Backup"), "-file ", "-file "+g.dir+string(filepath.Separator)).Replace(c.args))

	empty := fillUp(t, g.disk, room)
	cmd, out := g.command(args...)
	_ = cmd.Run()
	code := cmd.ProcessState.ExitCode()
	done := func(code int) bool { // a salvage tells what is lost
		return code == 0 || code == exitDamaged && c.name == "repair packs"
	}
	if !slices.Contains(c.codes, code) && (room == 0 || !done(code)) {
		t.Fatalf("room for %d bytes: snap %s ends with %d, want %v\n%s", room, c.args, code, c.codes, out)
	}
	if code == exitNoSpace && !strings.Contains(out.String(), "free some space") {
		t.Errorf("room for %d bytes: snap %s says %s", room, c.args, out)
	}
	repairs := strings.HasPrefix(c.name, "repair")
	if !repairs {
		g.findPassword(g.repo)
		if out := g.run(0, "check"); strings.Contains(out, "DAMAGED") || strings.Contains(out, "AFFECTED") {
			t.Errorf("room for %d bytes: after snap %s check says %s", room, c.args, out)
		}
	}
	empty()
	g.findPassword(g.repo)
	cmd, out = g.command(args...)
	_ = cmd.Run()
	if code := cmd.ProcessState.ExitCode(); !done(code) && code != exitExists {
		t.Fatalf("room for %d bytes: the next run of snap %s ends with %d\n%s", room, c.args, code, out)
	}
	g.findPassword(g.repo)
	if c.name == "repair packs" {
		g.run(0, "repair", "--from", good)
		g.run(0, "prune")
	}
	var report struct {
		Clean bool              `json:"clean"`
		Bad   []json.RawMessage `json:"problems"`
	}
	g.json(&report, "check", "--read-data")
	if !report.Clean || len(report.Bad) > 0 {
		t.Errorf("room for %d bytes: after snap %s check finds %s", room, c.args, report.Bad)
	}
	list, now := g.snapshots(g.repo)
	for key := range before {
		if !now[key] && !c.forgets && c.name != "prune" {
			t.Errorf("room for %d bytes: snapshot %s is missing", room, key)
		}
	}
	if len(list) == 0 {
		t.Errorf("room for %d bytes: there is no snapshot", room)
	}
	g.compare(g.repo, list)
	for _, other := range []string{filepath.Join(g.disk, "mirror"), filepath.Join(g.disk, "other"), g.path("mirror"), g.path("other")} {
		if exists(filepath.Join(other, "config")) {
			list, _ := g.snapshots(other)
			g.run(0, "check", "-r", other, "--read-data")
			g.compare(other, list)
		}
	}
}
