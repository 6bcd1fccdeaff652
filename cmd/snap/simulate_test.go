package main

import (
	"context"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/simulator"
)

// simulation is the simulated devices of one script.
type simulation struct {
	sim     *simulator.Simulator
	devices map[string]*simulator.Device // by name
	wait    sync.WaitGroup
}

type simulationKey struct{}

// noDevices keeps a script from whatever is connected to the machine.
const noDevices = "UNIX:/nonexistent/usbmuxd"

// simulate is a command of scripts:
//
//	simulate start                      a usbmuxd without devices
//	simulate attach NAME UDID [WORD]... a device; words: trusted, locked, asks, denies,
//	                                    managed, encrypted, old, ipad, and air in place of a cable
//	simulate tap NAME                   in a moment, somebody taps Trust
//	simulate unlock|lock|reset|detach NAME
//	simulate blameless NAME             snap did nothing wrong to it
func simulate(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: simulate start|attach|tap|unlock|lock|reset|detach ...")
	}
	if args[0] == "start" {
		startSimulation(ts)
		return
	}
	s, _ := ts.Value(simulationKey{}).(*simulation)
	if s.sim == nil || len(args) < 2 {
		ts.Fatalf("simulate start comes first, and every command but that names a device")
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
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
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
	case "blameless":
		if v := d.Violations(); len(v) > 0 {
			ts.Fatalf("%s suffered: %s", name, strings.Join(v, "; "))
		}
	default:
		ts.Fatalf("what is %q?", args[0])
	}
}

func startSimulation(ts *testscript.TestScript) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ctx, cancel := context.WithCancel(context.Background())
	s, _ := ts.Value(simulationKey{}).(*simulation)
	s.sim, s.devices = simulator.New(), map[string]*simulator.Device{}
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
	spec := simulator.Spec{Name: name, UDID: words[0]}
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
			ts.Fatalf("what is %q?", w)
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
		ts.Fatalf("%s is %s", name, d.UDID())
	}
}
