package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/internal/faultpoint"
)

// seriesRig has a repository with a series of backups, its mirror and its copy, and knows
// the content that their snapshots must have. It can kill commands that use these
// repositories.
type seriesRig struct {
	*shell
	rng     *rand.Rand
	dir     string // for backup folders and materialized snapshots
	store   string // for repositories
	series  *synthetic.Series
	want    map[string]fingerprints  // fingerprints of backup folders, by key of the snapshot
	today   map[string]bool          // keys of the snapshots that an import of the folders makes
	listed  map[string]bool          // keys of the snapshots in the repository after the last run
	copied  map[string]bool          // keys of the snapshots in the copy after the last run
	secrets []string                 // passwords; the first is the one that last opened a repository
	takes   map[string]time.Duration // running time of each command
	count   map[string]int
}

// listedSnapshot is a snapshot in the output of "snap snapshots --json".
type listedSnapshot struct {
	ID   string    `json:"id"`
	Time time.Time `json:"time"`
	UDID string    `json:"udid"`
}

// key identifies the backup of a snapshot: a series makes one backup of each device a
// day.
func (k listedSnapshot) key() string { return k.UDID + " " + k.Time.UTC().Format(time.DateOnly) }

// killAct is a command that is killed and then run to completion.
type killAct struct {
	name   string
	weight int
	args   func(g *seriesRig) []string // returns nil to skip the act
	// ok are exit codes that the complete run may have besides 0.
	ok []int
	// changes returns the snapshots that the command may add and those that it may
	// remove. If it is nil, there are none.
	changes func(g *seriesRig, list []listedSnapshot) (added, removed map[string]bool)
}

func argsOf(s string) func(*seriesRig) []string {
	return func(*seriesRig) []string { return strings.Fields(s) }
}

// withFolders returns arguments in which MIRROR and OTHER are replaced by folders.
func withFolders(s string) func(*seriesRig) []string {
	return func(g *seriesRig) []string {
		s := strings.NewReplacer("MIRROR", g.storePath("mirror"), "OTHER", g.storePath("other")).Replace(s)
		return strings.Fields(s)
	}
}

func killActs() []killAct {
	keepLast := func(n int) func(g *seriesRig, list []listedSnapshot) (added, removed map[string]bool) {
		return func(_ *seriesRig, list []listedSnapshot) (added, removed map[string]bool) {
			removed, left := map[string]bool{}, map[string]int{}
			for _, s := range slices.Backward(list) {
				if left[s.UDID]++; left[s.UDID] > n {
					removed[s.key()] = true
				}
			}
			return nil, removed
		}
	}
	return []killAct{
		{name: "import", weight: 30, args: (*seriesRig).nextDay, changes: func(g *seriesRig, _ []listedSnapshot) (added, removed map[string]bool) {
			return g.today, nil
		}},
		{name: "forget", weight: 4, args: argsOf("forget --keep-last 3"), changes: keepLast(3)},
		{name: "forget and prune", weight: 8, args: argsOf("forget --keep-last 2 --prune --max-unused 0"), changes: keepLast(2)},
		{name: "prune", weight: 14, args: argsOf("prune --max-unused 0")},
		{name: "mirror", weight: 8, args: withFolders("mirror --accept-removals MIRROR")},
		{name: "mirror and heal", weight: 3, args: func(g *seriesRig) []string {
			if !exists(filepath.Join(g.storePath("mirror"), "config")) {
				return nil
			}
			return []string{"mirror", "--check", "--heal", g.storePath("mirror")}
		}, ok: []int{exitError}}, // the mirror may be out of date
		{name: "copy", weight: 8, args: withFolders("copy --to OTHER")},
		{name: "repair index", weight: 4, args: argsOf("repair index")},
		{name: "repair packs", weight: 2, args: argsOf("repair packs")},
		{name: "repair snapshots", weight: 2, args: argsOf("repair snapshots")},
		{name: "repair", weight: 2, args: argsOf("repair")},
		{name: "key add", weight: 3, args: func(g *seriesRig) []string { return []string{"key", "add", "--new-password-file", g.newSecret()} },
			ok: []int{exitExists}}, // the killed run added the key
		{name: "key passwd", weight: 3, args: func(g *seriesRig) []string { return []string{"key", "passwd", "--new-password-file", g.newSecret()} },
			ok: []int{exitExists}},
		{name: "key remove", weight: 3, args: (*seriesRig).removeKey, ok: []int{exitNoSnapshot}},
		{name: "check", weight: 3, args: argsOf("check --read-data=50%")},
		{name: "note", weight: 4, args: argsOf("note latest changed")},
		{name: "tag", weight: 2, args: argsOf("tag --add weekly latest")},
		{name: "parity", weight: 4, args: func(g *seriesRig) []string {
			return []string{"parity", []string{"10%", "25%", "off"}[g.rng.IntN(3)]}
		}},
		{name: "init", weight: 2, args: func(g *seriesRig) []string { return []string{"init", "-r", g.storePath("new" + g.number())} },
			ok: []int{exitExists}},
	}
}

