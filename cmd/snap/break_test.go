package main

import (
	"bytes"
	"encoding/json"
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
)

// breaks are a device that is backed up day by day while something goes wrong,
// and a second one whose snapshot must not suffer. snap is a process of its own.
type breaks struct {
	*shell
	lab     *lab.Lab
	device  *lab.Device
	guard   string // a folder with what the other device's snapshot held
	sealed  bool
	records devicefiles.Source // of the day before

	fill, free func() // the disk
	spool      string // a folder that is not the usual one

	mu   sync.Mutex
	step faults.Step
	then func() // called once when the device comes to the step, and waits for it
}

func newBreaks(t *testing.T, s *shell, encrypt synthetic.Encryption) *breaks {
	t.Helper()
	b := &breaks{shell: s, sealed: encrypt != synthetic.EncryptNone}
	s.env = append(s.env, "SNAP_BACKUP_PASSWORD="+synthetic.DefaultPassword)
	b.lab = startLab(t, lab.Options{Seed: 14, Encrypt: encrypt, On: b.on})
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

// at has something done when the device comes to a step.
func (b *breaks) at(step faults.Step, then func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.step, b.then = step, then
}

// sends are the bytes that a backup of the device's content sends.
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
		// Some files are shorter than their rows say.
		f, err := b.device.Agent.Content().Open(&rec)
		if err != nil {
			b.t.Fatal(err)
		}
		size, err := io.Copy(io.Discard, f)
		if err = errors.Join(err, f.Close()); err != nil {
			b.t.Fatal(err)
		}
		if b.sealed && !rec.Dataless() {
			size += 16 - size%16
		}
		sum += size
	}
	return sum
}

// child is a backup under way.
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

// ids are those of all snapshots.
func (b *breaks) ids() (out []string) {
	b.t.Helper()
	var list []struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal([]byte(b.run(0, "snapshots", "--json")), &list); err != nil {
		b.t.Fatal(err)
	}
	for _, s := range list {
		out = append(out, s.ID)
	}
	return out
}

// breakage is how a backup is broken off.
type breakage struct {
	how  string      // cut, kill, interrupt, full
	step faults.Step // or after some of the bytes, if empty:
	part float64
}

func (k breakage) String() string {
	if k.step != "" {
		return fmt.Sprintf("%s at %s", k.how, k.step)
	}
	return fmt.Sprintf("%s after %.0f %%", k.how, 100*k.part)
}

