package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/devicetest"
	"github.com/snap-backup/snap/device/simulator"
	"github.com/snap-backup/snap/device/simulator/devicefiles"
	"github.com/snap-backup/snap/device/simulator/lab"
	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// deviceCommand is a command that talks with a device, or is about one.
type deviceCommand struct {
	triedCommand
	base   string           // what its repository has; see newDeviceRig
	before func(p *patient) // what happens first
	sends  *lab.Device      // the device whose content its latest snapshot must have at the end
	again  int              // exit code of a run after a complete one
}

// deviceRig has devices and repositories on which commands are tried.
type deviceRig struct {
	*patient
	lab                     *devicetest.Lab
	plain, encrypted, spare *lab.Device
	empty                   devicefiles.Source // the content of spare before a restore
	bases                   map[string]backend.Backend
}

// newDeviceRig makes repositories with the backups of no day, and of the first day, of
// two devices that are a day older.
func newDeviceRig(t *testing.T) *deviceRig {
	t.Setenv("SNAP_PASSWORD", "pw")
	t.Setenv("SNAP_NEW_BACKUP_PASSWORD", "of another day")
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("SNAP_BACKUP_PASSWORD", synthetic.DefaultPassword)
	g := &deviceRig{patient: newPatient(t), bases: map[string]backend.Backend{}}
	g.lab = devicetest.NewLab(t, lab.Options{Seed: 3, Devices: 2, Encrypt: synthetic.EncryptAlternate, Clock: func() time.Time { return damageNow }})
	t.Setenv(device.AddressVariable, g.lab.Address)
	spare, err := g.lab.AddSpare(t.Context(), simulator.Spec{ProductType: "iPhone17,1", ProductVersion: "18.5", BuildVersion: "22F76"})
	if err != nil {
		t.Fatal(err)
	}
	g.plain, g.encrypted, g.spare, g.empty = g.lab.Devices()[0], g.lab.Devices()[1], spare, spare.Agent.Content()
	be := g.stores["repo"]
	if _, err := repo.Create(t.Context(), be, []byte("pw"), crypto.SlotInfo{Kind: crypto.PasswordSlot}, g.options()); err != nil {
		t.Fatal(err)
	}
	keep := func(name string) { g.bases[name] = be.(*memory.Backend).Clone() }
	keep("empty")
	g.must("backup -q anna")
	g.must("backup -q --keep-backup-password büro")
	keep("one day")
	if err := g.lab.NextDay(t.Context()); err != nil {
		t.Fatal(err)
	}
	return g
}

// commands returns the commands to try.
func (g *deviceRig) commands() []deviceCommand {
	whole, restored := wholeIn("repo"), func(*patient) int { return g.restored() }
	restore := "restore --yes --remove-items-not-restored --system-files --device spare "
	return []deviceCommand{
		{triedCommand: triedCommand{"first backup", "backup anna", whole}, base: "empty", sends: g.plain},
		{triedCommand: triedCommand{"first encrypted backup", "backup büro", whole}, base: "empty", sends: g.encrypted},
		{triedCommand: triedCommand{"backup", "backup anna", whole}, base: "one day", sends: g.plain},
		{triedCommand: triedCommand{"encrypted backup", "backup büro", whole}, base: "one day", sends: g.encrypted},
		{triedCommand: triedCommand{"continued backup", "backup anna", whole}, base: "one day", before: g.cut("anna"), sends: g.plain},
		{triedCommand: triedCommand{"continued encrypted backup", "backup büro", whole}, base: "one day", before: g.cut("büro"), sends: g.encrypted},
		{triedCommand: triedCommand{"restore", restore + "latest:anna", restored}, base: "one day"},
		{triedCommand: triedCommand{"encrypted restore", restore + "latest:büro", restored}, base: "one day"},
		{triedCommand: triedCommand{"drill", "drill latest:anna", passedIn}, base: "one day"},
		{triedCommand: triedCommand{"encrypted drill", "drill latest:büro", passedIn}, base: "one day"},
		{triedCommand: triedCommand{"drill --to", "drill --to OUT latest:büro", passedIn}, base: "one day"},
		{triedCommand: triedCommand{"verify --level quick", "verify --level quick --all", passedIn}, base: "one day"},
		{triedCommand: triedCommand{"verify --level full", "verify --level full --all", passedIn}, base: "one day"},
		{triedCommand: triedCommand{"device password set", "device password set büro", keptIn}, base: "one day"},
		{triedCommand: triedCommand{"device password test", "device password test büro", nil}, base: "one day"},
		{triedCommand: triedCommand{"device password forget", "device password forget büro", func(p *patient) int { return -keptIn(p) }}, base: "one day"},
		{triedCommand: triedCommand{"device encryption on", "device encryption on anna", g.knows(g.plain)}, base: "one day", again: exitUnfit},
		{triedCommand: triedCommand{"device encryption change", "device encryption change büro", g.knows(g.encrypted)}, base: "one day", again: exitWrongBackup},
		{triedCommand: triedCommand{"forget --unfinished", "forget --unfinished anna", func(p *patient) int { return -unfinishedIn(p) }}, base: "one day", before: g.cut("anna"), again: exitNoSnapshot},
		{triedCommand: triedCommand{"show", "show latest:anna", nil}, base: "one day"},
		{triedCommand: triedCommand{"devices", "devices", nil}, base: "one day"},
	}
}

