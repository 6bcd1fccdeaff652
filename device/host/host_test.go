package host

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/devicetest"
	"github.com/snap-backup/snap/device/protocol/backup2"
	"github.com/snap-backup/snap/device/simulator/faults"
	"github.com/snap-backup/snap/device/simulator/lab"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
	"github.com/snap-backup/snap/repo/tree"
)

// heard is an Observer that records its calls.
type heard struct {
	mu       sync.Mutex
	phases   []backup2.Phase
	warnings []string
	remarks  []string
	prompts  []bool
}

func (h *heard) Phase(p backup2.Phase) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.phases = append(h.phases, p)
}
func (h *heard) Progress(backup2.Progress) {}
func (h *heard) Warning(text string)       { h.warnings = append(h.warnings, text) }
func (h *heard) Remark(text string)        { h.remarks = append(h.remarks, text) }
func (h *heard) Prompt(on bool)            { h.prompts = append(h.prompts, on) }

// rig is a host and a device.
type rig struct {
	Host
	t      *testing.T
	lab    *devicetest.Lab
	device *lab.Device
}

func newRig(t *testing.T) *rig {
	t.Helper()
	return newRigWith(t, lab.Options{})
}

func newRigWith(t *testing.T, o lab.Options) *rig {
	t.Helper()
	o.Seed, o.PlainText = 1, true
	l := devicetest.NewLab(t, o)
	m, err := device.Open(l.Address)
	if err != nil {
		t.Fatal(err)
	}
	r, err := repo.Create(t.Context(), memory.New(), repotest.Secret, repotest.SlotInfo,
		repotest.Options(1))
	if err != nil {
		t.Fatal(err)
	}
	return &rig{Host: Host{Mux: m, Repo: r, LockDir: t.TempDir(), Name: "here", Program: "test", Now: time.Now, Random: rand.Reader},
		t: t, lab: l, device: l.Devices()[0]}
}

func (r *rig) entry() device.Entry {
	r.t.Helper()
	e, err := r.Mux.Find(r.t.Context(), r.device.UDID())
	if err != nil {
		r.t.Fatal(err)
	}
	return e
}

func (r *rig) do(line string) {
	r.t.Helper()
	r.lab.Run(r.t, line)
}

func (r *rig) noViolations() {
	r.t.Helper()
	devicetest.NoViolations(r.t, r.device)
}

func TestBackupPhasesAndRemarks(t *testing.T) {
	t.Parallel()
	r, o := newRig(t), &heard{}
	r.device.SetPasscode(true)
	res, err := r.Backup(t.Context(), r.entry(), BackupOptions{Tags: []string{"x"}}, o)
	if err != nil {
		t.Fatal(err)
	}
	if res.Parent != nil || res.Snapshot.Source.Kind != repo.FromDevice || res.Snapshot.Tags[0] != "x" || res.Snapshot.Host != "here" {
		t.Errorf("%+v", res.Snapshot)
	}
	want := []backup2.Phase{PhaseConnecting, PhaseConnecting, PhaseLocking, PhaseInfo, backup2.PhaseWaiting, backup2.PhasePreparing,
		backup2.PhaseReceiving, backup2.PhaseFinishing, backup2.PhaseVerifying, PhaseStoring}
	if len(o.phases) != len(want) {
		t.Fatalf("%q, want %q", o.phases, want)
	}
	for i, p := range want {
		if o.phases[i] != p {
			t.Errorf("phase %d is %q, want %q", i, o.phases[i], p)
		}
	}
	if len(o.remarks) != 3 || !strings.Contains(o.remarks[0], "does not encrypt") || !strings.Contains(o.remarks[2], "passcode") ||
		!strings.HasPrefix(o.remarks[1], r.device.Name()+" (iPhone 13, iOS 17.6.1): full backup, the first one; not encrypted by the device") {
		t.Errorf("remarks %q", o.remarks)
	}
	r.do("battery 1 5")
	r.do("free 1 1000")
	o = &heard{}
	if res, err = r.Backup(t.Context(), r.entry(), BackupOptions{}, o); err != nil || res.Parent == nil {
		t.Fatal(err)
	}
	if len(o.warnings) != 2 || len(o.remarks) != 2 || !strings.Contains(o.remarks[0], "incremental backup since snapshot "+res.Parent.ID.Short()) {
		t.Errorf("warnings %q, remarks %q", o.warnings, o.remarks)
	}
	r.noViolations()
}

