package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/devicetest"
	"github.com/snap-backup/snap/device/ingest"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/internal/keyring"
	"github.com/snap-backup/snap/internal/process"
	"github.com/snap-backup/snap/internal/ramtemp"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/local"
)

// packSizeVariable names the variable with the pack size, in bytes, of the test
// binary that runs as snap. With small packs, little data makes several of them.
const packSizeVariable = "SNAP_TEST_PACK_SIZE"

// keyringVariable names the variable with the folder that the test binary uses as keyring
// when it runs as snap.
const keyringVariable = "SNAP_TEST_KEYRING"

// folderKeyring is a keyring whose passwords are files of a folder. A folder that does not
// exist is a keyring that cannot be used.
type folderKeyring string

func (k folderKeyring) file(name string) string { return filepath.Join(string(k), name) }

func (k folderKeyring) check() error {
	if _, err := os.Stat(string(k)); err != nil {
		return fmt.Errorf("%w: there is no session bus", keyring.ErrUnavailable)
	}
	return nil
}

func (k folderKeyring) Get(_ context.Context, name string) (string, error) {
	if err := k.check(); err != nil {
		return "", err
	}
	b, err := os.ReadFile(k.file(name))
	if errors.Is(err, os.ErrNotExist) {
		return "", keyring.ErrNotFound
	}
	return string(b), err
}

func (k folderKeyring) Set(_ context.Context, name, password string) error {
	if err := k.check(); err != nil {
		return err
	}
	return os.WriteFile(k.file(name), []byte(password), 0o600)
}

func (k folderKeyring) Delete(_ context.Context, name string) error {
	if err := k.check(); err != nil {
		return err
	}
	err := os.Remove(k.file(name))
	if errors.Is(err, os.ErrNotExist) {
		return keyring.ErrNotFound
	}
	return err
}

// TestMain makes the test binary act as snap when it is called by that name. The key
// slots that it makes open in almost no time, and pairings have small keys.
func TestMain(m *testing.M) {
	testscript.Main(inMemory{m}, map[string]func(){
		"snap": func() {
			size, _ := strconv.Atoi(os.Getenv(packSizeVariable)) // 0 means the default
			a := &app{keyBits: 1024, options: repo.Options{Cost: crypto.Cost{Time: 1, MemoryKiB: 8, Threads: 1}, PackSize: size}}
			if dir := os.Getenv(keyringVariable); dir != "" {
				a.keyring = folderKeyring(dir)
			}
			os.Exit(start(a))
		},
	})
}

// inMemory runs tests with temporary files in memory, because on a disk most of the
// system's time goes into syncing small files. CI, which sets SNAP_TEST_ALL, uses the
// disk.
type inMemory struct{ *testing.M }

func (m inMemory) Run() int {
	// The tests must not read the configuration of whoever runs them.
	if err := errors.Join(os.Setenv("SNAP_CONFIG", os.DevNull), os.Unsetenv("SNAP_PROFILE")); err != nil {
		panic(err)
	}
	if !faultpoint.All() {
		defer ramtemp.Use()()
	}
	return m.M.Run()
}

// TestScripts runs the scripts in testdata/script, which are also a manual of the
// program. With -short it runs a few of them.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	rng := faultpoint.Rand(t)
	plain := map[string]bool{}
	for _, file := range files {
		plain[strings.TrimSuffix(filepath.Base(file), ".txtar")] = devicetest.Plain(rng)
	}
	if testing.Short() {
		rng.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
		files = files[:2]
	}
	testscript.Run(t, testscript.Params{
		Files:               files,
		RequireExplicitExec: false,
		Setup: func(env *testscript.Env) error {
			env.Setenv("SNAP_REPOSITORY", filepath.Join(env.WorkDir, "repo"))
			env.Setenv("SNAP_PASSWORD", "sesame")
			env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
			env.Setenv("XDG_CONFIG_HOME", filepath.Join(env.WorkDir, "home", "config"))
			// The keyring of whoever runs the tests is not for them.
			env.Setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path="+filepath.Join(env.WorkDir, "no-bus"))
			env.Setenv("TMPDIR", env.WorkDir)
			env.Setenv("TZ", "UTC")
			env.Setenv("GOMAXPROCS", "1")
			env.Setenv(device.AddressVariable, noDevices)
			env.Values[serversKey{}] = &servers{running: map[string]*exec.Cmd{}}
			env.Values[simulationKey{}] = &simulation{plain: plain}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code":   runForCode,
			"json":   checkJSON,
			"pick":   pickJSON,
			"same":   sameFolders,
			"damage": damageFile,
			"tidy":   checkTidy,

			"pick-latest": pickLatest,

			"leave":    leaveLock,
			"store-at": storeAt,
			"certify":  certify,
			"recovery": mistypeRecovery,
			"only":     onlyFile,
			"simulate": simulate,
			"server":   server,
			"http":     request,
			"generate": newGeneratedFolders(t).generate,
			"many":     newManyFiles(t),
		},
	})
}