func (g *seriesRig) path(name string) string { return filepath.Join(g.dir, name) }

func (g *seriesRig) storePath(name string) string { return filepath.Join(g.store, name) }

func (g *seriesRig) number() string { return strconv.Itoa(int(g.rng.Uint32())) }

func (g *seriesRig) nextDay() []string {
	g.t.Helper()
	folder := g.path("Backup")
	if err := g.series.Next(g.t.Context(), folder); err != nil {
		g.t.Fatal(err)
	}
	g.today = map[string]bool{}
	for i, d := range g.series.Devices() {
		f, err := fingerprint(filepath.Join(folder, d.UDID))
		if err != nil {
			g.t.Fatal(err)
		}
		s := listedSnapshot{UDID: d.UDID, Time: g.series.Time(i, g.series.Day())}
		g.want[s.key()], g.today[s.key()] = f, true
	}
	return []string{"import", "--skip-if-unchanged", folder}
}

// newSecret makes a password, which the repository may have from now on. It writes
// the password to a file and returns the file's path.
func (g *seriesRig) newSecret() string {
	secret := "secret " + g.number()
	g.secrets = append(g.secrets, secret)
	file := g.path("secret")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		g.t.Fatal(err)
	}
	return file
}

func (g *seriesRig) removeKey() []string {
	var keys []struct {
		ID      string `json:"id"`
		Current bool   `json:"current"`
	}
	g.json(&keys, "key", "list")
	for _, k := range keys {
		if !k.Current {
			return []string{"key", "remove", k.ID}
		}
	}
	return nil
}

// findPassword finds a password that opens a repository and makes it the current one.
func (g *seriesRig) findPassword(repo string) {
	g.t.Helper()
	for i, secret := range g.secrets {
		g.env[0] = "SNAP_PASSWORD=" + secret
		cmd, out := g.command("snapshots", "-r", repo)
		_ = cmd.Run()
		switch code := cmd.ProcessState.ExitCode(); code {
		case 0:
			g.secrets[0], g.secrets[i] = g.secrets[i], g.secrets[0]
			return
		case exitWrongPass:
		default:
			g.t.Fatalf("snap snapshots -r %s ends with %d: %s", repo, code, out)
		}
	}
	g.t.Fatalf("none of %q opens %s", g.secrets, repo)
}

// kill starts a command and kills it at a random moment. In half of all cases this is
// soon after the command has locked a repository. It reports whether the command was
// still running.
func (g *seriesRig) kill(name string, args []string) bool {
	g.t.Helper()
	locks := func() int {
		files, _ := filepath.Glob(filepath.Join(g.store, "*", "locks", "*"))
		return len(files)
	}
	before, begun := locks(), time.Now()
	cmd, out := g.command(args...)
	if err := cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	var ended time.Time
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); ended = time.Now(); close(done) }()
	wait := time.Duration(g.rng.Float64() * 1.1 * float64(g.takes[name]))
	if g.rng.IntN(2) == 0 {
		for tick := time.NewTicker(time.Millisecond); locks() == before && time.Since(begun) < g.takes[name]; <-tick.C {
		}
		wait = time.Duration(g.rng.Float64() * float64(g.takes[name]/2))
	}
	select {
	case <-done:
	case <-time.After(wait):
		_ = cmd.Process.Kill() // the command may have just ended
		<-done
	}
	if cmd.ProcessState.Exited() {
		g.takes[name] = ended.Sub(begun)
		if code := cmd.ProcessState.ExitCode(); code == 2 || bytes.Contains(out.Bytes(), []byte("panic:")) {
			g.t.Fatalf("snap %s: exit code %d\n%s", strings.Join(args, " "), code, out)
		}
		return false
	}
	return true
}

