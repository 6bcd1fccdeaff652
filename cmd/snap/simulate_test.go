package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/devicetest"
	"github.com/snap-backup/snap/device/simulator"
	"github.com/snap-backup/snap/device/simulator/devicefiles"
	"github.com/snap-backup/snap/device/simulator/faults"
	"github.com/snap-backup/snap/device/simulator/lab"
	"github.com/snap-backup/snap/device/simulator/pairing"
	"github.com/snap-backup/snap/device/simulator/synthetic"
)

// simulation has the simulated devices of one script.
type simulation struct {
	sim     *simulator.Simulator
	devices map[string]*simulator.Device // by name
	lab     *lab.Lab                     // with the devices that have content
	plain   map[string]bool              // whether devices are without TLS, by script
	wait    sync.WaitGroup
}

type simulationKey struct{}

// noDevices is an address at which nothing answers. It keeps scripts away from
// devices that are connected to the machine.
const noDevices = "UNIX:/nonexistent/usbmuxd"

// simulate is a command of scripts:
//
//	simulate start                      a usbmuxd without devices
//	simulate attach NAME UDID [WORD]... a device; words: trusted, locked, asks, denies,
//	                                    managed, encrypted, old, ipad, and air for Wi-Fi
//	simulate tap NAME                   a person taps Trust when the device asks
//	simulate unlock|lock|reset|detach NAME
//	simulate no-violations NAME         a real device would have accepted all that snap did
//	simulate lab N [WORD]...            N devices with content; words:
//	                                    encrypted, alternate, spare, small
//	simulate do COMMAND...              controls devices with content; see package lab
//	simulate await NAME STEP            waits until the current run has reached a step
//	simulate await-prompt NAME          waits until the device asks for its passcode
//	simulate passcode NAME              waits like await-prompt, then enters the passcode
//	simulate holds NAME FOLDER [PASSWORD]  the backup folder has the device's content
//	simulate runs NAME FIELD=VALUE...   the agent's last run has these values
func simulate(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: simulate start|attach|tap|unlock|lock|reset|detach ...")
	}
	s, _ := ts.Value(simulationKey{}).(*simulation)
	switch args[0] {
	case "start":
		startSimulation(ts, simulator.New())
		return
	case "lab":
		s.startLab(ts, args[1:])
		return
	case "do":
		reply, err := s.lab.Do(context.Background(), strings.Join(args[1:], " "))
		ts.Check(err)
		ts.Logf("%s", reply)
		return
	case "await", "holds", "runs", "passcode", "await-prompt":
		s.ofLab(ts, args)
		return
	}
	if s.sim == nil || len(args) < 2 {
		ts.Fatalf("run \"simulate start\" first, and name a device")
	}
	name := args[1]
	if args[0] == "attach" {
		s.attach(ts, name, args[2:])
		return
	}
	d := s.devices[name]
	if d == nil {
		ts.Fatalf("no device is called %q", name)
	}
	switch args[0] {
	case "tap":
		s.wait.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
			defer cancel()
			_, _ = d.Await(ctx, func(simulator.Event) bool { return d.TrustDialog() })
			d.AnswerTrust(true)
		})
	case "unlock":
		d.SetLock(simulator.Unlocked)
	case "lock":
		d.SetLock(simulator.Locked)
	case "reset":
		d.ForgetHosts()
	case "detach":
		s.sim.Detach(d)
	case "no-violations":
		if v := d.Violations(); len(v) > 0 {
			ts.Fatalf("%s: violations: %s", name, strings.Join(v, "; "))
		}
	default:
		ts.Fatalf("unknown word %q", args[0])
	}
}

func startSimulation(ts *testscript.TestScript, sim *simulator.Simulator) {
	l, err := devicetest.Listen()
	ts.Check(err)
	ctx, cancel := context.WithCancel(context.Background())
	s, _ := ts.Value(simulationKey{}).(*simulation)
	s.sim, s.devices = sim, map[string]*simulator.Device{}
	s.wait.Go(func() { _ = s.sim.Serve(ctx, l) })
	ts.Defer(func() {
		cancel()
		s.wait.Wait()
	})
	ts.Setenv(device.AddressVariable, simulator.Address(l.Addr()))
}