// runForCode is "code N command...": the command exits with code N.
func runForCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N command...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		code = exit.ExitCode()
	}
	if code != want {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
}

// checkJSON is "json FILE [PATH[=VALUE]]...": FILE, which may be stdout or stderr,
// has JSON values, and docs/json.md explains their keys. The last of these values has
// an item at each PATH, such as 0.device.name. If a VALUE is given, the item equals
// it.
func checkJSON(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: json FILE [PATH[=VALUE]]...")
	}
	v := readJSON(ts, args[0])
	for _, arg := range args[1:] {
		path, want, compare := strings.Cut(arg, "=")
		got, err := lookup(v, path)
		ts.Check(err)
		if text := jsonText(got); compare && text != want {
			ts.Fatalf("%s is %s, want %s", path, text, want)
		}
	}
}

// pickJSON is "pick VARIABLE FILE PATH": it sets a variable of the script to the
// value at a path.
func pickJSON(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: pick VARIABLE FILE PATH")
	}
	v, err := lookup(readJSON(ts, args[1]), args[2])
	ts.Check(err)
	ts.Setenv(args[0], jsonText(v))
}

func jsonText(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	b, _ := json.Marshal(v)
	return string(b)
}

func readJSON(ts *testscript.TestScript, file string) any {
	dec := json.NewDecoder(strings.NewReader(ts.ReadFile(file)))
	dec.UseNumber()
	var last any
	for n := 0; ; n++ {
		var v any
		err := dec.Decode(&v)
		if errors.Is(err, io.EOF) && n > 0 {
			return last
		}
		if err != nil {
			ts.Fatalf("value %d of %s: %v", n+1, file, err)
		}
		ts.Check(checkKeys(v))
		last = v
	}
}

var snakeCase = regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)

// documented is the text of docs/json.md.
var documented = func() string {
	b, _ := os.ReadFile(filepath.Join("..", "..", "docs", "json.md"))
	return string(b)
}()

// checkKeys checks that keys are in snake case and documented.
func checkKeys(v any) error {
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			if err := checkKeys(item); err != nil {
				return err
			}
		}
	case map[string]any:
		for key, item := range v {
			if !snakeCase.MatchString(key) {
				return fmt.Errorf("key %q is not in snake case", key)
			}
			if !strings.Contains(documented, "`"+key+"`") {
				return fmt.Errorf("key %q is not in docs/json.md", key)
			}
			if item == nil && nullable[key] == "" {
				return fmt.Errorf("key %q is null", key)
			}
			if err := checkKeys(item); err != nil {
				return err
			}
		}
	}
	return nil
}

// nullable has the keys that may be null, and why.
var nullable = map[string]string{
	"report":    "the manifest is unreadable without the backup password",
	"anomalies": "the same",
}

func lookup(v any, path string) (any, error) {
	for step := range strings.SplitSeq(path, ".") {
		switch at := v.(type) {
		case map[string]any:
			item, ok := at[step]
			if !ok {
				return nil, fmt.Errorf("path %q: there is no key %q", path, step)
			}
			v = item
		case []any:
			if step == "length" {
				v = len(at)
				continue
			}
			i, err := strconv.Atoi(step)
			if err != nil || i < 0 || i >= len(at) {
				return nil, fmt.Errorf("path %q: there is no item %q in a list of %d", path, step, len(at))
			}
			v = at[i]
		default:
			return nil, fmt.Errorf("path %q: there is no %q, since the value above it is neither an object nor a list", path, step)
		}
	}
	return v, nil
}