// The error of an interrupted backup says how much is kept, and the device is
// free.
func TestInterruptedBackup(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.do("fault 1 manifests=wait 1s")
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for r.device.Agent.LastRun().Files < 131 {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	_, err := r.Backup(ctx, r.entry(), BackupOptions{}, &heard{})
	var broken *Interrupted
	if !errors.As(err, &broken) || !errors.Is(err, context.Canceled) {
		t.Fatalf("%v", err)
	}
	if broken.Kept.Files < 100 || !strings.Contains(err.Error(), "the next backup continues from there") {
		t.Errorf("%v: %+v", err, broken.Kept)
	}
	res, err := r.Backup(t.Context(), r.entry(), BackupOptions{}, &heard{})
	if err != nil {
		t.Fatal(err)
	}
	// The device sends again what it had sent but this side had not read.
	if again := r.device.Agent.LastRun().Resent; res.Resumed.Files != broken.Kept.Files || again > 131-int(broken.Kept.Files) {
		t.Errorf("resumed %+v, kept %+v, the device sent again %d", res.Resumed, broken.Kept, again)
	}
	if left, _, err := r.Repo.Unfinished(t.Context()); err != nil || len(left) > 0 {
		t.Errorf("%v is left: %v", left, err)
	}
	r.noViolations()
}

// An interrupted full backup is continued, even if a full one is asked for.
func TestInterruptedFullBackup(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if _, err := r.Backup(t.Context(), r.entry(), BackupOptions{}, &heard{}); err != nil {
		t.Fatal(err)
	}
	r.do("fault 1 moving=cut")
	if _, err := r.Backup(t.Context(), r.entry(), BackupOptions{Full: true}, &heard{}); err == nil {
		t.Fatal("it was not cut")
	}
	sent := r.device.Agent.LastRun().Files
	res, err := r.Backup(t.Context(), r.entry(), BackupOptions{Full: true}, &heard{})
	if err != nil {
		t.Fatal(err)
	}
	if again := r.device.Agent.LastRun().Files; sent < 100 || again > 0 || !res.Snapshot.Source.Full {
		t.Errorf("%d files were sent, then %d; %+v", sent, again, res.Snapshot.Source)
	}
	r.noViolations()
}

// A backup that the device calls damaged is dropped.
func TestDamagedBackupIsDropped(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.do("fault 1 verify=fail 205")
	_, err := r.Backup(t.Context(), r.entry(), BackupOptions{}, &heard{})
	if !errors.Is(err, backup2.ErrDamaged) {
		t.Fatal(err)
	}
	if left, _, err := r.Repo.Unfinished(t.Context()); err != nil || len(left) > 0 {
		t.Errorf("%v is left: %v", left, err)
	}
	if list, _, _ := r.Repo.Snapshots(t.Context()); len(list) > 0 {
		t.Errorf("%d snapshots", len(list))
	}
}

// What a device sends that creates more names than any backup has is dropped.
// Otherwise each later backup would continue it, and fail.
func TestFloodOfNamesIsDropped(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	flood := faults.Script{{At: faults.StepScan, Do: faults.Attack, Name: "endless-names", Bytes: 66000}}
	if err := r.device.Agent.SetScript(flood); err != nil {
		t.Fatal(err)
	}
	_, err := r.Backup(t.Context(), r.entry(), BackupOptions{}, &heard{})
	if !errors.Is(err, ErrTooManyNames) || !strings.Contains(err.Error(), "what it has sent was dropped") {
		t.Errorf("%v", err)
	}
	if left, _, err := r.Repo.Unfinished(t.Context()); err != nil || len(left) > 0 {
		t.Errorf("%v is left: %v", left, err)
	}
	res, err := r.Backup(t.Context(), r.entry(), BackupOptions{}, &heard{})
	if err != nil || res.Resumed.Files > 0 {
		t.Errorf("%+v, %v", res, err)
	}
}

// What was sent of it before can be stored; then nothing says that it was dropped.
func TestFloodOfNamesIsStoredAsIncomplete(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	flood := faults.Script{{At: faults.StepMoving, Do: faults.Attack, Name: "endless-names", Bytes: 66000}}
	if err := r.device.Agent.SetScript(flood); err != nil {
		t.Fatal(err)
	}
	res, err := r.Backup(t.Context(), r.entry(), BackupOptions{AllowIncomplete: true}, &heard{})
	if !errors.Is(err, ErrTooManyNames) || res == nil || strings.Contains(err.Error(), "dropped") {
		t.Errorf("%+v, %v", res, err)
	}
	if left, _, err := r.Repo.Unfinished(t.Context()); err != nil || len(left) > 0 {
		t.Errorf("%v is left: %v", left, err)
	}
}

// A full backup does not continue an interrupted one that was not asked to be full, so
// that it is a way out.
func TestFullStartsAfresh(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.do("fault 1 moving=cut")
	_, err := r.Backup(t.Context(), r.entry(), BackupOptions{}, &heard{})
	var broken *Interrupted
	if !errors.As(err, &broken) || broken.Kept.Files == 0 || strings.Contains(err.Error(), "--full") {
		t.Fatalf("%v", err)
	}
	r.do("fault 1 moving=cut")
	if _, err = r.Backup(t.Context(), r.entry(), BackupOptions{}, &heard{}); err == nil || !strings.Contains(err.Error(), `start afresh with "snap backup --full"`) {
		t.Errorf("%v", err)
	}
	// A full one that is interrupted is continued, whether asked to be full or not.
	for _, full := range []bool{true, true, false} {
		r.do("fault 1 moving=cut")
		_, err := r.Backup(t.Context(), r.entry(), BackupOptions{Full: full}, &heard{})
		if !errors.As(err, &broken) || broken.Kept.Files == 0 || strings.Contains(err.Error(), "--full") {
			t.Errorf("full %v: %v", full, err)
		}
	}
	res, err := r.Backup(t.Context(), r.entry(), BackupOptions{Full: true}, &heard{})
	if err != nil || res.Resumed.Files == 0 {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestOneAtATime(t *testing.T) {
	t.Parallel()
	h := Host{LockDir: t.TempDir()}
	release, err := h.claim("00008110-ABC")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.claim("00008110-abc"); !errors.Is(err, ErrInUse) {
		t.Errorf("%v", err)
	}
	other, err := h.claim("../../etc")
	if err != nil {
		t.Fatal(err)
	}
	other()
	release()
	if release, err = h.claim("00008110-ABC"); err != nil {
		t.Fatal(err)
	}
	release()
}

func TestRefusedRestores(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	res, err := r.Backup(t.Context(), r.entry(), BackupOptions{}, &heard{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ do, undo, want string }{
		{"ios 1 17.6.0", "ios 1 17.6.1", "older"},
		{"findmy 1 on", "findmy 1 off", "Find My"},
		{"battery 1 19", "battery 1 20", "connect it to power"},
	} {
		r.do(c.do)
		p, err := r.PlanRestore(t.Context(), r.entry(), res.Snapshot)
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Refusals) != 1 || !strings.Contains(p.Refusals[0], c.want) {
			t.Errorf("%s: %q", c.do, p.Refusals)
		}
		if _, err := r.Restore(t.Context(), p, RestoreOptions{}, &heard{}); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", c.do, err)
		}
		r.do(c.undo)
	}
	r.do("free 1 1000")
	short, err := r.PlanRestore(t.Context(), r.entry(), res.Snapshot)
	if err != nil || !errors.Is(short.Err(), ErrNoRoom) || !errors.Is(short.Err(), ErrRefused) {
		t.Errorf("%v, %v", short.Err(), err)
	}
	if _, err := r.Restore(t.Context(), short, RestoreOptions{}, &heard{}); !errors.Is(err, ErrNoRoom) {
		t.Error(err)
	}
	if short.IgnoreRoom(); short.Err() != nil || !strings.Contains(strings.Join(short.Notes, " "), "free storage") {
		t.Errorf("%v, %q", short.Err(), short.Notes)
	}
	r.do("free 1 60000000000")
	incomplete := *res.Snapshot
	incomplete.Complete = false
	incomplete.Bytes = 1 << 60
	p, err := r.PlanRestore(t.Context(), r.entry(), &incomplete)
	if err != nil || len(p.Refusals) != 1 || len(p.Damage) != 1 {
		t.Errorf("%q, %+v, %v", p.Refusals, p.Damage, err)
	}
	if runs := r.device.Agent.Runs(); len(runs) != 1 {
		t.Errorf("the device was asked for %d things", len(runs))
	}
	failed := &repo.Certificate{Snapshot: res.Snapshot.FirstID(), Root: res.Snapshot.Root, Kind: repo.CertificateVerify, Level: repo.LevelFull, Result: repo.ResultFailed,
		Findings: []repo.Finding{{Kind: "database", Consequence: repo.Damage, Text: "a database is damaged"}}}
	passed := *failed
	passed.Result, passed.Findings = repo.ResultPassed, nil
	if _, err := r.Repo.WriteCertificate(t.Context(), failed); err != nil {
		t.Fatal(err)
	}
	if p, err = r.PlanRestore(t.Context(), r.entry(), res.Snapshot); err != nil || !errors.Is(p.Err(), ErrDamaged) || !strings.Contains(p.Err().Error(), "a database is damaged") {
		t.Errorf("after a failed verify: %v, %v", p.Err(), err)
	}
	if p.IgnoreDamage(); p.Err() != nil {
		t.Error(p.Err())
	}
	passed.Time = failed.Time.Add(time.Second)
	if _, err := r.Repo.WriteCertificate(t.Context(), &passed); err != nil {
		t.Fatal(err)
	}
	if p, err = r.PlanRestore(t.Context(), r.entry(), res.Snapshot); err != nil || p.Err() != nil {
		t.Fatal(p.Err(), err)
	}
	if _, err := r.Restore(t.Context(), p, RestoreOptions{}, &heard{}); err != nil {
		t.Fatal(err)
	}
	r.noViolations()
}

// If a file has the name of the folder for the list of apps, the error names the command
// that works. The file stays.
func TestFileInPlaceOfAppList(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	res, err := r.Backup(t.Context(), r.entry(), BackupOptions{}, &heard{})
	if err != nil {
		t.Fatal(err)
	}
	if !r.device.WriteFile(restoreFolder, []byte("mine")) {
		t.Fatal("the file cannot be written")
	}
	p, err := r.PlanRestore(t.Context(), r.entry(), res.Snapshot)
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Restore(t.Context(), p, RestoreOptions{}, &heard{})
	var hint interface{ Hint() string }
	want := fmt.Sprintf("%q", "snap restore --skip-apps "+res.Snapshot.ID.Short())
	if !errors.As(err, &hint) || !strings.Contains(hint.Hint(), want) || !strings.Contains(err.Error(), "in the place of the folder /iTunesRestore") {
		t.Fatal(err)
	}
	// The device keeps its file, even if the restore fails.
	r.do("fault 1 begin=fail 208")
	if _, err := r.Restore(t.Context(), p, RestoreOptions{SkipApps: true}, &heard{}); err == nil {
		t.Error("the device did not fail")
	}
	if _, err := r.Restore(t.Context(), p, RestoreOptions{SkipApps: true}, &heard{}); err != nil {
		t.Error(err)
	}
	if b, _ := r.device.ReadFile(restoreFolder); string(b) != "mine" {
		t.Errorf("the file has become %q", b)
	}
	r.noViolations()
}

// Older programs wrote snapshot records that do not mention missing files. A restore
// of such a snapshot is refused, too.
func TestRestoreOfAnOldRecord(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	res, err := r.Backup(t.Context(), r.entry(), BackupOptions{}, &heard{})
	if err != nil {
		t.Fatal(err)
	}
	w := r.Repo.NewWriter(t.Context())
	defer w.Close()
	b := tree.NewBuilder(w.SaveNode, nil)
	err = r.Repo.Walk(t.Context(), res.Snapshot, "", func(e *tree.Entry) error {
		if strings.HasSuffix(e.Name, "sms.db") {
			return nil
		}
		return b.Add(t.Context(), e)
	})
	if err != nil {
		t.Fatal(err)
	}
	old := *res.Snapshot
	old.Findings = nil
	if old.Root, err = b.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(t.Context(), &old); err != nil {
		t.Fatal(err)
	}
	if err := r.Repo.LoadIndex(t.Context()); err != nil {
		t.Fatal(err)
	}
	p, err := r.PlanRestore(t.Context(), r.entry(), &old)
	if err != nil || !errors.Is(p.Err(), ErrDamaged) || !strings.Contains(p.Err().Error(), "Library/SMS/sms.db") {
		t.Errorf("%v, %v", p.Err(), err)
	}
	if runs := r.device.Agent.Runs(); len(runs) != 1 {
		t.Errorf("the device was asked for %d things", len(runs))
	}
}

// A failed restore leaves no list of apps on the device. The error is
// ErrHalfRestored only if the device had begun.
func TestRestoreFails(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	res, err := r.Backup(t.Context(), r.entry(), BackupOptions{}, &heard{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := r.PlanRestore(t.Context(), r.entry(), res.Snapshot)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		fault string
		half  bool
	}{
		{"begin=fail 208", false},
		{"files:2=fail 102", true},
		{"begin=fail 208", false}, // the same plan can be used for the next restore
	} {
		fault, half := test.fault, test.half
		r.do("fault 1 " + fault)
		_, err := r.Restore(t.Context(), p, RestoreOptions{}, &heard{})
		var failed *backup2.DeviceError
		if !errors.As(err, &failed) || errors.Is(err, ErrHalfRestored) != half {
			t.Errorf("%s: %v", fault, err)
		}
		if _, ok := r.device.ReadFile(restoreApps); ok {
			t.Errorf("%s: the list of apps is still there", fault)
		}
	}
	if r.device.Agent.LastRun().Steps[0] != faults.StepBegin {
		t.Error("nothing was begun")
	}
}

func TestCompareVersions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b string
		want int
	}{{"17.5.1", "17.5.1", 0}, {"17.5", "17.5.0", 0}, {"9.3.5", "10.0", -1}, {"17.10", "17.9.9", 1}, {"", "1", -1}, {"x", "", 0}} {
		if got := compareVersions(c.a, c.b); got != c.want {
			t.Errorf("%q and %q: %d, want %d", c.a, c.b, got, c.want)
		}
		if got := compareVersions(c.b, c.a); got != -c.want {
			t.Errorf("%q and %q: %d, want %d", c.b, c.a, got, -c.want)
		}
	}
}
