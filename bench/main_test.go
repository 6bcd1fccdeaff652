package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/internal/ramtemp"
)

// allocateEnv, if set, makes the test program a child process that uses this number of
// bytes.
const allocateEnv = "SNAP_BENCH_TEST_ALLOCATE"

func TestMain(m *testing.M) {
	if isStarter() {
		os.Exit(starter(os.Args[1:]))
	}
	if n, err := strconv.Atoi(os.Getenv(allocateEnv)); err == nil {
		touch(n)
		os.Exit(0)
	}
	defer ramtemp.Use()()
	m.Run()
}

func touch(n int) byte {
	b := make([]byte, n)
	for i := 0; i < n; i += 4096 {
		b[i] = 1
	}
	return b[n-1]
}

func needMeasuring(t *testing.T) {
	t.Helper()
	if !canMeasure {
		t.Skip("bench measures only on Unix")
	}
}

// TestRunSnapOnly runs everything with the only program that is always available.
func TestRunSnapOnly(t *testing.T) {
	needMeasuring(t)
	if testing.Short() {
		t.Skip("builds and runs snap")
	}
	work, target := t.TempDir(), t.TempDir()
	var out, log bytes.Buffer
	args := []string{"-scale", "tiny", "-days", "2", "-devices", "1", "-repeat", "1", "-tools", "snap", "-dir", work, "-json", "-seeds", "1,2", "-history", "3", "-restore-to", target}
	if err := run(t.Context(), args, &out, &log); err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	var r report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	snap := r.tool(snapName)
	if snap == nil || len(snap.Wrong) > 0 || snap.Restored != 4 {
		t.Fatalf("restores of snap: %+v", snap)
	}
	for _, s := range []step{stepFirst, stepNext, stepUnchanged, stepList, stepRestore(0), stepRestore(1), stepCheck} {
		if got := snap.Samples[s]; len(got) != 2 || got[0].Wall <= 0 || got[0].CPU <= 0 || got[0].Peak < 4<<20 {
			t.Errorf("%s: %+v", s, got)
		}
	}
	if len(snap.Sizes) != 2 || len(snap.Sizes[1]) != 2 || snap.Sizes[0][0] < 1<<20 || snap.Sizes[1][0] <= snap.Sizes[0][0] {
		t.Errorf("sizes %v", snap.Sizes)
	}
	if n := len(r.tool(referenceName).Samples[stepCopy]); n != 2 {
		t.Errorf("%d samples of cp", n)
	}
	if left, _ := os.ReadDir(work); len(left) > 0 {
		t.Errorf("%s was not removed", left[0].Name())
	}
	if left, _ := os.ReadDir(target); len(left) > 0 {
		t.Errorf("%s was not removed", left[0].Name())
	}
	if strings.Contains(r.Command, work) || strings.Contains(r.Command, target) || !strings.Contains(r.Command, "-scale tiny") {
		t.Errorf("command %q", r.Command)
	}
}

// shellTool returns a backup program that makes a copy each day.
func shellTool(name string) *tool {
	script := func(text string) func(params) []string {
		return func(p params) []string { return []string{"-c", text, p.repo, p.folder, p.label, p.target} }
	}
	return &tool{
		name: name, program: "/bin/sh",
		env:     func(params) []string { return nil },
		create:  func(p params) [][]string { return [][]string{script(`mkdir -p "$0"`)(p)} },
		store:   script(`mkdir -p "$0/$2" && cp -r "$1" "$0/$2/"`),
		restore: script(`cp -r "$0/$2/$1" "$3/"`),
		check:   script(`test -d "$0/day0"`),
	}
}

func shellBench(t *testing.T, tools ...*tool) *bench {
	t.Helper()
	needMeasuring(t)
	return &bench{
		conf: config{
			series: synthetic.Config{Seed: 1, Devices: 2, Scale: synthetic.Tiny},
			days:   2, repeat: 2, dir: t.TempDir(), date: "2026-01-01",
		},
		tools: tools, log: t.Output(), flush: func() {}, sync: "true",
	}
}

