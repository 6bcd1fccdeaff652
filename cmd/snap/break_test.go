package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/simulator"
	"github.com/snap-backup/snap/device/simulator/devicefiles"
	"github.com/snap-backup/snap/device/simulator/faults"
	"github.com/snap-backup/snap/device/simulator/lab"
	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/internal/faultpoint"
)

// breaks backs up a device day by day, each time in a new process, and interrupts
// these processes. The snapshot of a second device must not change.
type breaks struct {
	*shell
	lab       *lab.Lab
	device    *lab.Device
	guard     string // folder with the materialized snapshot of the second device
	encrypted bool
	records   devicefiles.Source // content of the device on the previous day

	fill, free func() // fill and empty the disk
	spool      string // spool folder; empty for the default one

	mu   sync.Mutex
	step faults.Step
	then func() // called once, while the device waits at the step
}

func newBreaks(t *testing.T, s *shell, encrypt synthetic.Encryption) *breaks {
	t.Helper()
	b := &breaks{shell: s, encrypted: encrypt != synthetic.EncryptNone}
	s.env = append(s.env, "SNAP_BACKUP_PASSWORD="+synthetic.DefaultPassword)
	b.lab = s.lab(lab.Options{Seed: 14, Encrypt: encrypt, On: b.on})
	b.device = b.lab.Devices()[0]
	other, err := b.lab.AddSpare(t.Context(), simulator.Spec{})
	if err != nil {
		t.Fatal(err)
	}
	s.run(0, "backup", other.UDID())
	b.guard = filepath.Join(t.TempDir(), "guard")
	s.run(0, "materialize", "latest", b.guard)
	s.run(0, "backup", b.device.UDID())
	return b
}

func (b *breaks) on(e lab.Event) {
	if e.What != lab.EventStep {
		return
	}
	b.mu.Lock()
	var then func()
	if e.Text == string(b.step) || b.step == faults.StepBegin && strings.HasSuffix(e.Text, " begins") {
		then, b.then, b.step = b.then, nil, ""
	}
	b.mu.Unlock()
	if then != nil {
		then()
	}
}

// atStep makes the device call a function when it next reaches a step.
func (b *breaks) atStep(step faults.Step, then func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.step, b.then = step, then
}

