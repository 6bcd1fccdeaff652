package lab

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"

	"github.com/snap-backup/snap/device/simulator"
	"github.com/snap-backup/snap/device/simulator/faults"
)

// ErrCommand means that a line has no command that Do knows.
var ErrCommand = errors.New("no such command")

// command is an action of a device's owner, or an event that happens to a device.
type command struct {
	args string // arguments, for the help
	help string
	// device says whether the first argument names a device. need is the number of
	// required arguments, without the device.
	device bool
	need   int
	do     func(ctx context.Context, l *Lab, d *Device, args []string) (string, error)
}

var commands = map[string]command{
	"next": {"", "change the content as a day of use does", false, 0, func(ctx context.Context, l *Lab, _ *Device, _ []string) (string, error) {
		if err := l.NextDay(ctx); err != nil {
			return "", err
		}
		return fmt.Sprintf("it is day %d", l.Day()+1), nil
	}},
	"devices": {"", "list the devices", false, 0, func(_ context.Context, l *Lab, _ *Device, _ []string) (string, error) {
		return l.list(), nil
	}},
	"lock": {"DEVICE", "lock the screen: a running backup continues, the next one asks for the passcode", true, 0, change(func(d *Device) { d.SetLock(simulator.Locked) })},
	"reboot": {"DEVICE", "restart it; it stays locked until you unlock it", true, 0, func(_ context.Context, l *Lab, d *Device, _ []string) (string, error) {
		l.Mux.Detach(d.Device)
		d.SetLock(simulator.NotYetUnlocked)
		d.Agent.Forget()
		l.Mux.Attach(d.Device, simulator.USB)
		return "", nil
	}},
	"unlock": {"DEVICE", "unlock it", true, 0, change((*Device).Unlock)},
	"trust":  {"DEVICE", "tap Trust, or pair without the dialog", true, 0, trust},
	"deny":   {"DEVICE", "tap Don't Trust, now or when it asks next", true, 0, deny},
	"reset":  {"DEVICE", "forget all computers", true, 0, change(func(d *Device) { d.ForgetHosts() })},
	"detach": {"DEVICE", "pull the cable, and leave the Wi-Fi", true, 0, func(_ context.Context, l *Lab, d *Device, _ []string) (string, error) {
		l.Mux.Detach(d.Device)
		return "", nil
	}},
	"attach": {"DEVICE", "plug it in", true, 0, attach(simulator.USB)},
	"wifi":   {"DEVICE", "connect it by Wi-Fi", true, 0, attach(simulator.Network)},
	"cut": {"DEVICE BYTES", "cut the connection of the next backup after BYTES bytes", true, 1, func(_ context.Context, _ *Lab, d *Device, args []string) (string, error) {
		if _, err := strconv.ParseUint(args[0], 10, 62); err != nil {
			return "", fmt.Errorf("%q is not a number of bytes", args[0])
		}
		return "", d.fault("@" + args[0] + "=cut")
	}},
	"fault": {"DEVICE FAULT", "make something go wrong: upload:3=cut, begin=fail 208, begin=wait 90s ...", true, 1, func(_ context.Context, _ *Lab, d *Device, args []string) (string, error) {
		return "", d.fault(strings.Join(args, " "))
	}},
	"cancel": {"DEVICE", "tap Cancel on it", true, 0, func(_ context.Context, _ *Lab, d *Device, _ []string) (string, error) {
		return fmt.Sprintf("%d programs were told", d.Notify(simulator.SyncCancelRequest)), nil
	}},
	"ask":     {"DEVICE", "ask for the passcode before each backup", true, 0, change(func(d *Device) { d.AskPasscode(true) })},
	"ask-not": {"DEVICE", "remove the passcode", true, 0, change(func(d *Device) { d.AskPasscode(false) })},
	"enter": {"DEVICE", "enter the passcode, now or when it asks next", true, 0, func(_ context.Context, _ *Lab, d *Device, _ []string) (string, error) {
		if !d.wouldAsk() {
			return "", errors.New(`it does not ask for its passcode; "ask DEVICE" makes it ask`)
		}
		if !d.EnterPasscode() {
			return "it will be entered when the device asks", nil
		}
		return "", nil
	}},
	"password": {"DEVICE [PASSWORD]", "set the backup password as another computer does, or end encryption if PASSWORD is missing", true, 0, func(_ context.Context, _ *Lab, d *Device, args []string) (string, error) {
		d.Agent.SetPassword(strings.Join(args, " "))
		return "", nil
	}},
	"findmy":  {"DEVICE on|off", "switch Find My on or off", true, 1, setting(simulator.DomainFindMy, "IsAssociated", func(s string) any { return s == "on" })},
	"ios":     {"DEVICE VERSION", "set the version of iOS", true, 1, setting("", "ProductVersion", func(s string) any { return s })},
	"battery": {"DEVICE PERCENT", "set the charge and unplug the charger", true, 1, battery},
	"free":    {"DEVICE BYTES", "set the free storage", true, 1, setting(simulator.DomainDiskUsage, "TotalDataAvailable", number)},
	"busy": {"DEVICE TIMES", "refuse the sync lock to the next TIMES attempts", true, 1, func(_ context.Context, _ *Lab, d *Device, args []string) (string, error) {
		n, err := strconv.Atoi(args[0])
		if err == nil {
			d.SetLockBusy(n)
		}
		return "", err
	}},
	"runs": {"DEVICE", "list its backups, restores and password changes", true, 0, func(_ context.Context, _ *Lab, d *Device, _ []string) (string, error) {
		return d.runs(), nil
	}},
	"violations": {"", "list what programs did wrong", false, 0, func(_ context.Context, l *Lab, _ *Device, _ []string) (string, error) {
		var lines []string
		for _, d := range l.Devices() {
			for _, v := range d.Violations() {
				lines = append(lines, d.Name()+": "+v)
			}
		}
		if lines == nil {
			return "none", nil
		}
		return strings.Join(lines, "\n"), nil
	}},
}