func TestToolsTakeTurns(t *testing.T) {
	a, b := shellTool("a"), shellTool("b")
	bench := shellBench(t, a, b)
	var order strings.Builder
	bench.rounds = [][]*toolRepo{{{tool: a}, {tool: b}}, {{tool: a}, {tool: b}}}
	for range 2 {
		if err := bench.eachRepo(func(l *toolRepo) error { order.WriteString(l.tool.name); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if order.String() != "abbaabba" {
		t.Errorf("order %s", &order)
	}
}

func TestRunFindsWrongRestores(t *testing.T) {
	if testing.Short() {
		t.Skip("copies a series many times")
	}
	good, bad := shellTool("good"), shellTool("bad")
	bad.restore = func(p params) []string {
		return []string{"-c", `cp -r "$0" "$1/" && for f in "$1/$2"/Info.plist; do printf x | dd of="$f" conv=notrunc bs=1 seek=9 2>/dev/null; done`,
			p.repo + "/" + p.label + "/" + p.folder, p.target, p.folder}
	}
	r, err := shellBench(t, good, bad).run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// Two days, two repositories each.
	if g := r.tool("good"); len(g.Wrong) > 0 || g.Restored != 4 {
		t.Errorf("good: %d restored, wrong %v", g.Restored, g.Wrong)
	}
	if b := r.tool("bad"); len(b.Wrong) != 4 || b.Restored != 0 || !strings.Contains(b.Wrong[0], "Info.plist has other bytes") {
		t.Errorf("bad: %d restored, wrong %v", b.Restored, b.Wrong)
	}
	if n := len(r.tool("good").Samples[stepNext]); n != 2 {
		t.Errorf("%d samples of one day in two repositories", n)
	}
	var md bytes.Buffer
	if err := r.writeMarkdown(&md); err != nil || !strings.Contains(md.String(), "WRONG: 4 of 4 restores differ") {
		t.Errorf("%v\n%s", err, md.String())
	}
}

func TestRunTellsWhatFailed(t *testing.T) {
	broken := shellTool("broken")
	broken.store = func(params) []string { return []string{"-c", "echo disk on fire >&2; exit 3"} }
	_, err := shellBench(t, broken).run(t.Context())
	for _, want := range []string{"broken", "first import", "exit code 3", "disk on fire"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v lacks %q", err, want)
		}
	}
}

func TestParseFlags(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string // text of the error; empty if there is no error
	}{
		{nil, ""},
		{[]string{"-days", "2", "-encrypt", "alternate", "-compact", "-tools", "snap,rsync"}, ""},
		{[]string{"-days", "0"}, "at least 1"},
		{[]string{"-repeat", "0"}, "at least 1"},
		{[]string{"-scale", "huge"}, "scale"},
		{[]string{"-encrypt", "some"}, "-encrypt takes"},
		{[]string{"folder"}, "unexpected"},
		{[]string{"-seeds", "1,2,3"}, ""},
		{[]string{"-seeds", "1,x"}, "-seeds takes numbers"},
		{[]string{"-seeds", "2,2"}, "2 twice"},
		{[]string{"-seeds", "1,2", "-seed", "3"}, "not both"},
		{[]string{"-history", "-1"}, "-history takes"},
		{[]string{"-guard-update"}, "needs -guard"},
		{[]string{"-days", "10001"}, "at most 10000"},
		{[]string{"-nothing"}, "not defined"},
	} {
		var log bytes.Buffer
		c, err := parseFlags(tt.args, &log)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%v: %v, want %q", tt.args, err, tt.want)
		}
		if tt.want == "" && c.date == "" {
			t.Errorf("%v: no date", tt.args)
		}
	}
	if _, _, err := findTools(t.Context(), config{tools: []string{"tar"}}); err == nil {
		t.Error("an unknown tool was accepted")
	}
}