// cut returns a function that breaks a backup of a device off.
func (g *deviceRig) cut(name string) func(p *patient) {
	return func(p *patient) {
		g.lab.Run(p.t, "fault "+name+" @900000=cut")
		if code, out := p.run("backup " + name); code != exitLinkLost {
			p.t.Fatalf("exit code %d: %s", code, out)
		}
		if unfinishedIn(p) != 1 {
			p.t.Fatal("no unfinished backup")
		}
	}
}

// reset puts the devices into their first state, and removes what a backup that failed has
// kept on this computer: backups of all points have the same random IDs.
func (g *deviceRig) reset() {
	g.endFaults()
	if err := os.RemoveAll(os.Getenv("XDG_CACHE_HOME")); err != nil {
		g.t.Fatal(err)
	}
	for _, d := range g.lab.Devices() {
		d.Agent.Forget()
	}
	g.spare.Agent.SetContent(g.empty)
	g.plain.Agent.SetPassword("")
	g.encrypted.Agent.SetPassword(synthetic.DefaultPassword)
}

// restored returns 1 if spare has got a snapshot.
func (g *deviceRig) restored() int {
	if g.spare.Agent.Content() == g.empty {
		return 0
	}
	return 1
}

func (p *patient) opened() *repo.Repo {
	r, err := repotest.Open(context.Background(), p.stores["repo"], []byte("pw"), repotest.Options(205))
	if err != nil {
		p.t.Fatal(err)
	}
	return r
}

// passedIn counts the certificates that say that a snapshot passed.
func passedIn(p *patient) (n int) {
	list, _, err := p.opened().Certificates(context.Background())
	if err != nil {
		p.t.Fatal(err)
	}
	for _, c := range list {
		if c.Result == repo.ResultPassed {
			n++
		}
	}
	return n
}

// keptIn counts the backup passwords that the repository keeps.
func keptIn(p *patient) int { return len(repotest.FilesIn(p.t, p.stores["repo"], "secrets/")) }

func unfinishedIn(p *patient) int {
	list, _, err := p.opened().Unfinished(context.Background())
	if err != nil {
		p.t.Fatal(err)
	}
	return len(list)
}

// knows returns a function that returns 1 if the repository keeps the password that a
// device has been given.
func (g *deviceRig) knows(d *lab.Device) func(p *patient) int {
	return func(p *patient) int {
		kept, err := p.opened().DevicePasswords(context.Background(), d.UDID())
		if err != nil {
			p.t.Fatal(err)
		}
		has := d.Agent.Password()
		if has == os.Getenv("SNAP_NEW_BACKUP_PASSWORD") && slices.ContainsFunc(kept, func(k repo.DevicePassword) bool { return string(k.Password) == has }) {
			return 1
		}
		return 0
	}
}

// begin returns a patient that is ready for a command.
func (g *deviceRig) begin(c *deviceCommand) *patient {
	g.reset()
	one := g.fork(map[string]backend.Backend{"repo": g.bases[c.base]})
	if c.before != nil {
		c.before(one)
		g.endFaults()
	}
	return one
}

// endFaults ends the faults of the devices.
func (g *deviceRig) endFaults() {
	for _, d := range g.lab.Devices() {
		if err := d.Agent.SetScript(nil); err != nil {
			g.t.Fatal(err)
		}
	}
}

