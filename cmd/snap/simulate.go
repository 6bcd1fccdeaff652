package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/simulator"
	"github.com/snap-backup/snap/device/simulator/faults"
	"github.com/snap-backup/snap/device/simulator/lab"
	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/spf13/cobra"
)

// simulateRun is one run of the command.
type simulateRun struct {
	a              *app
	socket, state  string
	scale, encrypt string
	spare          bool
	anyAddress     bool
	faults         []string
	opt            lab.Options

	mu sync.Mutex // held while printing
}

// simulateReady is the first output of simulate.
type simulateReady struct {
	Event    string            `json:"event"` // ready
	Variable string            `json:"variable"`
	Address  string            `json:"address"`
	Devices  []simulatedDevice `json:"devices"`
}

type simulatedDevice struct {
	UDID      string `json:"udid"`
	Name      string `json:"device_name"`
	Encrypted bool   `json:"encrypted"`
}

// simulateReply is the reply to a command, with --json.
type simulateReply struct {
	Event   string `json:"event"` // reply
	Command string `json:"command"`
	Text    string `json:"text,omitempty"`
	Error   string `json:"error,omitempty"`
}

func (a *app) simulateCommand() *cobra.Command {
	s := &simulateRun{a: a}
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: "Simulate iPhones and iPads",
		Long: `Simulates iPhones and iPads on a socket, and prints the line that makes snap and
other programs such as idevicebackup2 find them. Their content is generated;
they back up, restore, encrypt and fail as real devices do.

It runs until Ctrl-C or the end of its input. It reads commands from standard
input, one a line, such as "next" (the next day), "lock 1", "cut 1 1000000"
(break the connection after a million bytes) or "enter 1" (enter the passcode).
"help" lists them all; docs/devices.md shows an example.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return s.run(cmd.Context()) },
	}
	f := cmd.Flags()
	f.StringVar(&s.socket, "socket", "", "`path` of the socket, or host:port (default: one in the state folder)")
	f.BoolVar(&s.anyAddress, "any-address", false, "allow a --socket that other computers can reach; the devices obey whoever connects")
	f.StringVar(&s.state, "state", "", "keep the devices in this `folder`; the next run continues with them and ignores most other flags (default: a temporary folder)")
	f.IntVar(&s.opt.Devices, "devices", 1, "number of devices")
	f.BoolVar(&s.spare, "spare", false, "add a device with little content, to restore to")
	f.StringVar(&s.scale, "scale", "tiny", "`size` of the devices: tiny, small, medium or large")
	f.StringVar(&s.encrypt, "encrypt", "none", "which devices encrypt their backups: none, all or alternate")
	f.StringVar(&s.opt.Password, "backup-password", synthetic.DefaultPassword, "`password` of encrypted backups")
	f.Uint64Var(&s.opt.Seed, "seed", 1, "equal seeds make equal devices")
	f.BoolVar(&s.opt.Untrusted, "untrusted", false, "the devices do not trust this computer yet")
	f.BoolVar(&s.opt.RealRounds, "real-rounds", false, "backup passwords take seconds to try, as with real devices")
	f.StringArrayVar(&s.faults, "fault", nil, "`fault` that happens once at the first device, such as upload:3=cut or begin=fail 208 (can be repeated)")
	return cmd
}

func (s *simulateRun) run(ctx context.Context) (err error) {
	if s.opt.Scale, err = synthetic.ParseScale(s.scale); err != nil {
		return usageError{err}
	}
	if s.opt.Encrypt, err = parseEncryption(s.encrypt); err != nil {
		return usageError{err}
	}
	var script faults.Script
	for _, text := range s.faults {
		f, err := faults.Parse(text)
		if err != nil {
			return usageError{err}
		}
		script = append(script, f)
	}
	if s.opt.Devices < 1 {
		return usageError{errors.New("--devices takes a number of at least 1")}
	}
	if s.state != "" {
		s.opt.Dir, err = filepath.Abs(s.state)
		if err == nil {
			err = os.MkdirAll(s.opt.Dir, 0o700)
		}
	} else {
		s.opt.Dir, err = os.MkdirTemp("", "snap-simulate-")
	}
	if err != nil {
		return err
	}
	if s.state == "" {
		defer func() { err = errors.Join(err, os.RemoveAll(s.opt.Dir)) }()
	}
	on, err := s.listen() // fails if another run uses the same socket
	if err != nil {
		return fmt.Errorf("listen for programs: %w", err)
	}
	defer on.Close()
	s.opt.On = s.tell
	l, err := s.devices(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if s.state != "" {
		defer func() { err = errors.Join(err, l.Save()) }()
	}
	if err := l.Devices()[0].Agent.SetScript(script); err != nil {
		return usageError{err}
	}
	return s.serve(ctx, l, on)
}

// devices returns the devices of the state folder, or new ones.
func (s *simulateRun) devices(ctx context.Context) (*lab.Lab, error) {
	l, found, err := lab.Resume(ctx, s.opt)
	if found {
		return l, err
	}
	if err == nil {
		l, err = lab.New(ctx, s.opt)
	}
	if err != nil || !s.spare {
		return l, err
	}
	if _, err := l.AddSpare(ctx, simulator.Spec{}); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func parseEncryption(s string) (synthetic.Encryption, error) {
	all := map[string]synthetic.Encryption{"none": synthetic.EncryptNone, "all": synthetic.EncryptAll, "alternate": synthetic.EncryptAlternate}
	e, ok := all[s]
	if !ok {
		return 0, fmt.Errorf("--encrypt takes none, all or alternate, not %q", s)
	}
	return e, nil
}

func (s *simulateRun) listen() (net.Listener, error) {
	switch {
	case s.socket == "":
		return listenUnix(filepath.Join(s.opt.Dir, "usbmuxd"))
	case strings.ContainsAny(s.socket, `/\`) || !strings.Contains(s.socket, ":"):
		path, err := filepath.Abs(s.socket)
		if err != nil {
			return nil, err
		}
		return listenUnix(path)
	}
	if err := checkLoopback(s.socket); err != nil && !s.anyAddress {
		return nil, err
	}
	return net.Listen("tcp", s.socket)
}

// checkLoopback returns an error unless host:port is an address that only programs of
// this computer can reach.
func checkLoopback(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return usageError{fmt.Errorf("--socket %s: %w", address, err)}
	}
	if ip := net.ParseIP(host); host == "localhost" || ip != nil && ip.IsLoopback() {
		return nil
	}
	return usageError{fmt.Errorf("--socket %s: other computers could reach the devices, which obey whoever connects; use 127.0.0.1, or --any-address to allow it", address)}
}

// listenUnix listens on a socket. It replaces a socket that a killed run left.
func listenUnix(path string) (net.Listener, error) {
	l, err := net.Listen("unix", path)
	if err == nil || !errors.Is(err, syscall.EADDRINUSE) {
		return l, err
	}
	if c, failed := net.Dial("unix", path); failed == nil {
		return nil, errors.Join(err, c.Close())
	}
	if info, failed := os.Lstat(path); failed != nil || info.Mode().Type() != os.ModeSocket {
		return nil, err
	}
	if err := os.Remove(path); err != nil {
		return nil, err
	}
	return net.Listen("unix", path)
}

func (s *simulateRun) serve(ctx context.Context, l *lab.Lab, on net.Listener) error {
	ctx, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- l.Serve(ctx, on) }()
	defer func() {
		stop()
		<-served
	}()
	ready := simulateReady{Event: "ready", Variable: device.AddressVariable, Address: simulator.Address(on.Addr())}
	for _, d := range l.Devices() {
		ready.Devices = append(ready.Devices, simulatedDevice{d.UDID(), d.Name(), d.Agent.WillEncrypt()})
	}
	s.print(ready, func(w io.Writer) {
		reply, _ := l.Do(ctx, "devices")
		fmt.Fprintln(w, cleanLines(reply))
		fmt.Fprintf(w, "\nIn another terminal:\n\n    export %s=%s\n    snap devices\n\n", ready.Variable, ready.Address)
		fmt.Fprintln(w, `"help" lists the commands; Ctrl-C ends the simulation.`)
	})
	lines := make(chan string)
	go func() {
		defer close(lines)
		in := bufio.NewScanner(s.a.stdin)
		for in.Scan() {
			select {
			case lines <- in.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil // the normal end
		case err := <-served:
			served <- nil
			return err
		case line, ok := <-lines:
			if !ok || strings.TrimSpace(line) == "quit" {
				return nil
			}
			s.do(ctx, l, line)
			if s.state != "" {
				if err := l.Save(); err != nil {
					return err
				}
			}
		}
	}
}

// do executes a command.
func (s *simulateRun) do(ctx context.Context, l *lab.Lab, line string) {
	reply, err := l.Do(ctx, line)
	out := simulateReply{Event: "reply", Command: line, Text: reply}
	if err != nil {
		out.Error = err.Error()
	}
	s.print(out, func(w io.Writer) {
		switch {
		case err != nil:
			fmt.Fprintln(s.a.messages(), "snap:", clean(err.Error()))
		case reply != "":
			fmt.Fprintln(w, cleanLines(reply))
		case strings.TrimSpace(line) != "":
			fmt.Fprintln(w, "done")
		}
	})
}

// tell prints an event: something that a program did to a device.
func (s *simulateRun) tell(e lab.Event) {
	s.print(e, func(w io.Writer) {
		lead := ""
		if e.What == lab.EventViolation {
			lead = "VIOLATION: "
		}
		fmt.Fprintf(w, "%s: %s%s\n", clean(e.Device), lead, clean(e.Text))
	})
}

func (s *simulateRun) print(v any, human func(w io.Writer)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.a.json {
		printLine(s.a.stdout, v)
		return
	}
	human(s.a.human())
}

// cleanLines is clean for a text of several lines.
func cleanLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = clean(lines[i])
	}
	return strings.Join(lines, "\n")
}