// Do executes a line. The line has a command and, for most commands, a device and
// further arguments. The reply may be empty or have several lines.
func (l *Lab) Do(ctx context.Context, line string) (reply string, err error) {
	words := strings.Fields(line)
	if len(words) == 0 {
		return "", nil
	}
	if words[0] == "help" {
		return Help(), nil
	}
	c, ok := commands[words[0]]
	if !ok {
		return "", fmt.Errorf("%w: %q; \"help\" lists the commands", ErrCommand, words[0])
	}
	args := words[1:]
	var d *Device
	if c.device {
		name := ""
		if len(args) > 0 {
			name, args = args[0], args[1:]
		} else if all := l.Devices(); len(all) == 1 && c.need == 0 {
			name = "1"
		}
		if d, err = l.Find(name); err != nil {
			return "", err
		}
	}
	if len(args) < c.need {
		return "", fmt.Errorf("usage: %s %s", words[0], c.args)
	}
	return c.do(ctx, l, d, args)
}

// Help lists the commands of Do.
func Help() string {
	var names []string
	wide := 0
	for name, c := range commands {
		names = append(names, name)
		wide = max(wide, len(name)+1+len(c.args))
	}
	sort.Strings(names)
	var b strings.Builder
	for _, name := range names {
		c := commands[name]
		fmt.Fprintf(&b, "%-*s  %s\n", wide, strings.TrimSpace(name+" "+c.args), c.help)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func change(f func(d *Device)) func(context.Context, *Lab, *Device, []string) (string, error) {
	return func(_ context.Context, _ *Lab, d *Device, _ []string) (string, error) {
		f(d)
		return "", nil
	}
}

func trust(_ context.Context, l *Lab, d *Device, _ []string) (string, error) {
	if d.TrustDialog() {
		d.AnswerTrust(true)
		return "", nil
	}
	return "", l.Mux.Trust(d.Device)
}

func deny(_ context.Context, _ *Lab, d *Device, _ []string) (string, error) {
	asks := d.TrustDialog()
	d.AnswerTrust(false)
	if !asks {
		return "the next computer that asks will be refused", nil
	}
	return "", nil
}

func attach(by simulator.Transport) func(context.Context, *Lab, *Device, []string) (string, error) {
	return func(_ context.Context, l *Lab, d *Device, _ []string) (string, error) {
		l.Mux.Attach(d.Device, by)
		return "", nil
	}
}

func number(s string) any {
	n, err := strconv.ParseUint(s, 10, 62)
	if err != nil {
		return nil
	}
	return n
}

func setting(domain, key string, parse func(string) any) func(context.Context, *Lab, *Device, []string) (string, error) {
	return func(_ context.Context, _ *Lab, d *Device, args []string) (string, error) {
		v := parse(args[0])
		if v == nil {
			return "", fmt.Errorf("%q is not a number", args[0])
		}
		d.SetValue(domain, key, v)
		return "", nil
	}
}

func battery(_ context.Context, _ *Lab, d *Device, args []string) (string, error) {
	n, err := strconv.ParseUint(args[0], 10, 62)
	if err != nil || n > 100 {
		return "", fmt.Errorf("%q is not a percentage", args[0])
	}
	d.SetValue(simulator.DomainBattery, "BatteryCurrentCapacity", n)
	d.SetValue(simulator.DomainBattery, "BatteryIsCharging", false)
	return "", nil
}

// fault sets the faults of the next operation.
func (d *Device) fault(text string) error {
	f, err := faults.Parse(text)
	if err != nil {
		return err
	}
	return d.Agent.SetScript(faults.Script{f})
}

func (l *Lab) list() string {
	var b strings.Builder
	for i, d := range l.Devices() {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%d  %s  %s, iOS %v", i+1, d.UDID(), d.Name(), d.Value("", "ProductVersion"))
		if d.Agent.WillEncrypt() {
			b.WriteString(", encrypts")
			if d.password != "" {
				fmt.Fprintf(&b, " (%q)", d.password)
			}
		}
	}
	return b.String()
}

func (d *Device) runs() string {
	var lines []string
	for _, r := range d.Agent.Runs() {
		how := "incremental"
		if r.Full {
			how = "full"
		}
		if r.Operation != "Backup" {
			how = "done"
		}
		line := fmt.Sprintf("%s (%s): %d files, %d bytes", r.Operation, how, r.Files, r.Bytes)
		if r.Spared > 0 {
			line += fmt.Sprintf(", %d not sent again", r.Spared)
		}
		switch {
		case r.Err != "":
			line += ": " + r.Err
		case r.Code != 0:
			line += fmt.Sprintf(": error %d", r.Code)
		}
		lines = append(lines, line)
	}
	if lines == nil {
		return "nothing yet"
	}
	return strings.Join(lines, "\n")
}
