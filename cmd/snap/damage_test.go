package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/device/mobilesync/foldertest"
	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/internal/process"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/local"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

var updateDamage = flag.Bool("update-damage", false, "write docs/damage.md anew")

const damageDoc = "../../docs/damage.md"

// damageNow is the time of all commands of the matrix.
var damageNow = time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)

// memoryFolder is a store in memory in the place of a folder.
type memoryFolder struct{ backend.Backend }

func (memoryFolder) Free(context.Context) (int64, error)                         { return 1 << 40, nil }
func (memoryFolder) AllowNoFsync()                                               {}
func (memoryFolder) RemoveStale(context.Context, time.Duration) (n int, _ error) { return 0, nil }
func (memoryFolder) Close() error                                                { return nil }

// folderOnDisk is a store in a folder. Commands do not close it, so that what they have left
// can be read.
type folderOnDisk struct{ *local.Backend }

func (folderOnDisk) Close() error { return nil }

// patient is a repository on which commands are tried, with a mirror of it, an empty
// repository, one with copies of its snapshots, and folders for what they write.
type patient struct {
	t      *testing.T
	dir    string
	stores map[string]backend.Backend // by the name of a folder in dir
	seed   byte
	jump   func(time.Time) time.Time // changes the time, if not nil
	packs  int                       // size of packs, 16 KiB if it is 0
}