// sends returns how many bytes the device has to send in its next backup.
func (b *breaks) sends(full bool) (sum int64) {
	b.t.Helper()
	now, err := b.device.Agent.Content().Records(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	before, err := b.records.Records(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	for _, rec := range now.All() {
		if !rec.IsFile() || !rec.HasFileID {
			continue
		}
		if i, ok := before.ByFileID(rec.FileID); ok && !full {
			old := before.At(i)
			if old.ModTime == rec.ModTime && old.ChangeTime == rec.ChangeTime && old.Size == rec.Size && old.Inode == rec.Inode {
				continue
			}
		}
		// Some files are shorter than their rows in the manifest say.
		f, err := b.device.Agent.Content().Open(&rec)
		if err != nil {
			b.t.Fatal(err)
		}
		size, err := io.Copy(io.Discard, f)
		if err = errors.Join(err, f.Close()); err != nil {
			b.t.Fatal(err)
		}
		if b.encrypted && !rec.Dataless() {
			size += 16 - size%16
		}
		sum += size
	}
	return sum
}

// child is a running backup.
type child struct {
	cmd   *exec.Cmd
	out   *bytes.Buffer
	ended chan struct{}
}

func (b *breaks) start(args ...string) *child {
	b.t.Helper()
	p := &child{ended: make(chan struct{})}
	p.cmd, p.out = b.command(args...)
	if err := p.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	go func() { _ = p.cmd.Wait(); close(p.ended) }()
	return p
}

func (p *child) end(s os.Signal) {
	_ = p.cmd.Process.Signal(s)
	<-p.ended
}

// ids returns the IDs of all snapshots.
func (b *breaks) ids() (out []string) {
	b.t.Helper()
	var list []struct {
		ID string `json:"id"`
	}
	b.json(&list, "snapshots")
	for _, s := range list {
		out = append(out, s.ID)
	}
	return out
}

// breakage is how a backup is interrupted.
type breakage struct {
	how  string      // cut, kill, interrupt or full
	step faults.Step // step to interrupt at; empty to interrupt after a part of the bytes
	part float64     // that part, between 0 and 1
}

func (k breakage) String() string {
	if k.step != "" {
		return fmt.Sprintf("%s at %s", k.how, k.step)
	}
	return fmt.Sprintf("%s after %.0f %%", k.how, 100*k.part)
}

// play interrupts a backup of the next day, checks the repository, and runs the next
// backup. It returns the number of bytes that the device sent twice.
func (b *breaks) play(k breakage, full bool) (again int64) {
	t := b.t
	t.Helper()
	b.records = b.device.Agent.Content()
	if err := b.lab.NextDay(t.Context()); err != nil {
		t.Fatal(err)
	}
	before, needed := b.ids(), b.sends(full)
	args := []string{"backup", b.device.UDID()}
	if full {
		args = append(args, "--full")
	}
	spools := filepath.Join(b.cache, "snap", "spool")
	if b.spool != "" {
		spools = b.spool
		args = append(args, "--spool-dir", spools)
	}
	// An encrypted backup needs no checkpoints to survive a kill.
	checkpoint := append(slices.Clone(args), "--checkpoint", "256K")
	if b.encrypted {
		checkpoint = args
	}
	runs := len(b.device.Agent.Runs())
	var p *child
	var at string
	if k.step != "" {
		at = string(k.step)
	} else {
		// Besides these files, both sides send manifests and messages: about 600 KiB.
		at = "@" + strconv.FormatInt(1+int64(k.part*float64(needed+600<<10)), 10)
	}
	switch {
	case k.how == "cut":
		if _, err := b.lab.Do(t.Context(), "fault 1 "+at+"=cut"); err != nil {
			t.Fatal(err)
		}
		p = b.start(checkpoint...)
	case k.how == "full":
		filled := false // not every step is reached; near the end the spool needs no more room
		b.atStep(k.step, func() { filled = true; b.fill() })
		p = b.start(checkpoint...)
		<-p.ended
		b.free()
		if code := p.cmd.ProcessState.ExitCode(); filled && code != exitNoSpace && (code != 0 || b.spool == "") {
			t.Errorf("%s: exit code %d, want %d\n%s", k, code, exitNoSpace, p.out)
		}
	case k.step != "":
		started := make(chan struct{})
		b.atStep(k.step, func() {
			<-started
			p.end(signalOf(k.how))
		})
		p = b.start(checkpoint...)
		close(started)
	default:
		p = b.start(checkpoint...)
		stop := int64(k.part * float64(needed))
		waitFor(t, func() bool {
			select {
			case <-p.ended:
				return true
			default:
			}
			list := b.device.Agent.Runs()
			return len(list) > runs && list[len(list)-1].Bytes >= stop
		})
		p.end(signalOf(k.how))
	}
	<-p.ended
	b.atStep("", nil)
	if err := b.device.Agent.SetScript(nil); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { r := b.device.Agent.LastRun(); return r.Err != "" || r.Code >= 0 })
	after := b.ids()
	if p.cmd.ProcessState.ExitCode() == 0 {
		needed = 0 // the backup ended before the interruption
		before = after
	}
	if !slices.Equal(before, after) {
		t.Fatalf("%s: snapshots %q, before %q\n%s", k, after, before, p.out)
	}
	b.run(0, "check", "--read-data")
	b.run(0, args...)
	var sent int64
	list := b.device.Agent.Runs()
	for _, r := range list[runs:] {
		sent += r.Bytes
	}
	if now := b.ids(); len(now) != len(after)+1 {
		t.Fatalf("%s: %d snapshots, before %d", k, len(now), len(after))
	}
	target := filepath.Join(t.TempDir(), "out")
	b.run(0, "materialize", "latest", target)
	holds(t, b.device, onlyChild(t, target))
	_ = os.RemoveAll(target)
	for _, pattern := range []string{filepath.Join(b.repo, "runs", "*"), filepath.Join(spools, "*")} {
		if left, err := filepath.Glob(pattern); err != nil || len(left) > 0 {
			t.Errorf("%s: left over: %q, %v", k, left, err)
		}
	}
	if needed == 0 {
		return 0
	}
	return sent - needed
}

func signalOf(how string) os.Signal {
	if how == "kill" {
		return os.Kill
	}
	return os.Interrupt
}

// done checks the complete repository and the snapshot of the second device.
func (b *breaks) done() {
	t := b.t
	t.Helper()
	b.run(0, "check", "--read-data")
	again := filepath.Join(t.TempDir(), "again")
	b.run(0, "materialize", "latest:"+filepath.Base(onlyChild(t, b.guard)), again)
	sameFolder(t, onlyChild(t, b.guard), onlyChild(t, again))
	for _, v := range b.device.Violations() {
		// A device reports this whenever a process is killed.
		if v != "the connection was closed with the sync lock held" {
			t.Error(v)
		}
	}
}

// backupSteps are the steps at which a backup is interrupted.
var backupSteps = []faults.Step{faults.StepBegin, faults.StepStatus, faults.StepScan, faults.StepManifest, faults.StepListing, faults.StepSpace,
	faults.StepFolders, faults.StepUploading, faults.StepUpload, faults.StepManifests, faults.StepMoving, faults.StepMove, faults.StepRemoving,
	faults.StepRemove, faults.StepFinished, faults.StepVerify, faults.StepResponse}

// breakages returns the breakages to play: a cut, a kill and Ctrl-C, each at every step
// and after a random part of the bytes. It returns all with SNAP_TEST_BREAKS or
// SNAP_TEST_ALL, otherwise a sample.
func breakages(t *testing.T, rng *rand.Rand) []breakage {
	var all []breakage
	for _, how := range breakHows {
		for _, step := range backupSteps {
			all = append(all, breakage{how: how, step: step})
		}
		all = append(all, breakage{how: how, part: rng.Float64()})
	}
	if os.Getenv("SNAP_TEST_BREAKS") != "" {
		return all
	}
	var some []breakage
	for _, i := range faultpoint.Choose(t, len(all), 2) {
		some = append(some, all[i])
	}
	return some
}

// breakHows are the ways to interrupt a backup at any moment.
var breakHows = []string{"interrupt", "cut", "kill"}

// playAll plays breakages, alternately of full and of incremental backups. Then it
// plays random ones for the rest of the given time.
func (b *breaks) playAll(list []breakage, lasts time.Duration, rng *rand.Rand) {
	// The device may send these bytes again:
	//   - after a cut or Ctrl-C, no received bytes;
	//   - after a kill, the bytes received since the last checkpoint, or, in an
	//     encrypted backup, those not yet in the repository;
	//   - after an interruption within a batch, also the bytes that were on their way;
	//   - on a full disk, all bytes.
	const killed, underWay = 1500 << 10, 4 << 20
	b.t.Helper()
	most := map[string]int64{}
	play := func(k breakage, full bool) {
		again := b.play(k, full)
		if again < 0 {
			b.t.Errorf("%s, full %v: %d bytes were not sent", k, full, -again)
		}
		kind, bound := k.how, int64(0)
		switch k.how {
		case "kill":
			bound += killed
		case "full":
			bound = math.MaxInt64 / 2
		}
		if k.step == "" {
			kind += " after some bytes"
		}
		if k.step == "" || k.step == faults.StepUpload {
			bound += underWay
		}
		if again > bound {
			b.t.Errorf("%s, full %v: %d bytes were sent again, more than %d", k, full, again, bound)
		}
		most[kind] = max(most[kind], again)
	}
	began := time.Now()
	for i, k := range list {
		play(k, i%2 == 0)
	}
	n := len(list)
	for ; time.Since(began) < lasts; n++ {
		k := breakage{how: breakHows[rng.IntN(len(breakHows))], part: rng.Float64()}
		if rng.IntN(4) == 0 {
			k.step = backupSteps[rng.IntN(len(backupSteps))]
		}
		play(k, rng.IntN(2) == 0)
	}
	b.done()
	b.t.Logf("%d backups interrupted; most bytes sent again: %v", n, most)
}

// A backup that is interrupted at any step, in any way, changes no snapshot. The
// next backup succeeds, and the device does not send again what was received.
//
//	SNAP_TEST_BREAKS=20m go test -run 'TestBrokenBackups|TestFullDisks' -timeout 2h -v ./cmd/snap
func TestBrokenBackups(t *testing.T) {
	if testing.Short() && os.Getenv("SNAP_TEST_BREAKS") == "" {
		t.Skip("TestInterruptedBackup interrupts one as well")
	}
	t.Parallel()
	var lasts time.Duration
	if text := os.Getenv("SNAP_TEST_BREAKS"); text != "" {
		var err error
		if lasts, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	for _, encrypt := range encryptions(t) {
		t.Run(fmt.Sprint("encryption ", encrypt), func(t *testing.T) {
			t.Parallel()
			rng := faultpoint.Rand(t)
			newBreaks(t, newRepo(t), encrypt).playAll(breakages(t, rng), lasts/2, rng)
		})
	}
}