func (g *seriesRig) snapshots(repo string) (list []listedSnapshot, keys map[string]bool) {
	g.t.Helper()
	g.findPassword(repo)
	g.json(&list, "snapshots", "-r", repo)
	keys = map[string]bool{}
	for _, s := range list {
		if keys[s.key()] {
			g.t.Fatalf("%s: backup %s is listed twice: %+v", repo, s.key(), list)
		}
		keys[s.key()] = true
	}
	return list, keys
}

// verify checks that a repository is clean and that one or all of its snapshots
// equal the folders they were made from.
func (g *seriesRig) verify(repo string, all bool) {
	g.t.Helper()
	defer g.findPassword(g.repo)
	g.findPassword(repo)
	args := []string{"check", "-r", repo}
	if all {
		args = append(args, "--read-data")
	}
	var report struct {
		Clean    bool              `json:"clean"`
		Problems []json.RawMessage `json:"problems"`
	}
	g.json(&report, args...)
	if !report.Clean || len(report.Problems) > 0 {
		g.t.Fatalf("%s: check finds %s", repo, report.Problems)
	}
	list, _ := g.snapshots(repo)
	g.rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	if !all {
		list = list[:min(1, len(list))]
	}
	g.compare(repo, list)
}

// compare checks that snapshots equal the folders they were made from.
func (g *seriesRig) compare(repo string, list []listedSnapshot) {
	g.t.Helper()
	for _, s := range list {
		want, out := g.want[s.key()], g.path("out")
		if want == nil {
			g.t.Fatalf("%s: unknown snapshot %s", repo, s.key())
		}
		g.run(0, "materialize", "-r", repo, s.ID, out)
		got, err := fingerprint(filepath.Join(out, s.UDID))
		if err == nil {
			err = want.compare(got)
		}
		if err != nil {
			g.t.Fatalf("%s: snapshot %s: %v", repo, s.key(), err)
		}
		if err := os.RemoveAll(out); err != nil {
			g.t.Fatal(err)
		}
		g.count["snapshots compared"]++
	}
}

// checkListed checks that since the last call no other snapshots than these were added
// or removed.
func (g *seriesRig) checkListed(added, removed map[string]bool) {
	g.t.Helper()
	_, now := g.snapshots(g.repo)
	for key := range g.listed {
		if !now[key] && !removed[key] {
			g.t.Fatalf("snapshot %s is lost", key)
		}
	}
	for key := range now {
		if !g.listed[key] && !added[key] {
			g.t.Fatalf("unexpected snapshot %s", key)
		}
	}
	g.listed = now
}

