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
)

// killRig is a repository, its mirror and a copy of it, on which processes are
// killed, and what must come back of them.
type killRig struct {
	*shell
	rng     *rand.Rand
	dir     string // of backup folders and what is given back
	store   string // of repositories
	series  *synthetic.Series
	want    map[string]fingerprints  // of backup folders, by snapshot
	today   map[string]bool          // the snapshots that an import of the folders makes
	listed  map[string]bool          // what the repository listed after the last run
	copied  map[string]bool          // what the other repository listed then
	secrets []string                 // of which the first one opened the repository last
	takes   map[string]time.Duration // how long a run of a command takes
	count   map[string]int
}

// killed is a snapshot as "snap snapshots --json" tells it.
type killedSnapshot struct {
	ID   string    `json:"id"`
	Time time.Time `json:"time"`
	UDID string    `json:"udid"`
}

// key is the same for all records of one backup; the series makes one a day.
func (k killedSnapshot) key() string { return k.UDID + " " + k.Time.UTC().Format(time.DateOnly) }

// killAct is a command that is killed, and then run to its end.
type killAct struct {
	name   string
	weight int
	args   func(g *killRig) []string // nil: there is nothing to do
	// ok are the exit codes of the run to the end, 0 where there are none.
	ok []int
	// may says which snapshots may come and go, of those that are listed; the
	// others stay. Nil: all stay.
	may func(g *killRig, list []killedSnapshot) (come, goes map[string]bool)
}

func words(s string) func(*killRig) []string {
	return func(*killRig) []string { return strings.Fields(s) }
}

// sides returns arguments in which MIRROR and OTHER stand for folders.
func sides(s string) func(*killRig) []string {
	return func(g *killRig) []string {
		s := strings.NewReplacer("MIRROR", g.at("mirror"), "OTHER", g.at("other")).Replace(s)
		return strings.Fields(s)
	}
}

func killActs() []killAct {
	keepLast := func(n int) func(g *killRig, list []killedSnapshot) (come, goes map[string]bool) {
		return func(_ *killRig, list []killedSnapshot) (come, goes map[string]bool) {
			goes, left := map[string]bool{}, map[string]int{}
			for _, s := range slices.Backward(list) {
				if left[s.UDID]++; left[s.UDID] > n {
					goes[s.key()] = true
				}
			}
			return nil, goes
		}
	}
	return []killAct{
		{name: "import", weight: 30, args: (*killRig).nextDay, may: func(g *killRig, _ []killedSnapshot) (come, goes map[string]bool) {
			return g.today, nil
		}},
		{name: "forget", weight: 4, args: words("forget --keep-last 3"), may: keepLast(3)},
		{name: "forget and prune", weight: 8, args: words("forget --keep-last 2 --prune --max-unused 0"), may: keepLast(2)},
		{name: "prune", weight: 14, args: words("prune --max-unused 0")},
		{name: "mirror", weight: 8, args: sides("mirror --accept-removals MIRROR")},
		{name: "mirror and heal", weight: 3, args: func(g *killRig) []string {
			if !exists(filepath.Join(g.at("mirror"), "config")) {
				return nil
			}
			return []string{"mirror", "--check", "--heal", g.at("mirror")}
		}, ok: []int{0, exitError}}, // it may be out of date, which is told
		{name: "copy", weight: 8, args: sides("copy --to OTHER")},
		{name: "repair index", weight: 4, args: words("repair index")},
		{name: "repair packs", weight: 2, args: words("repair packs")},
		{name: "repair snapshots", weight: 2, args: words("repair snapshots")},
		{name: "repair", weight: 2, args: words("repair")},
		{name: "key add", weight: 3, args: func(g *killRig) []string { return []string{"key", "add", "--new-password-file", g.newSecret()} },
			ok: []int{0, exitExists}}, // the killed one has added it
		{name: "key passwd", weight: 3, args: func(g *killRig) []string { return []string{"key", "passwd", "--new-password-file", g.newSecret()} },
			ok: []int{0, exitExists}},
		{name: "key remove", weight: 3, args: (*killRig).removeKey, ok: []int{0, exitNoSnapshot}},
		{name: "check", weight: 3, args: words("check --read-data=50%")},
		{name: "note", weight: 4, args: words("note latest changed")},
		{name: "tag", weight: 2, args: words("tag --add weekly latest")},
		{name: "parity", weight: 4, args: func(g *killRig) []string {
			return []string{"parity", []string{"10%", "25%", "off"}[g.rng.IntN(3)]}
		}},
		{name: "init", weight: 2, args: func(g *killRig) []string { return []string{"init", "-r", g.at("new" + g.number())} },
			ok: []int{0, exitExists}},
	}
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

func (g *killRig) path(name string) string { return filepath.Join(g.dir, name) }

func (g *killRig) at(name string) string { return filepath.Join(g.store, name) }

func (g *killRig) number() string { return strconv.Itoa(int(g.rng.Uint32())) }

func (g *killRig) nextDay() []string {
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
		s := killedSnapshot{UDID: d.UDID, Time: g.series.Time(i, g.series.Day())}
		g.want[s.key()], g.today[s.key()] = f, true
	}
	return []string{"import", "--skip-if-unchanged", folder}
}