func (s *simulation) attach(ts *testscript.TestScript, name string, words []string) {
	if len(words) == 0 {
		ts.Fatalf("usage: simulate attach NAME UDID [WORD]...")
	}
	key, err := pairing.QuickKey()
	ts.Check(err)
	spec := simulator.Spec{Name: name, UDID: words[0], Key: key}
	by, trusted, locked, encrypted := simulator.USB, false, false, false
	for _, w := range words[1:] {
		switch w {
		case "trusted":
			trusted = true
		case "locked":
			locked = true
		case "asks":
			spec.Trust = simulator.TrustAsk
		case "denies":
			spec.Trust = simulator.TrustNever
		case "managed":
			spec.Managed = true
		case "encrypted":
			encrypted = true
		case "old":
			spec.ProductType, spec.ProductVersion = "iPhone5,2", "9.3.5"
		case "ipad":
			spec.ProductType = "iPad13,18"
		case "air":
			by = simulator.Network
		default:
			ts.Fatalf("unknown word %q", w)
		}
	}
	d := s.devices[name]
	if d == nil {
		d = simulator.NewDevice(spec)
		s.devices[name] = d
		if encrypted {
			d.SetValue(simulator.DomainBackup, "WillEncrypt", true)
		}
		if trusted {
			ts.Check(s.sim.Trust(d))
		}
		if locked {
			d.SetLock(simulator.Locked)
		}
	}
	s.sim.Attach(d, by)
	if !strings.EqualFold(d.UDID(), words[0]) {
		ts.Fatalf("%s has UDID %s, want %s", name, d.UDID(), words[0])
	}
}

// startLab starts devices with content. Scripts call each device by the first word of
// its name.
func (s *simulation) startLab(ts *testscript.TestScript, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	dir, err := os.MkdirTemp(ts.Getenv("WORK"), "lab")
	ts.Check(err)
	o := lab.Options{Dir: dir, Devices: n, Seed: 1, PlainText: s.plain[ts.Name()], QuickKeys: true}
	if slices.Contains(args, "small") {
		o.Scale = synthetic.Small
	}
	if slices.Contains(args, "encrypted") {
		o.Encrypt = synthetic.EncryptAll
	}
	if slices.Contains(args, "alternate") {
		o.Encrypt = synthetic.EncryptAlternate
	}
	s.lab, err = lab.New(context.Background(), o)
	ts.Check(err)
	if slices.Contains(args, "spare") {
		_, err := s.lab.AddSpare(context.Background(), simulator.Spec{})
		ts.Check(err)
	}
	ts.Defer(func() { _ = s.lab.Close() })
	startSimulation(ts, s.lab.Mux)
	for _, d := range s.lab.Devices() {
		name := strings.FieldsFunc(d.Name(), func(r rune) bool { return r == ' ' || r == '-' || r == '\u2019' })[0]
		s.devices[name] = d.Device
	}
}

func (s *simulation) ofLab(ts *testscript.TestScript, args []string) {
	d, err := s.lab.Find(args[1])
	ts.Check(err)
	switch args[0] {
	case "await":
		deadline := time.Now().Add(5 * time.Minute)
		for {
			if r := d.Agent.LastRun(); r.Code == -1 && r.Err == "" && slices.Contains(r.Steps, faults.Step(args[2])) {
				break
			}
			if time.Now().After(deadline) {
				ts.Fatalf("%s has not reached %s: %+v", args[1], args[2], d.Agent.LastRun())
			}
			time.Sleep(5 * time.Millisecond)
		}
	case "passcode", "await-prompt":
		deadline := time.Now().Add(5 * time.Minute)
		for !d.Asking() {
			if time.Now().After(deadline) {
				ts.Fatalf("%s does not ask for its passcode", args[1])
			}
			time.Sleep(5 * time.Millisecond)
		}
		if args[0] == "passcode" {
			d.EnterPasscode()
		}
	case "holds":
		password := ""
		if len(args) > 3 {
			password = args[3]
		}
		differences, err := devicefiles.Verify(context.Background(), d.Agent.Content(), ts.MkAbs(args[2]), []byte(password))
		ts.Check(err)
		if len(differences) > 0 {
			ts.Fatalf("%s differs from %s: %s", args[2], args[1], strings.Join(differences, "; "))
		}
	case "runs":
		r := d.Agent.LastRun()
		fields := map[string]string{"operation": r.Operation, "full": fmt.Sprint(r.Full), "resumed": r.Resumed, "code": fmt.Sprint(r.Code),
			"resent": fmt.Sprint(r.Resent), "applications": fmt.Sprint(r.Applications), "options": fmt.Sprintf("%+v", r.Options),
			"spared": fmt.Sprint(r.Spared > 0)}
		for _, want := range args[2:] {
			field, value, _ := strings.Cut(want, "=")
			if got, ok := fields[field]; !ok || got != value {
				ts.Fatalf("%s of the last run of %s is %q, want %q: %+v", field, args[1], got, value, r)
			}
		}
	}
}