// round kills one process, checks the repositories, and runs the same command to
// completion.
func (g *seriesRig) round(act killAct, thorough bool) {
	g.t.Helper()
	args := act.args(g)
	if args == nil {
		return
	}
	var added, removed map[string]bool
	if act.changes != nil {
		list, _ := g.snapshots(g.repo)
		added, removed = act.changes(g, list)
	}
	killed := g.kill(act.name, args)
	if killed {
		g.count["killed"]++
		g.count["killed "+act.name]++
	} else {
		g.count["not killed in time"]++
	}
	g.checkListed(added, removed)
	g.verify(g.repo, false)
	if act.name == "copy" {
		g.verify(g.storePath("other"), false)
	}
	if records, _ := filepath.Glob(filepath.Join(g.storePath("mirror"), "snapshots", "*")); act.name == "mirror" && len(records) > 0 {
		g.verify(g.storePath("mirror"), false)
	}

	begun := time.Now()
	cmd, out := g.command(args...)
	_ = cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != 0 && !slices.Contains(act.ok, code) {
		g.t.Fatalf("the next run of snap %s ends with %d\n%s", strings.Join(args, " "), code, out)
	}
	// This run may have had less to do than the killed one, so the time shrinks only
	// slowly.
	if took := time.Since(begun); killed {
		g.takes[act.name] = max(took, g.takes[act.name]*9/10)
	}
	g.checkListed(added, removed)
	if act.name == "copy" {
		_, now := g.snapshots(g.storePath("other"))
		g.findPassword(g.repo)
		for key := range g.listed {
			if !now[key] {
				g.t.Fatalf("snapshot %s was not copied", key)
			}
		}
		for key := range g.copied {
			if !now[key] {
				g.t.Fatalf("the copy of snapshot %s is lost", key)
			}
		}
		g.copied = now
	}
	if !thorough {
		return
	}
	g.verify(g.repo, true)
	g.verify(g.storePath("other"), true)
	g.findPassword(g.storePath("other"))
	g.run(0, "forget", "-r", g.storePath("other"), "--keep-last", "3", "--prune") // keeps it small
	_, g.copied = g.snapshots(g.storePath("other"))
	g.findPassword(g.repo)
	g.run(0, "mirror", "--accept-removals", g.storePath("mirror"))
	g.run(0, "mirror", "--check", g.storePath("mirror"))
	g.verify(g.storePath("mirror"), true)
}

// TestKills kills processes at random moments. Every listed snapshot must stay
// identical, check must find nothing, and the next run must succeed. SNAP_TEST_KILLS
// sets the number of rounds, SNAP_TEST_KILLS_SEED the random choices; the moment of a
// kill depends on the machine, too.
func TestKills(t *testing.T) {
	t.Parallel()
	killRounds(t, t.TempDir(), numberFrom(t, "SNAP_TEST_KILLS", amount(10, 2, 1)))
}

// killRounds runs rounds of kills on repositories in the folder store.
func killRounds(t *testing.T, store string, rounds uint64) {
	t.Helper()
	seed := numberFrom(t, "SNAP_TEST_KILLS_SEED", faultpoint.Rand(t).Uint64())
	dir := t.TempDir()
	series, err := synthetic.New(synthetic.Config{Seed: seed, Devices: 2, Scale: synthetic.Tiny, Encryption: synthetic.EncryptAlternate, StateDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer series.Close()
	g := &seriesRig{
		shell: newShell(t, filepath.Join(store, "repo"), "SNAP_PASSWORD=sesame", "SNAP_TO_PASSWORD=sesame",
			"SNAP_BACKUP_PASSWORD="+synthetic.DefaultPassword, packSizeVariable+"=200000"),
		rng: rand.New(rand.NewPCG(seed, 1)), dir: dir, store: store, series: series,
		want: map[string]fingerprints{}, secrets: []string{"sesame"}, takes: map[string]time.Duration{}, count: map[string]int{},
	}
	defer func() {
		if t.Failed() {
			t.Logf("SNAP_TEST_KILLS_SEED=%d", seed)
		}
		for _, what := range slices.Sorted(maps.Keys(g.count)) {
			t.Logf("%6d %s", g.count[what], what)
		}
	}()
	g.run(0, "init", "--parity", "10%")
	g.run(0, "init", "-r", g.storePath("other"))
	acts := killActs()
	begun := time.Now()
	g.run(0, "snapshots")
	quickest := time.Since(begun) // the time of the quickest command
	g.takes["import"] = 4 * quickest
	g.round(acts[0], false)
	total := 0
	for _, a := range acts {
		total += a.weight
	}
	// If most commands ended before they were killed, run more rounds.
	for n := uint64(0); n < rounds || n < 4*rounds && g.count["killed"] < int(rounds)/4; n++ {
		pick := g.rng.IntN(total)
		for _, a := range acts {
			if pick -= a.weight; pick < 0 {
				if g.takes[a.name] == 0 {
					g.takes[a.name] = 3 * quickest / 2
				}
				t.Logf("round %d: %s", n, a.name)
				g.round(a, n%10 == 9)
				break
			}
		}
	}
	if rounds >= 10 && g.count["killed"] < int(rounds)/4 {
		t.Errorf("only %d of %d were killed", g.count["killed"], rounds)
	}
}