// TestDeviceCommandsSurviveStorageFaults runs each command with a device while an operation
// of the repository fails. Whatever the command says then, no snapshot is lost or damaged.
// If a backup says that all is well, the snapshot has all that is on the device; a restore
// says what it has done to the device; and without the fault the next run ends as it should.
func TestDeviceCommandsSurviveStorageFaults(t *testing.T) {
	g := newDeviceRig(t)
	commands := g.commands()
	type point struct{ command, at int }
	var points []point
	whole := make([]outcome, len(commands))
	for _, i := range faultpoint.Sample(t, len(commands), 4) {
		c, f := &commands[i], &faultRun{}
		one := g.begin(c)
		var text string
		whole[i], text = one.runWith(f, c.triedCommand)
		if whole[i].code != exitOK {
			t.Fatalf("%s: exit code %d\n%s", c.title, whole[i].code, text)
		}
		t.Logf("%s: %d operations, %+v", c.title, f.n, whole[i])
		for at := range f.n {
			points = append(points, point{i, at + 1})
		}
	}
	rng := faultpoint.Rand(t)
	for _, i := range faultpoint.Sample(t, len(points), 6) {
		at := points[i]
		c := &commands[at.command]
		f := &faultRun{at: at.at, way: rng.IntN(len(storageFaults)), stays: rng.IntN(2) == 0}
		one := g.begin(c)
		got, text := one.runWith(f, c.triedCommand)
		if err := g.survived(one, f, c, got, whole[at.command], text); err != nil {
			t.Errorf("%s: %v: exit code %d: %v\n%s", c.title, f, got.code, err, text)
		}
	}
}

// survived returns an error if a command that met a fault, or its next run, did not end as
// it should.
func (g *deviceRig) survived(p *patient, f *faultRun, c *deviceCommand, got, whole outcome, text string) error {
	if err := toldOf(f.found, got, whole, text); err != nil {
		return err
	}
	if strings.Contains(c.line, "restore") {
		if err := g.tellsState(got, text); err != nil {
			return err
		}
	}
	if bad := repotest.DamagedFiles(p.t, p.stores["repo"]); len(bad) > 0 {
		return fmt.Errorf("files have become damaged: %v", bad)
	}
	repotest.RemoveAllLocks(p.stores["repo"].(*memory.Backend))
	if n, least := wholeIn("repo")(p), wholeIn("repo")(g.fork(map[string]backend.Backend{"repo": g.bases[c.base]})); n < least {
		return fmt.Errorf("only %d of %d snapshots can be read afterwards", n, least)
	}
	if c.sends != nil && got.code == exitOK {
		if err := g.hasContent(p, c.sends); err != nil {
			return err
		}
	}
	if code, out := p.run("check --read-data"); code != 0 {
		return fmt.Errorf("check has exit code %d:\n%s", code, out)
	}
	if g.restored() == 0 { // a device that has been restored to may be full
		if code, out := p.run("restore --dry-run --device spare latest"); code != 0 && c.base != "empty" {
			return fmt.Errorf("then a restore has exit code %d:\n%s", code, out)
		}
	}
	return g.runAgain(p, c, got, whole, text)
}

// toldOf returns an error if a command that met a fault claims that all is well, or
// does not name the file.
func toldOf(found fault.Call, got, whole outcome, text string) error {
	file := strings.TrimSuffix(found.Name, "/")
	dir := repotest.Folder(found.Name)
	switch {
	case got.code == whole.code && got.given >= whole.given:
		return nil
	case got.code == whole.code && dir == "certificates" && (strings.Contains(text, "no certificate is stored") || strings.Contains(text, "keeps no certificate")):
		return nil
	case got.code == whole.code:
		return fmt.Errorf("it ends as without the fault, but %d come back instead of %d", got.given, whole.given)
	case (got.code == exitDamaged || got.code == exitUnfit) && dir == "packs" && strings.Contains(text, "the repository has lost"):
		return nil // it names the files of the backup
	case !strings.Contains(text, file[strings.LastIndexByte(file, '/')+1:]):
		return fmt.Errorf("%q is not named", found.Name)
	}
	return nil
}