func newPatient(t *testing.T) *patient {
	p := &patient{t: t, dir: t.TempDir(), stores: map[string]backend.Backend{}}
	for _, name := range []string{"repo", "copy", "other", "drive", "away"} {
		if err := os.Mkdir(filepath.Join(p.dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		p.stores[name] = memory.New()
	}
	return p
}

func (p *patient) options() repo.Options {
	p.seed++
	o := repotest.Options(p.seed)
	o.Cost, o.Workers, o.Refresh, o.PackSize = cheap.Cost, 1, -1, cmp.Or(p.packs, 16<<10)
	o.Now = repotest.Clock(damageNow.Add(time.Duration(p.seed)*time.Hour), time.Second)
	if now := o.Now; p.jump != nil {
		o.Now = func() time.Time { return p.jump(now()) }
	}
	return o
}

// run runs a command in this process. Words in capitals are replaced by folders.
func (p *patient) run(line string) (code int, output string) {
	var out bytes.Buffer
	a := &app{stdin: strings.NewReader(""), stdout: &out, stderr: &out, options: p.options()}
	a.through = p.through
	args := []string{"-r", filepath.Join(p.dir, "repo")}
	for _, word := range fields(line) {
		if name := strings.ToLower(word); word != name && strings.ToUpper(word) == word {
			word = filepath.Join(p.dir, name)
		}
		args = append(args, word)
	}
	code = a.run(context.Background(), args)
	return code, strings.ReplaceAll(out.String(), p.dir+"/", "")
}

// through returns the store in the place of a folder, or that of the folder if there is none.
func (p *patient) through(dir string, be storage) storage {
	switch s := p.stores[filepath.Base(dir)].(type) {
	case nil:
		return be
	case storage:
		return s
	default:
		return memoryFolder{s}
	}
}

func (p *patient) must(line string) {
	p.t.Helper()
	if code, out := p.run(line); code != 0 {
		p.t.Fatalf("snap %s: exit code %d: %s", line, code, out)
	}
}

// newDamagePatient makes a repository that has a file of each kind.
func newDamagePatient(t *testing.T) *patient {
	t.Setenv("SNAP_PASSWORD", "pw")
	t.Setenv("SNAP_TO_PASSWORD", "pw")
	ctx := t.Context()
	p := newPatient(t)
	be := p.stores["repo"]
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	secret := []byte("pw")
	r, err := repo.Create(ctx, be, secret, crypto.SlotInfo{Kind: crypto.PasswordSlot}, p.options())
	must(err)
	_, err = r.AddKey(ctx, []byte("another"), crypto.SlotInfo{Kind: crypto.PasswordSlot})
	must(err)
	must(r.KeepDevicePassword(ctx, foldertest.UDID, []byte("of the phone")))
	must(r.LoadIndex(ctx))
	u, err := r.NewUnfinished(repo.UnfinishedBackup, "00008110-00000000000000FF")
	must(err)
	must(repotest.Receive(ctx, r, u, "dd/arrived", repotest.Noise(3, 3<<10)))
	for day := 1; day <= 2; day++ {
		p.must("import -q " + strings.ToUpper(p.backup(day)))
	}
	s, err := r.FindSnapshot(ctx, "latest")
	must(err)
	_, err = r.WriteCertificate(ctx, &repo.Certificate{Snapshot: s.FirstID(), Root: s.Root, Kind: repo.CertificateVerify, Level: repo.LevelQuick, Result: repo.ResultPassed})
	must(err)
	o, err := repo.Create(ctx, p.stores["other"], secret, crypto.SlotInfo{Kind: crypto.PasswordSlot}, p.options())
	must(err)
	must(o.LoadIndex(ctx))
	_, err = repo.Create(ctx, p.stores["away"], secret, crypto.SlotInfo{Kind: crypto.PasswordSlot}, p.options())
	must(err)
	p.must("copy -q --to AWAY")
	p.must("check -q --read-data")
	p.must("parity -q 50%")
	must(be.Put(ctx, repotest.ReserveName, repotest.Noise(4, 1000)))
	must(copyStore(be, p.stores["copy"]))
	p.backup(3)
	return p
}

// backup makes the backup folder of a day, and returns its name.
func (p *patient) backup(day int) string {
	name := fmt.Sprintf("day%d", day)
	if _, err := os.Stat(filepath.Join(p.dir, name)); err == nil {
		return name
	}
	m := foldertest.New(p.t)
	for i := 1; i <= day; i++ {
		m.Put("MediaDomain", fmt.Sprintf("v%d.mov", i), foldertest.Noise(byte(10+i), 300<<10))
	}
	m.Finish(day)
	if err := os.Rename(filepath.Dir(m.Dir), filepath.Join(p.dir, name)); err != nil {
		p.t.Fatal(err)
	}
	return name
}

func copyStore(from, to backend.Backend) error {
	ctx := context.Background()
	return from.List(ctx, "", func(f backend.Info) error {
		b, err := backend.ReadAll(ctx, from, f.Name, 1<<30)
		if err != nil {
			return err
		}
		return to.Put(ctx, f.Name, b)
	})
}

// damageKinds are the kinds of files. Where the files of a kind hold different things,
// the choice must not depend on their names, since these are hashes. Otherwise the file is
// the last one, by name. prepare, if not nil, makes it.
var damageKinds = []struct {
	name    string
	file    func(t *testing.T, be backend.Backend) string
	prepare func(p *patient)
}{
	{"config", inFolder("config"), nil},
	{"copy of config", inFolder("configs/"), nil},
	{"key", otherKey, nil},
	{"snapshot record", newestSnapshot, nil},
	{"file of the ledger", inFolder("ledger/"), nil},
	{"index file", largest("index/"), nil},
	{"pack of content", largest("packs/"), nil},
	{"pack of file lists", smallestPack, nil},
	{"backup password", inFolder("secrets/"), nil},
	{"unfinished backup", inFolder("runs/"), nil},
	{"certificate", inFolder("certificates/"), nil},
	{"log of checks", inFolder("checks/"), nil},
	{"parity", inFolder("parity/"), nil},
	{"prune list", inFolder("prunes/"), (*patient).leavePruneList},
	{"lock", inFolder("locks/"), (*patient).leaveLock},
	{"reserve", inFolder("reserve"), nil},
	{"interrupted repair", inFolder("healing/"), (*patient).leaveHealing},
}

func inFolder(prefix string) func(*testing.T, backend.Backend) string {
	return func(t *testing.T, be backend.Backend) string {
		for _, name := range slices.Backward(repotest.FilesIn(t, be, "")) {
			if strings.HasPrefix(name, prefix) && (strings.HasSuffix(prefix, "/") || name == prefix) {
				return name
			}
		}
		t.Fatalf("no file %s", prefix)
		return ""
	}
}

func largest(dir string) func(*testing.T, backend.Backend) string {
	return func(t *testing.T, be backend.Backend) (name string) {
		all, most := repotest.Content(t, be), 0
		for _, n := range repotest.FilesIn(t, be, dir) {
			if len(all[n]) > most {
				name, most = n, len(all[n])
			}
		}
		return name
	}
}

// smallestPack is the pack with the file list of the newest snapshot.
func smallestPack(t *testing.T, be backend.Backend) string {
	r, err := repotest.Open(t.Context(), be, []byte("pw"), repotest.Options(200))
	if err != nil {
		t.Fatal(err)
	}
	s, err := r.FindSnapshot(t.Context(), "latest")
	if err != nil {
		t.Fatal(err)
	}
	loc, _ := r.Index().Lookup(s.Root)
	return repotest.PackName(loc.Pack)
}

func newestSnapshot(t *testing.T, be backend.Backend) string {
	r, err := repotest.Open(t.Context(), be, []byte("pw"), repotest.Options(201))
	if err != nil {
		t.Fatal(err)
	}
	s, err := r.FindSnapshot(t.Context(), "latest")
	if err != nil {
		t.Fatal(err)
	}
	return repotest.SnapshotsDir + s.ID.String()
}

// otherKey is the key slot that the password does not open.
func otherKey(t *testing.T, be backend.Backend) string {
	r, err := repotest.Open(t.Context(), be, []byte("pw"), repotest.Options(202))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := r.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(keys, func(k repo.KeyInfo) bool { return !k.Current })
	return repotest.KeysDir + keys[i].ID.String()
}

// elsewhere is a process on another computer.
var elsewhere = process.Identity{Host: "nas", User: "anna", PID: 4711, Started: "12345", Boot: "1"}

func (p *patient) leaveLock() {
	o := p.options()
	o.Owner = &elsewhere
	r, err := repo.Open(p.t.Context(), p.stores["repo"], []byte("pw"), o)
	if err == nil {
		_, err = r.Lock(p.t.Context(), repo.LockWrite, "snap backup")
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *patient) leavePruneList() {
	p.must("import -q DAY3")
	p.leaveLock()
	p.must("forget -q --allow-last latest")
	p.run("prune -q --max-unused 0") // waits for the lock
	for _, name := range repotest.FilesIn(p.t, p.stores["repo"], "locks/") {
		repotest.Remove(p.t, p.stores["repo"], name)
	}
}

func (p *patient) leaveHealing() {
	be := p.stores["repo"]
	name := inFolder("packs/")(p.t, be)
	if err := be.Put(p.t.Context(), "healing/"+name, repotest.Content(p.t, be)[name]); err != nil {
		p.t.Fatal(err)
	}
}

// damageWays are the kinds of damage.
var damageWays = []string{"none", "missing", "empty", "cut", "one byte flipped", "16 bytes overwritten", "unreadable", "denied", "a folder", "foreign files beside"}

// hurt returns a damaged copy of a store.
func hurt(t *testing.T, base backend.Backend, name, way string) backend.Backend {
	ctx := context.Background()
	be := base.(*memory.Backend).Clone()
	b := repotest.Content(t, be)[name]
	set := func(b []byte) {
		if err := be.Set(name, b); err != nil {
			t.Fatal(err)
		}
	}
	switch way {
	case "missing":
		repotest.Remove(t, be, name)
	case "empty":
		set(nil)
	case "cut":
		set(b[:len(b)/2])
	case "one byte flipped":
		b = bytes.Clone(b)
		b[len(b)/2] ^= 0x10
		set(b)
	case "16 bytes overwritten":
		b = bytes.Clone(b)
		for i := len(b) / 2; i < min(len(b)/2+16, len(b)); i++ {
			b[i] ^= 0x10
		}
		set(b)
	case "unreadable":
		return fault.New(be, fault.Unreadable(name, syscall.EIO))
	case "denied":
		return fault.New(be, fault.Unreadable(name, syscall.EACCES))
	case "a folder":
		return withFolder(t, be, name)
	case "foreign files beside":
		dir, last := filepath.Split(name)
		for _, foreign := range []string{"desktop.ini", "._" + last, last + ".sync-conflict-20260301-080000-ABCDEFG", ".nfs000000000000000100000001", last + " (1)", "Thumbs.db"} {
			if backend.ValidName(dir+foreign) != nil {
				continue
			}
			if err := be.Put(ctx, dir+foreign, []byte("foreign")); err != nil {
				t.Fatal(err)
			}
		}
	}
	return be
}

// withFolder returns a copy of a store, on disk, in which a file has become a folder with a
// file in it.
func withFolder(t *testing.T, be backend.Backend, name string) backend.Backend {
	dir := t.TempDir()
	put := func(name string, b []byte) {
		t.Helper()
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, b, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	modified := map[string]time.Time{}
	if err := be.List(t.Context(), "", func(f backend.Info) error { modified[f.Name] = f.Modified; return nil }); err != nil {
		t.Fatal(err)
	}
	for file, b := range repotest.Content(t, be) {
		if file == name {
			continue
		}
		put(file, b)
		if err := os.Chtimes(filepath.Join(dir, filepath.FromSlash(file)), modified[file], modified[file]); err != nil {
			t.Fatal(err)
		}
	}
	put(name+"/content", []byte("somebody's"))
	disk, err := local.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = disk.Close() })
	return folderOnDisk{disk}
}

// triedCommand is a command that is run on a patient. given counts what comes back.
type triedCommand struct {
	title string
	line  string
	given func(p *patient) int
}

// damageCommands are the commands, in the order of the columns of the table.
var damageCommands = []triedCommand{
	{"snapshots", "snapshots", nil},
	{"show", "show latest", nil},
	{"ls", "ls latest", nil},
	{"diff", "diff FIRST latest", nil},
	{"stats", "stats", nil},
	{"check", "check", nil},
	{"check --read-data", "check --read-data", nil},
	{"verify", "verify --level full --all", nil},
	{"materialize", "materialize latest OUT", filesInOut},
	{"materialize --decrypt", "materialize --decrypt latest OUT", filesInOut},
	{"materialize the first", "materialize FIRST OUT", filesInOut},
	{"key list", "key list", nil},
	{"unlock", "unlock", nil},
	{"import", "import DAY3", wholeIn("repo")},
	{"tag", "tag --add kept latest", wholeIn("repo")},
	{"forget", "forget --keep-last 1", wholeIn("repo")},
	{"prune", "prune --max-unused 0", wholeIn("repo")},
	{"mirror", "mirror DRIVE", wholeIn("drive")},
	{"mirror --check", "mirror --check COPY", wholeIn("copy")},
	{"copy", "copy --to OTHER", wholeIn("other")},
	{"copy into it", "copy -r AWAY --to REPO", wholeIn("repo")},
	{"parity", "parity 50%", wholeIn("repo")},
	{"repair --from", "repair --from COPY", wholeIn("repo")},
	{"repair index", "repair index", wholeIn("repo")},
	{"repair packs", "repair packs", wholeIn("repo")},
	{"repair snapshots", "repair snapshots", wholeIn("repo")},
}

// cell runs a command on a damaged repository, and describes the outcome: the exit code,
// whether the file is named, and how much comes back. It also returns the output.
func (p *patient) cell(base map[string]backend.Backend, file, way string, command int) (cell, text string) {
	c := damageCommands[command]
	one := &patient{t: p.t, dir: p.dir, stores: map[string]backend.Backend{}, seed: 100}
	for name, be := range base {
		one.stores[name] = be.(*memory.Backend).Clone()
	}
	one.stores["repo"] = hurt(p.t, base["repo"], file, way)
	line := strings.Replace(c.line, "FIRST", firstSnapshot(p.t, base["repo"]), 1)
	defer os.RemoveAll(filepath.Join(p.dir, "out"))
	if d, ok := one.stores["repo"].(folderOnDisk); ok {
		defer os.RemoveAll(d.Dir())
		defer d.Backend.Close()
	}
	code, text := one.run(line)
	cell = fmt.Sprint(code)
	id := file[strings.LastIndexByte(file, '/')+1:]
	short := strings.HasPrefix(file, "keys/") && c.title == "key list" || strings.HasPrefix(file, "locks/")
	if strings.Contains(text, id) && c.title != "show" || strings.Contains(text, file) || len(id) == 64 && short && strings.Contains(text, id[:8]) {
		cell += " named"
	}
	if c.given != nil {
		cell += fmt.Sprintf(" %d", c.given(one))
	}
	return cell, text
}

func firstSnapshot(t *testing.T, be backend.Backend) string {
	r, err := repotest.Open(t.Context(), be, []byte("pw"), repotest.Options(203))
	if err != nil {
		t.Fatal(err)
	}
	list, _, err := r.Snapshots(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return list[0].ID.String()
}

// bases returns the stores for a kind of file.
func (p *patient) bases(kind int) map[string]backend.Backend {
	prepare := damageKinds[kind].prepare
	if prepare == nil {
		return p.stores
	}
	one := &patient{t: p.t, dir: p.dir, stores: map[string]backend.Backend{}, seed: 60}
	for name, be := range p.stores {
		one.stores[name] = be.(*memory.Backend).Clone()
	}
	prepare(one)
	return one.stores
}

// TestDamageMatrix damages a file of each kind in each way, and runs each command. The
// outcomes are in docs/damage.md; a sample of them is tried by default. They can be read
// as: nothing ends everything.
func TestDamageMatrix(t *testing.T) {
	p := newDamagePatient(t)
	doc := readDamageDoc(t)
	cells := len(damageKinds) * len(damageWays) * len(damageCommands)
	chosen := faultpoint.Choose(t, cells, 120)
	if *updateDamage {
		chosen = slices.Collect(func(yield func(int) bool) {
			for i := range cells {
				if !yield(i) {
					return
				}
			}
		})
		doc = map[string]string{}
	}
	bases := map[int]map[string]backend.Backend{}
	for _, i := range chosen {
		command, rest := i%len(damageCommands), i/len(damageCommands)
		way, kind := rest%len(damageWays), rest/len(damageWays)
		if bases[kind] == nil {
			bases[kind] = p.bases(kind)
		}
		file := damageKinds[kind].file(t, bases[kind]["repo"])
		key := damageKey(kind, way, command)
		got, text := p.cell(bases[kind], file, damageWays[way], command)
		if lines := p.missingLines(bases[kind], kind, way, command, file, text); len(lines) > 0 {
			t.Errorf("%s: lines are missing: %q", key, lines)
		}
		if *updateDamage {
			doc[key] = got
		} else if doc[key] != got {
			t.Errorf("%s: %s, but docs/damage.md has %q; \"go test ./cmd/snap -run TestDamageMatrix -update-damage\" writes it anew", key, got, doc[key])
		}
	}
	if *updateDamage {
		if err := os.WriteFile(damageDoc, []byte(damageText(doc)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func damageKey(kind, way, command int) string {
	return damageKinds[kind].name + " / " + damageWays[way] + " / " + damageCommands[command].title
}

var damageRow = regexp.MustCompile(`(?m)^\| (.*) \|$`)

// readDamageDoc reads the tables of docs/damage.md.
func readDamageDoc(t *testing.T) map[string]string {
	b, err := os.ReadFile(damageDoc)
	if err != nil && !*updateDamage {
		t.Fatal(err)
	}
	doc := map[string]string{}
	for kind := range damageKinds {
		_, table, _ := strings.Cut(string(b), "\n## "+damageKinds[kind].name+"\n")
		table, _, _ = strings.Cut(table, "\n## ")
		for _, row := range damageRow.FindAllStringSubmatch(table, -1) {
			cells := strings.Split(row[1], " | ")
			for command := range damageCommands {
				if cells[0] != damageCommands[command].title {
					continue
				}
				for way := range damageWays {
					if way+1 < len(cells) {
						doc[damageKey(kind, way, command)] = cells[way+1]
					}
				}
			}
		}
	}
	return doc
}

// damageText returns docs/damage.md.
func damageText(doc map[string]string) string {
	var b strings.Builder
	io.WriteString(&b, damageIntro)
	b.WriteString(exceptionsText())
	for kind := range damageKinds {
		fmt.Fprintf(&b, "\n## %s\n\n| command | %s |\n|%s\n", damageKinds[kind].name, strings.Join(damageWays, " | "), strings.Repeat("---|", len(damageWays)+1))
		for command := range damageCommands {
			fmt.Fprintf(&b, "| %s", damageCommands[command].title)
			for way := range damageWays {
				fmt.Fprintf(&b, " | %s", doc[damageKey(kind, way, command)])
			}
			b.WriteString(" |\n")
		}
	}
	return b.String()
}

const damageIntro = `# What each command does with a damaged file

One file of a repository is damaged in each of eight ways, or files of other programs are put
beside it, and each command is run. In the column "none" nothing is damaged; "denied" says that
permission to read the file is denied, "a folder" that a folder with a file in it has the file's
name. A cell has the exit code; "named" says that the output names the file. If a command writes
something, the last number counts what there is afterwards: for ` + "`materialize`" + ` the files that it wrote; for ` + "`copy`" + ` and ` + "`mirror`" + ` the
snapshots in the target that can be read completely; for all other commands those in the
repository. ` + "`TestDamageMatrix`" + ` of cmd/snap tries a sample of these cells, and with
SNAP_TEST_ALL=1 all of them; it writes this page with -update-damage.

The repository has two snapshots of one device, parity, two keys, a kept backup password
and an unfinished backup. A database of the device is damaged, which ` + "`verify`" + ` finds (exit
code 3). ` + "`repair --from`" + ` reads from an undamaged mirror of the repository. Before
the damage, both snapshots were copied from this repository to another one. ` + "`copy into it`" + `
copies them from there back into the damaged repository. Only the newest snapshot needs the
damaged packs; the pack of content holds one of its files. The damaged record is also that of
the newest snapshot, so ` + "`latest`" + ` then means the older one. Exit codes: 13 the repository is
damaged; 12 no key opens it; 11 it is locked; see [the guide](guide.md#exit-codes).

In no cell does one damaged file make everything fail. ` + "`TestDamageRules`" + ` verifies for each:

- Either the exit code is the same as without damage, or it is 13 and the file is named.
- Everything comes back that does not need the file: lists have all other lines (` + "`snapshots`" + `,
  ` + "`ls`" + `, ` + "`diff`" + `, ` + "`key list`" + `), all other files are written, and all other snapshots can be
  read completely.
- ` + "`snapshots`" + `, ` + "`key list`" + ` and all commands that change the repository do all of their work.
  The exit code of a repair is 13 if something is lost or stays damaged.
- ` + "`check --read-data`" + ` names every damaged file.
- Files of other programs change nothing.

These cells are exceptions:

`