// sameFolders is "same A B": the two folders are equal.
func sameFolders(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: same A B")
	}
	a, err := fingerprint(ts.MkAbs(args[0]))
	ts.Check(err)
	b, err := fingerprint(ts.MkAbs(args[1]))
	ts.Check(err)
	if len(a) == 0 {
		ts.Fatalf("%s is empty", args[0])
	}
	if err := a.compare(b); (err != nil) != neg {
		ts.Fatalf("%s and %s: %v", args[0], args[1], err)
	}
}

// damageFile is "damage flip|byte|cut|replace OLD NEW PATTERN": it damages the largest
// file that matches the pattern.
func damageFile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: damage flip|byte|cut PATTERN, damage replace OLD NEW PATTERN")
	}
	files, err := filepath.Glob(ts.MkAbs(args[len(args)-1]))
	ts.Check(err)
	if len(files) == 0 {
		ts.Fatalf("no file matches %s", args[len(args)-1])
	}
	// Names are random. If the first name decided, the damage would hit a pack of trees
	// in some runs and a pack of content in others.
	size := func(name string) int64 {
		info, err := os.Stat(name)
		ts.Check(err)
		return info.Size()
	}
	slices.SortStableFunc(files, func(a, b string) int { return cmp.Compare(size(b), size(a)) })
	b, err := os.ReadFile(files[0])
	ts.Check(err)
	switch args[0] {
	case "flip":
		// More than snap corrects by itself.
		b[len(b)/3] ^= 1
		b[len(b)/3+9] ^= 1
	case "byte":
		b[len(b)/3] ^= 1
	case "cut":
		b = b[:len(b)/2]
	case "replace":
		if !strings.Contains(string(b), args[1]) {
			ts.Fatalf("%s does not hold %q", files[0], args[1])
		}
		b = []byte(strings.Replace(string(b), args[1], args[2], 1))
	default:
		ts.Fatalf("unknown word %q", args[0])
	}
	ts.Check(os.WriteFile(files[0], b, 0o600))
}

// checkTidy is "tidy FILE...": no line ends in blanks or contains tabs or control
// characters.
func checkTidy(ts *testscript.TestScript, neg bool, args []string) {
	for _, file := range args {
		for line := range strings.Lines(ts.ReadFile(file)) {
			line = strings.TrimSuffix(line, "\n")
			if strings.TrimRight(line, " ") != line || clean(line) != line {
				ts.Fatalf("untidy line %q", line)
			}
		}
	}
}

// mistypeRecovery is "recovery KEY": it writes the key to three files, as people may
// type it: in small letters, without groups, and with a slip.
func mistypeRecovery(ts *testscript.TestScript, _ bool, args []string) {
	key := args[0]
	wrong := "Z"
	if key[0] == 'Z' {
		wrong = "Y"
	}
	for name, text := range map[string]string{
		"small":     strings.ToLower(key),
		"ungrouped": strings.ReplaceAll(key, "-", ""),
		"slip":      wrong + key[1:],
	} {
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text+"\n"), 0o600))
	}
}

// pickLatest is "pick-latest VARIABLE": it sets a variable to the ID of the
// newest snapshot.
func pickLatest(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(ts.Exec("snap", "snapshots", "--json"))
	list, ok := readJSON(ts, "stdout").([]any)
	if !ok || len(list) == 0 {
		ts.Fatalf("there is no snapshot")
	}
	id, err := lookup(list[len(list)-1], "id")
	ts.Check(err)
	ts.Setenv(args[0], jsonText(id))
}