func TestEncryptionNamesFollowPackageSynthetic(t *testing.T) {
	for name, want := range map[string]synthetic.Encryption{"none": synthetic.EncryptNone, "all": synthetic.EncryptAll, "alternate": synthetic.EncryptAlternate} {
		if got, err := parseEncryption(name); err != nil || got != want {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestPublicArgs(t *testing.T) {
	got := publicArgs([]string{"-scale", "small", "-dir", "/home/me", "-restic=/home/me/restic", "--borg", "/x", "-keep", "-floor", "-restore-to", "/mnt", "-date", "2026-01-01", "-days=3"})
	if want := []string{"-scale", "small", "-floor", "-days=3"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestInstalledTools runs all other installed tools on a tiny series. It fails if a new
// version of a tool has other options. TestRunSnapOnly tests snap.
func TestInstalledTools(t *testing.T) {
	needMeasuring(t)
	if testing.Short() {
		t.Skip("runs all installed tools")
	}
	conf := config{
		series: synthetic.Config{Seed: 2, Devices: 1, Scale: synthetic.Tiny},
		days:   2, repeat: 1, dir: t.TempDir(), paths: map[string]string{}, date: "2026-01-01",
		tools: installed(toolNames()[1:]...),
	}
	if len(conf.tools) == 0 {
		t.Skip("no other tool is installed")
	}
	t.Logf("installed: %v", conf.tools)
	tools, _, err := findTools(t.Context(), conf)
	if err != nil {
		t.Fatal(err)
	}
	r, err := (&bench{conf: conf, tools: tools, log: t.Output(), flush: func() {}, sync: "true"}).run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, tool := range r.Tools[:len(r.Tools)-1] {
		if len(tool.Wrong) > 0 || tool.Restored != 2 {
			t.Errorf("%s: %d restored, wrong %v", tool.Name, tool.Restored, tool.Wrong)
		}
	}
}

func TestMeasure(t *testing.T) {
	needMeasuring(t)
	const parent, child = 256 << 20, 64 << 20
	touch(parent)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := command{args: []string{self}, env: append(os.Environ(), fmt.Sprintf("%s=%d", allocateEnv, child))}
	s, _, err := c.measure(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// The peak must not include the memory of the parent.
	if s.Peak < child || s.Peak > child+100<<20 {
		t.Errorf("peak of a child that uses %d bytes: %d", child, s.Peak)
	}
	s, out, err := command{args: []string{"sh", "-c", "sleep 0.2; echo out; pwd"}, env: baseEnv("/"), dir: "/"}.measure(t.Context())
	if err != nil || string(out) != "out\n/\n" {
		t.Errorf("printed %q, %v", out, err)
	}
	if s.Wall < 200*time.Millisecond || s.CPU > s.Wall {
		t.Errorf("a program that sleeps 0.2 s: %+v", s)
	}
	if s, _, err = (command{args: []string{"sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"}, env: baseEnv("/")}).measure(t.Context()); err != nil || s.CPU < 20*time.Millisecond {
		t.Errorf("a program that counts: %+v, %v", s, err)
	}
	for _, args := range [][]string{{"/no/such/program"}, {"sh", "-c", "exit 1"}, {"sh", "-c", "kill -9 $$"}, {}} {
		if _, _, err := (command{args: args, env: baseEnv("/")}).measure(t.Context()); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}

// An interrupted run leaves no program running.
func TestMeasureInterrupted(t *testing.T) {
	needMeasuring(t)
	name := filepath.Join(t.TempDir(), "pipe")
	if out, err := exec.Command("mkfifo", name).CombinedOutput(); err != nil {
		t.Fatalf("mkfifo: %v: %s", err, out)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		script := `exec >"$0"; echo started; sleep 300; echo late`
		_, _, err := command{args: []string{"sh", "-c", script, name}, env: baseEnv("/")}.measure(ctx)
		done <- err
	}()
	pipe, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	lines := bufio.NewReader(pipe)
	if line, err := lines.ReadString('\n'); line != "started\n" {
		t.Fatalf("the program printed %q, %v", line, err)
	}
	cancel()
	if err := <-done; err == nil {
		t.Error("measure of an interrupted program returned no error")
	}
	// The pipe ends when all processes that have it open have ended.
	if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 {
		t.Errorf("the program continued and printed %q, %v", rest, err)
	}
}

func TestLimited(t *testing.T) {
	for _, tt := range []struct {
		last bool
		want string
	}{{false, "abcd"}, {true, "defg"}} {
		l := limited{max: 4, last: tt.last}
		for _, s := range []string{"abc", "defg"} {
			if n, err := l.Write([]byte(s)); n != len(s) || err != nil {
				t.Errorf("wrote %d, %v", n, err)
			}
		}
		if l.text() != tt.want || !l.dropped {
			t.Errorf("last %v: kept %q, dropped %v", tt.last, l.text(), l.dropped)
		}
	}
}

func TestDiskUsageCountsHardLinksOnce(t *testing.T) {
	needMeasuring(t)
	dir := t.TempDir()
	a := filepath.Join(dir, "a")
	for name, size := range map[string]int{a: 1000, filepath.Join(dir, "b"): 30} {
		if err := os.WriteFile(name, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(a, filepath.Join(dir, "a2")); err != nil {
		t.Fatal(err)
	}
	if n, err := diskUsage(dir); err != nil || n != 1030 {
		t.Errorf("%d, %v", n, err)
	}
}

func TestOnlyID(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{`[{"id":"ab","time":"x"}]`, "ab"},
		{`[]`, ""}, {`null`, ""}, {`[{"id":""}]`, ""}, {`[{"id":"a"},{"id":"b"}]`, ""}, {`no`, ""},
	} {
		got, err := onlyID([]byte(tt.in))
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%s: %q, %v", tt.in, got, err)
		}
	}
}

func FuzzOnlyID(f *testing.F) {
	f.Add([]byte(`[{"id":"ab"}]`))
	f.Add([]byte(`[]`))
	f.Add([]byte(`{"id":"ab"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if id, err := onlyID(b); (id == "") != (err != nil) {
			t.Errorf("id %q, error %v", id, err)
		}
	})
}