// newSecret writes a password into a file. The repository may have it from now on.
func (g *killRig) newSecret() string {
	secret := "secret " + g.number()
	g.secrets = append(g.secrets, secret)
	file := g.path("secret")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		g.t.Fatal(err)
	}
	return file
}

func (g *killRig) removeKey() []string {
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

func (g *killRig) json(v any, args ...string) {
	g.t.Helper()
	out := g.run(0, append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), v); err != nil {
		g.t.Fatalf("snap %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// unlock finds a password that opens a repository, and uses it from then on.
func (g *killRig) unlock(repo string) {
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

// kill starts a command and kills it at some moment: half of the time soon after
// it has locked something. It reports whether it was still at work.
func (g *killRig) kill(name string, args []string) bool {
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
		_ = cmd.Process.Kill() // it may have ended just now
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

func (g *killRig) snapshots(repo string) (list []killedSnapshot, keys map[string]bool) {
	g.t.Helper()
	g.unlock(repo)
	g.json(&list, "snapshots", "-r", repo)
	keys = map[string]bool{}
	for _, s := range list {
		if keys[s.key()] {
			g.t.Fatalf("%s: the backup %s is listed twice: %+v", repo, s.key(), list)
		}
		keys[s.key()] = true
	}
	return list, keys
}

// sound wants a repository to be clean, and some or all of its snapshots to come
// back as the folders were.
func (g *killRig) sound(repo string, all bool) {
	g.t.Helper()
	defer g.unlock(g.repo)
	g.unlock(repo)
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
	g.comeBack(repo, list)
}

// comeBack wants snapshots to be given back as the folders were.
func (g *killRig) comeBack(repo string, list []killedSnapshot) {
	g.t.Helper()
	for _, s := range list {
		want, out := g.want[s.key()], g.path("out")
		if want == nil {
			g.t.Fatalf("%s: nobody stored %s", repo, s.key())
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

// listedNow wants nothing to have come or gone but what may.
func (g *killRig) listedNow(come, goes map[string]bool) {
	g.t.Helper()
	_, now := g.snapshots(g.repo)
	for key := range g.listed {
		if !now[key] && !goes[key] {
			g.t.Fatalf("snapshot %s is lost", key)
		}
	}
	for key := range now {
		if !g.listed[key] && !come[key] {
			g.t.Fatalf("snapshot %s has come from nowhere", key)
		}
	}
	g.listed = now
}

// round kills one process, judges what is there, and runs the same to its end.
func (g *killRig) round(act killAct, thorough bool) {
	g.t.Helper()
	args := act.args(g)
	if args == nil {
		return
	}
	var come, goes map[string]bool
	if act.may != nil {
		list, _ := g.snapshots(g.repo)
		come, goes = act.may(g, list)
	}
	killed := g.kill(act.name, args)
	if killed {
		g.count["killed"]++
		g.count["killed "+act.name]++
	} else {
		g.count["ended before"]++
	}
	g.listedNow(come, goes)
	g.sound(g.repo, false)
	if act.name == "copy" {
		g.sound(g.at("other"), false)
	}
	if records, _ := filepath.Glob(filepath.Join(g.at("mirror"), "snapshots", "*")); act.name == "mirror" && len(records) > 0 {
		g.sound(g.at("mirror"), false)
	}

	begun := time.Now()
	cmd, out := g.command(args...)
	_ = cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != 0 && !slices.Contains(act.ok, code) {
		g.t.Fatalf("the next run of snap %s ends with %d\n%s", strings.Join(args, " "), code, out)
	}
	// The run that follows has less to do than one that was killed.
	if took := time.Since(begun); killed {
		g.takes[act.name] = max(took, g.takes[act.name]*9/10)
	}
	g.listedNow(come, goes)
	if act.name == "copy" {
		_, now := g.snapshots(g.at("other"))
		g.unlock(g.repo)
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
	g.sound(g.repo, true)
	g.sound(g.at("other"), true)
	g.unlock(g.at("other"))
	g.run(0, "forget", "-r", g.at("other"), "--keep-last", "3", "--prune") // so that it does not grow for ever
	_, g.copied = g.snapshots(g.at("other"))
	g.unlock(g.repo)
	g.run(0, "mirror", "--accept-removals", g.at("mirror"))
	g.run(0, "mirror", "--check", g.at("mirror"))
	g.sound(g.at("mirror"), true)
}

// numberFrom reads a number from a variable of the environment.
func numberFrom(t *testing.T, variable string, otherwise uint64) uint64 {
	t.Helper()
	s := os.Getenv(variable)
	if s == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return n
}

// TestKills kills processes at any moment: whatever was listed comes back byte
// for byte, check finds nothing, and the next run ends well. SNAP_TEST_KILLS
// sets how many rounds, SNAP_TEST_KILLS_SEED what they do; when exactly a
// process dies is up to the machine.
func TestKills(t *testing.T) {
	rounds := numberFrom(t, "SNAP_TEST_KILLS", 10)
	if testing.Short() {
		rounds = min(rounds, 3)
	}
	killRounds(t, t.TempDir(), rounds)
}

// killRounds does so with repositories in a folder.
func killRounds(t *testing.T, store string, rounds uint64) {
	t.Helper()
	seed := numberFrom(t, "SNAP_TEST_KILLS_SEED", uint64(time.Now().UnixNano()))
	dir := t.TempDir()
	series, err := synthetic.New(synthetic.Config{Seed: seed, Devices: 2, Scale: synthetic.Tiny, Encryption: synthetic.EncryptAlternate, StateDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer series.Close()
	g := &killRig{
		shell: &shell{t: t, repo: filepath.Join(store, "repo"), env: []string{
			"SNAP_PASSWORD=sesame", "SNAP_TO_PASSWORD=sesame", "SNAP_BACKUP_PASSWORD=" + synthetic.DefaultPassword, packSizeVariable + "=200000"}},
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
	g.run(0, "init", "-r", g.at("other"))
	acts := killActs()
	begun := time.Now()
	g.run(0, "snapshots")
	least := time.Since(begun) // of what a command takes on this machine
	g.takes["import"] = 4 * least
	g.round(acts[0], false)
	total := 0
	for _, a := range acts {
		total += a.weight
	}
	for n := uint64(0); n < rounds || n < 4*rounds && g.count["killed"] < int(rounds)/4; n++ {
		pick := g.rng.IntN(total)
		for _, a := range acts {
			if pick -= a.weight; pick < 0 {
				if g.takes[a.name] == 0 {
					g.takes[a.name] = 3 * least / 2
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
