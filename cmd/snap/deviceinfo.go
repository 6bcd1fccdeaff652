package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/snap-backup/snap/device"
	"github.com/spf13/cobra"
)

// oneDevice finds the device that a command line names, or the only one.
func oneDevice(ctx context.Context, argv []string) (*device.Mux, device.Entry, error) {
	m, err := mux()
	if err != nil {
		return nil, device.Entry{}, err
	}
	name := ""
	if len(argv) > 0 {
		name = argv[0]
		if strings.TrimSpace(name) == "" {
			return nil, device.Entry{}, usageError{fmt.Errorf("the device's name is empty")}
		}
	}
	e, err := m.Find(ctx, name)
	return m, e, err
}

func (a *app) deviceInfoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "info [DEVICE]",
		Short: "Describe a device that is connected",
		Long: `Describes a device that is connected: DEVICE is its UDID, its name, or the
beginning of either; it may be left out if only one is connected. Most of it a
device tells only to a computer that it trusts.`,
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, argv []string) error {
			ctx := cmd.Context()
			m, e, err := oneDevice(ctx, argv)
			if err != nil {
				return err
			}
			list, err := a.snapshotsUnasked(ctx)
			if err != nil {
				return err
			}
			d := a.describe(ctx, m, e, list)
			if err := ctx.Err(); err != nil {
				return err
			}
			if d.Problem != "" {
				a.warn("%s", d.Problem)
			}
			return a.print(d, func(w io.Writer) { printDevice(w, d) })
		},
	}
}

func printDevice(w io.Writer, d deviceJSON) {
	line := func(label, value string) {
		if value != "" {
			fmt.Fprintf(w, "%-16s %s\n", label, clean(value))
		}
	}
	known := func(label string, b *bool, yes, no string) {
		if b != nil && *b {
			line(label, yes)
		} else if b != nil {
			line(label, no)
		}
	}
	model := d.Model
	if d.ProductType != d.Model {
		model += " (" + d.ProductType + ")"
	}
	system := d.ProductVersion
	if d.BuildVersion != "" {
		system += " (" + d.BuildVersion + ")"
	}
	links := make([]string, len(d.Connections))
	for i, k := range d.Connections {
		links[i] = linkText(k)
	}
	line("Name", d.Name)
	line("Model", model)
	line("iOS", system)
	line("UDID", d.UDID)
	line("Serial number", d.SerialNumber)
	line("Connection", strings.Join(links, ", "))
	line("Trust", trustText(d.Trust)+": "+trustAdvice(d.Trust, d.UDID))
	known("Encryption", d.WillEncrypt, "on: its backups are encrypted", "off: its backups are not encrypted, and lack passwords and health data")
	known("", d.RequiresEncryption, "the organisation that manages it requires encryption", "")
	known("Passcode", d.PasscodeSet, "set: it asks for it before a backup, from iOS 16.1 on", "not set")
	known("Find My", d.FindMy, "on: has to be switched off before a restore", "off")
	known("iCloud backup", d.CloudBackup, "on", "off")
	if d.Battery != nil {
		charging := ""
		if d.Battery.Charging {
			charging = ", charging"
		}
		line("Battery", fmt.Sprintf("%d%%%s", d.Battery.Percent, charging))
	}
	if d.Storage != nil {
		line("Storage", fmt.Sprintf("%s, %s of it free", bytesText(d.Storage.Total), bytesText(d.Storage.Free)))
	}
	if d.LastBackup != nil {
		line("Last backup", timeText(*d.LastBackup)+", to any computer")
	}
	if d.LastSnapshot != nil {
		line("Last snapshot", fmt.Sprintf("%s of %s, %s", d.LastSnapshot.ID.Short(), timeText(d.LastSnapshot.Time), ageOf(d.LastSnapshot)))
	}
}

// pairResult is what pair and unpair print.
type pairResult struct {
	UDID  string       `json:"udid"`
	Name  string       `json:"device_name,omitempty"`
	Trust device.Trust `json:"trust"`
	WiFi  bool         `json:"wifi_enabled"`
}

// defaultPatience is how long somebody has for tapping Trust.
const defaultPatience = 2 * time.Minute

func (a *app) devicePairCommand() *cobra.Command {
	var wifi bool
	var patience time.Duration
	cmd := &cobra.Command{
		Use:   "pair [DEVICE]",
		Short: "Make a device trust this computer",
		Long: `Asks a device, connected by cable, to trust this computer, and waits until
somebody unlocks it, taps Trust and enters its passcode. A device that trusts
this computer already is left as it is. All programs on this computer share the
pairing.`,
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, argv []string) error {
			ctx := cmd.Context()
			m, e, err := oneDevice(ctx, argv)
			if err != nil {
				return err
			}
			name, sealed := e.UDID, false
			if info, err := m.Describe(ctx, e); err == nil && info.Name != "" {
				name, sealed = info.Name, info.Trust == device.Locked
			}
			err = m.Pair(ctx, e, device.PairOptions{Now: a.now(), Random: rand.Reader, Wait: patience, On: func(t device.Trust) {
				// Said whatever --quiet says: nothing goes on until somebody has done it.
				switch {
				case t == device.Trusted:
				case a.json:
					a.warn("%s: %s", name, t.Words())
				default:
					fmt.Fprintf(a.stderr, "%s: %s\n", clean(name), t.Words())
				}
			}})
			if err != nil {
				return orInterrupted(ctx, err, "nothing was changed; run the same command again, and tap Trust")
			}
			res := pairResult{UDID: e.UDID, Name: name, Trust: device.Trusted, WiFi: wifi}
			if wifi {
				if err := m.EnableWiFi(ctx, e); err != nil {
					return fmt.Errorf("%s trusts this computer, but: %w", name, err)
				}
			}
			return a.print(res, func(w io.Writer) {
				fmt.Fprintf(w, "%s trusts this computer\n", clean(name))
				if sealed {
					a.remark("before a backup it has to be unlocked: nobody has done that since it was switched on")
				}
				if wifi {
					fmt.Fprintln(w, "it can be reached by Wi-Fi, too")
				}
			})
		},
	}
	cmd.Flags().BoolVar(&wifi, "wifi", false, "also let the device be reached by Wi-Fi")
	cmd.Flags().DurationVar(&patience, "wait", defaultPatience, "how `long` to wait for somebody to tap Trust")
	return cmd
}

func (a *app) deviceUnpairCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "unpair DEVICE",
		Short: "Make a device and this computer forget each other",
		Long: `Ends the pairing of a device with this computer, for all programs. Snapshots
and kept backup passwords stay.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, argv []string) error {
			m, e, err := oneDevice(cmd.Context(), argv)
			if err != nil {
				return err
			}
			if err := m.Unpair(cmd.Context(), e); err != nil {
				return err
			}
			return a.print(pairResult{UDID: e.UDID, Trust: device.NotPaired}, func(w io.Writer) {
				fmt.Fprintf(w, "%s and this computer have forgotten each other\n", e.UDID)
			})
		},
	}
}