// runAgain runs a command again without a fault.
func (g *deviceRig) runAgain(p *patient, c *deviceCommand, got, whole outcome, text string) error {
	if strings.Contains(text, "does not keep it") { // the new password; the advice helps
		g.t.Setenv("SNAP_BACKUP_PASSWORD", os.Getenv("SNAP_NEW_BACKUP_PASSWORD"))
		defer g.t.Setenv("SNAP_BACKUP_PASSWORD", synthetic.DefaultPassword)
		code, out := p.run("device password set --untested " + c.line[strings.LastIndexByte(c.line, ' ')+1:])
		if code != 0 || c.given(p) < whole.given {
			return fmt.Errorf("storing the password has exit code %d:\n%s", code, out)
		}
		return nil
	}
	again, out := p.runWith(&faultRun{}, c.triedCommand)
	if got.given == whole.given && c.again != exitOK && again.code == c.again {
		return nil
	}
	if again.code != whole.code || again.given < whole.given {
		return fmt.Errorf("the next run ends with %+v instead of %+v:\n%s", again, whole, out)
	}
	if c.sends != nil {
		return g.hasContent(p, c.sends)
	}
	return nil
}

// tellsState returns an error if a restore does not say what it has done to the device.
func (g *deviceRig) tellsState(got outcome, text string) error {
	unchanged := strings.Contains(text, "nothing on the device was changed") || strings.Contains(text, "the device was not changed") || strings.Contains(text, "nothing of snapshot")
	switch {
	case got.code == exitOK:
		return nil
	case got.code == exitHalfRestored && !unchanged && strings.Contains(text, "the device may have part of it"):
		return nil
	case unchanged && got.given == 0:
		return nil
	}
	return fmt.Errorf("it does not say in which state the device is (restored: %d)", got.given)
}

// hasContent returns an error if the latest snapshot of a device differs from its content.
func (g *deviceRig) hasContent(p *patient, d *lab.Device) error {
	defer os.RemoveAll(filepath.Join(p.dir, "out"))
	if code, out := p.run("materialize latest:" + strings.ToLower(d.UDID()) + " OUT"); code != 0 {
		return fmt.Errorf("materialize has exit code %d:\n%s", code, out)
	}
	entries, err := os.ReadDir(filepath.Join(p.dir, "out"))
	if err != nil {
		return err
	}
	differences, err := devicefiles.Verify(context.Background(), d.Agent.Content(), filepath.Join(p.dir, "out", entries[0].Name()), []byte(synthetic.DefaultPassword))
	if err == nil && len(differences) > 0 {
		err = fmt.Errorf("the latest snapshot differs from the device: %s", strings.Join(differences, "; "))
	}
	return err
}

// TestBackupSurvivesJumpsOfTheClock lets the clock of the computer jump in the middle of a
// backup. The backup is stored, and counts as the latest one.
func TestBackupSurvivesJumpsOfTheClock(t *testing.T) {
	g := newDeviceRig(t)
	commands := g.commands()[:6]
	type point struct{ command, at int }
	var points []point
	for _, i := range faultpoint.Sample(t, len(commands), 1) {
		_, n, _ := g.begin(&commands[i]).runJumping(commands[i].triedCommand, 0, 0)
		t.Logf("%s: %d readings", commands[i].title, n)
		for at := range n {
			points = append(points, point{i, at + 1})
		}
	}
	rng := faultpoint.Rand(t)
	for _, i := range faultpoint.Sample(t, len(points), 3) {
		at, jump := points[i], clockJumps[rng.IntN(len(clockJumps))]
		c := &commands[at.command]
		one := g.begin(c)
		got, _, text := one.runJumping(c.triedCommand, at.at, jump)
		err := g.survived(one, &faultRun{}, c, got, outcome{given: got.given}, text)
		if err != nil || got.code != exitOK {
			t.Errorf("%s: jump of %v at reading %d: exit code %d: %v\n%s", c.title, jump, at.at, got.code, err, text)
		}
	}
}