// leaveLock is "leave KIND AGE": it makes a lock of this kind, as if a process on
// another computer had last refreshed it AGE ago. The kind "empty" is a lock without
// content.
func leaveLock(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: leave KIND AGE")
	}
	age, err := time.ParseDuration(args[1])
	ts.Check(err)
	if args[0] == "empty" {
		name := filepath.Join(ts.Getenv("SNAP_REPOSITORY"), "locks", strings.Repeat("ab", 32))
		ts.Check(os.WriteFile(name, nil, 0o600))
		ts.Check(os.Chtimes(name, time.Time{}, time.Now().Add(-age)))
		return
	}
	be, err := local.Open(ts.Getenv("SNAP_REPOSITORY"))
	ts.Check(err)
	r, err := repo.Open(context.Background(), be, []byte(ts.Getenv("SNAP_PASSWORD")), repo.Options{
		Now:     func() time.Time { return time.Now().Add(-age) },
		Refresh: -1,
		Owner:   &process.Identity{Host: "elsewhere", User: "anna", PID: 4711},
	})
	ts.Check(err)
	// Other locks are moved aside until this one is made, because they may forbid it.
	hidden := ts.MkAbs("locks-aside")
	dir := filepath.Join(ts.Getenv("SNAP_REPOSITORY"), "locks")
	aside := os.Rename(dir, hidden) == nil
	_, err = r.Lock(context.Background(), repo.LockKind(args[0]), "snap test")
	ts.Check(err)
	files, err := os.ReadDir(dir)
	ts.Check(err)
	for _, f := range files {
		put := time.Now().Add(-age)
		ts.Check(os.Chtimes(filepath.Join(dir, f.Name()), put, put))
	}
	if aside {
		made, err := os.ReadDir(dir)
		ts.Check(err)
		for _, f := range made {
			ts.Check(os.Rename(filepath.Join(dir, f.Name()), filepath.Join(hidden, f.Name())))
		}
		ts.Check(os.Remove(dir))
		ts.Check(os.Rename(hidden, dir))
	}
}

// storeAt is "store-at SKEW FOLDER TAG [disk]": it imports a backup folder that has no
// possible date with a clock that is SKEW ahead. With "disk", the file of the snapshot has
// the time of that clock, too.
func storeAt(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 3 {
		ts.Fatalf("usage: store-at SKEW FOLDER TAG [disk]")
	}
	ctx := context.Background()
	skew, err := time.ParseDuration(args[0])
	ts.Check(err)
	be, err := local.Open(ts.Getenv("SNAP_REPOSITORY"))
	ts.Check(err)
	defer be.Close()
	now := time.Now().Add(skew)
	r, err := repo.Open(ctx, be, []byte(ts.Getenv("SNAP_PASSWORD")), repo.Options{Now: func() time.Time { return now }})
	ts.Check(err)
	ts.Check(r.LoadIndex(ctx))
	found, err := findBackups([]string{ts.MkAbs(args[1])})
	ts.Check(err)
	b, err := mobilesync.Open(ctx, found[0].Dir)
	ts.Check(err)
	defer b.Close()
	res, err := ingest.Import(ctx, r, b, ingest.Options{Tags: []string{args[2]}})
	ts.Check(err)
	if len(args) > 3 {
		ts.Check(os.Chtimes(filepath.Join(ts.Getenv("SNAP_REPOSITORY"), "snapshots", res.Snapshot.ID.String()), now, now))
	}
}

// certify is "certify SNAPSHOT KIND LEVEL RESULT": it stores a certificate of a
// snapshot.
func certify(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 4 {
		ts.Fatalf("usage: certify SNAPSHOT KIND LEVEL RESULT")
	}
	ctx := context.Background()
	be, err := local.Open(ts.Getenv("SNAP_REPOSITORY"))
	ts.Check(err)
	defer be.Close()
	r, err := repo.Open(ctx, be, []byte(ts.Getenv("SNAP_PASSWORD")), repo.Options{})
	ts.Check(err)
	s, err := r.FindSnapshot(ctx, args[0])
	ts.Check(err)
	_, err = r.WriteCertificate(ctx, &repo.Certificate{
		Snapshot: s.FirstID(), Root: s.Root, Kind: args[1], Level: args[2], Result: args[3], Files: s.Files, Bytes: s.Bytes,
	})
	ts.Check(err)
}

// onlyFile is "only VARIABLE PATTERN": it sets a variable to the name of the only
// file that matches the pattern.
func onlyFile(ts *testscript.TestScript, _ bool, args []string) {
	files, err := filepath.Glob(ts.MkAbs(args[1]))
	ts.Check(err)
	if len(files) != 1 {
		ts.Fatalf("%d files match %s", len(files), args[1])
	}
	ts.Setenv(args[0], filepath.Base(files[0]))
}