// play breaks a backup of the next day off, looks at what is left, and has the
// next backup succeed. It returns what the device sent twice.
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
	spools := filepath.Join(os.Getenv("XDG_CACHE_HOME"), "snap", "spool")
	if b.spool != "" {
		spools = b.spool
		args = append(args, "--spool-dir", spools)
	}
	// An encrypted backup needs no checkpoints to outlive a kill.
	checkpoint := append(slices.Clone(args), "--checkpoint", "256K")
	if b.sealed {
		checkpoint = args
	}
	runs := len(b.device.Agent.Runs())
	var p *child
	var at string
	if k.step != "" {
		at = string(k.step)
	} else {
		at = "@" + strconv.FormatInt(1+int64(k.part*float64(needed+600<<10)), 10)
	}
	switch {
	case k.how == "cut":
		if _, err := b.lab.Do(t.Context(), "fault 1 "+at+"=cut"); err != nil {
			t.Fatal(err)
		}
		p = b.start(checkpoint...)
	case k.how == "full":
		filled := false // not at steps that this backup does not come to; and spools need no room in the end
		b.at(k.step, func() { filled = true; b.fill() })
		p = b.start(checkpoint...)
		<-p.ended
		b.free()
		if code := p.cmd.ProcessState.ExitCode(); filled && code != exitNoSpace && (code != 0 || b.spool == "") {
			t.Errorf("%s: exit code %d, want %d\n%s", k, code, exitNoSpace, p.out)
		}
	case k.step != "":
		started := make(chan struct{})
		b.at(k.step, func() {
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
	b.at("", nil)
	if err := b.device.Agent.SetScript(nil); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { r := b.device.Agent.LastRun(); return r.Err != "" || r.Code >= 0 })
	after := b.ids()
	if p.cmd.ProcessState.ExitCode() == 0 {
		needed = 0 // it was over before
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
			t.Errorf("%s: %q is left, %v", k, left, err)
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

// done looks at everything once more.
func (b *breaks) done() {
	t := b.t
	t.Helper()
	b.run(0, "check", "--read-data")
	again := filepath.Join(t.TempDir(), "again")
	b.run(0, "materialize", "latest:"+filepath.Base(onlyChild(t, b.guard)), again)
	sameFolder(t, onlyChild(t, b.guard), onlyChild(t, again))
	for _, v := range b.device.Violations() {
		// The device finds that of every process that is killed.
		if v != "the connection was closed with the sync lock held" {
			t.Error(v)
		}
	}
}

// backupSteps are the steps of a backup at which it is broken off.
var backupSteps = []faults.Step{faults.StepBegin, faults.StepStatus, faults.StepScan, faults.StepManifest, faults.StepListing, faults.StepSpace,
	faults.StepFolders, faults.StepUploading, faults.StepUpload, faults.StepManifests, faults.StepMoving, faults.StepMove, faults.StepRemoving,
	faults.StepRemove, faults.StepFinished, faults.StepVerify, faults.StepResponse}

// breakages are what to play: at each step a cut, a kill and Ctrl-C, then as many
// after some bytes. Few of them with -short, a part by default; with
// SNAP_TEST_BREAKS, which is a duration, all, and then others by chance until the
// time is up.
func breakages(rng *rand.Rand) []breakage {
	hows := []string{"cut", "kill", "interrupt"}
	var all []breakage
	for i, step := range backupSteps {
		for j := range hows {
			all = append(all, breakage{how: hows[(i+j)%len(hows)], step: step})
		}
	}
	switch {
	case testing.Short():
		return []breakage{{how: "kill", step: faults.StepManifests}}
	case os.Getenv("SNAP_TEST_BREAKS") == "":
		all = slices.Collect(func(yield func(breakage) bool) {
			for i := rng.IntN(17); i < len(all); i += 17 {
				if !yield(all[i]) {
					return
				}
			}
		})
		all = append(all, breakage{how: "kill", step: faults.StepManifests}, breakage{how: "cut", part: rng.Float64()})
		return append(all, breakage{how: "kill", part: rng.Float64()})
	}
	return all
}

// playAll plays breakages, as backups in full and others in turn, and then others
// by chance until some time has gone by.
func (b *breaks) playAll(list []breakage, lasts time.Duration, rng *rand.Rand) {
	// What may come again. After a cut, or Ctrl-C, nothing of what was received.
	// After a kill what had come since the last checkpoint, and of an encrypted
	// backup what the repository did not know of yet. When it is not broken off
	// between two batches, what lay in the buffers of sockets, too. Where there was
	// no room, nothing could be kept.
	const killed, underWay = 1500 << 10, 4 << 20
	b.t.Helper()
	most := map[string]int64{}
	play := func(k breakage, full bool) {
		again := b.play(k, full)
		if again < 0 {
			b.t.Errorf("%s, full %v: %d bytes too few came", k, full, -again)
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
			bound += underWay
		}
		if again > bound {
			b.t.Errorf("%s, full %v: %d bytes came again, more than %d", k, full, again, bound)
		}
		most[kind] = max(most[kind], again)
	}
	began := time.Now()
	for i, k := range list {
		play(k, i%2 == 0)
	}
	n := len(list)
	for ; time.Since(began) < lasts; n++ {
		k := breakage{how: []string{"cut", "kill", "interrupt"}[rng.IntN(3)], part: rng.Float64()}
		if rng.IntN(4) == 0 {
			k.step = backupSteps[rng.IntN(len(backupSteps))]
		}
		play(k, rng.IntN(2) == 0)
	}
	b.done()
	b.t.Logf("%d backups broken off; the most bytes that came again: %v", n, most)
}

// A backup that is broken off anywhere, in any way, leaves every snapshot as it
// was; the next one succeeds, and what came is not sent again.
//
//	SNAP_TEST_BREAKS=20m go test -run 'TestBrokenBackups|TestFullDisks' -timeout 2h -v ./cmd/snap
func TestBrokenBackups(t *testing.T) {
	var lasts time.Duration
	if text := os.Getenv("SNAP_TEST_BREAKS"); text != "" {
		var err error
		if lasts, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	for _, encrypt := range []synthetic.Encryption{synthetic.EncryptNone, synthetic.EncryptAll} {
		t.Run(fmt.Sprint("encryption ", encrypt), func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			rng := rand.New(rand.NewPCG(seed, 1))
			newBreaks(t, newShell(t), encrypt).playAll(breakages(rng), lasts/2, rng)
		})
	}
}