// TestDeviceCommandsTellOfFaults lets certain operations of a repository fail, and looks
// at what the commands say.
func TestDeviceCommandsTellOfFaults(t *testing.T) {
	g := newDeviceRig(t)
	records := repotest.FilesIn(t, g.bases["one day"], "snapshots/")
	noRecord := fault.Unreadable(records[0], syscall.EIO)
	name := records[0][len("snapshots/"):]
	fails := func(op fault.Op, dir string) fault.Plan {
		return func(c fault.Call) fault.Action {
			if c.Op == op && strings.HasPrefix(c.Name, dir) {
				return fault.Action{Before: syscall.EACCES}
			}
			return fault.Action{}
		}
	}
	for _, tt := range []struct {
		line string
		plan fault.Plan
		code int
		says string
	}{
		{"devices", noRecord, exitOK, name},
		{"backup anna", noRecord, exitOK, name},
		{"verify", noRecord, exitDamaged, "1 snapshot: not verified, since the record cannot be read"},
		{"verify --all", noRecord, exitDamaged, name},
		{"verify " + records[1][len("snapshots/"):][:8], noRecord, exitOK, name},
		{"device password test nobody", noRecord, exitNoSnapshot, name},
		{"device encryption on anna", fails(fault.Put, "secrets/"), exitPartial, `store it with "snap device password set ` + g.plain.UDID() + `"`},
		{"restore --yes --device spare latest", fails(fault.List, "prunes/"), exitOK, "restored snapshot"},
		{"restore --yes --device spare latest", fails(fault.List, "index/"), exitError, "nothing on the device was changed; on macOS"},
		{"drill latest:anna", fails(fault.ReadAt, "packs/"), exitDamaged, "packs/"},
	} {
		g.reset()
		one := g.fork(map[string]backend.Backend{"repo": g.bases["one day"]})
		inner := one.stores["repo"]
		one.stores["repo"] = fault.New(inner, tt.plan)
		if code, out := one.run(tt.line); code != tt.code || !strings.Contains(out, tt.says) {
			t.Errorf("%s: exit code %d, want %d and %q:\n%s", tt.line, code, tt.code, tt.says, out)
		}
	}
}

// TestRestoreAfterAFailedDrill restores a snapshot that a drill could not read: what it has
// found is about the disk at that time.
func TestRestoreAfterAFailedDrill(t *testing.T) {
	g := newDeviceRig(t)
	one := g.begin(&deviceCommand{base: "one day"})
	inner := one.stores["repo"]
	reads := 0
	one.stores["repo"] = fault.New(inner, func(c fault.Call) fault.Action {
		if c.Op == fault.ReadAt && repotest.Folder(c.Name) == "packs" {
			if reads++; reads > 8 { // the file list and the manifest can be read
				return fault.Action{Before: syscall.EACCES}
			}
		}
		return fault.Action{}
	})
	if code, out := one.run("drill latest:anna"); code != exitDamaged || !strings.Contains(out, "certificate ") {
		t.Fatalf("the drill has exit code %d:\n%s", code, out)
	}
	one.stores["repo"] = inner
	if code, out := one.run("restore --yes --device spare latest:anna"); code != exitOK || g.restored() != 1 {
		t.Errorf("the restore has exit code %d:\n%s", code, out)
	}
}

// TestVerifyBlamesTheRepository makes one pack unreadable while a backup is verified. That is
// damage of the repository and not of the backup: it does not hinder a restore later on.
func TestVerifyBlamesTheRepository(t *testing.T) {
	g := newDeviceRig(t)
	packs, levels := repotest.FilesIn(t, g.bases["one day"], "packs/"), []string{"quick", "full"}
	needed := 0
	for _, i := range faultpoint.Sample(t, len(packs)*len(levels), 6) {
		name, level := packs[i/len(levels)], levels[i%len(levels)]
		one := g.begin(&deviceCommand{base: "one day"})
		inner := one.stores["repo"]
		one.stores["repo"] = fault.New(inner, fault.Unreadable(name, syscall.EACCES))
		switch code, out := one.run("verify --level " + level); {
		case code == exitDamaged:
			needed++
		case code != exitOK: // no snapshot needs what the device has sent twice
			t.Errorf("%s: exit code %d:\n%s", name, code, out)
		}
		one.stores["repo"] = inner
		for _, d := range []string{"anna", "büro"} {
			if code, out := one.run("restore --dry-run --device spare latest:" + d); code != exitOK {
				t.Errorf("%s: then a restore has exit code %d:\n%s", name, code, out)
			}
		}
	}
	if faultpoint.All() && needed < 10 {
		t.Errorf("only %d verifications have found damage", needed)
	}
}
