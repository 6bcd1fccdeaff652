package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/snap-backup/snap/device"
	"github.com/spf13/cobra"
)

// oneDevice returns the device that the argument names, or without an argument the
// only connected device.
func (a *app) oneDevice(ctx context.Context, argv []string) (*device.Mux, device.Entry, error) {
	m, err := mux()
	if err != nil {
		return nil, device.Entry{}, err
	}
	name := ""
	if len(argv) > 0 {
		name = a.deviceName(argv[0])
		if strings.TrimSpace(name) == "" {
			return nil, device.Entry{}, usageError{errors.New("the device's name is empty")}
		}
	}
	e, err := m.Find(ctx, name)
	return m, e, err
}

func (a *app) deviceInfoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "info [DEVICE]",
		Short: "Describe a connected device",
		Long: `Describes a connected device. DEVICE is its UDID, its name, or the beginning of
either. It may be omitted if only one device is connected. Most of the
description is missing if the device does not trust this computer.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, argv []string) error {
			ctx := cmd.Context()
			m, e, err := a.oneDevice(ctx, argv)
			if err != nil {
				return err
			}
			list, err := a.snapshotsWithoutPrompt(ctx)
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
	known("Encryption", d.WillEncrypt, "on: its backups are encrypted", "off: its backups lack passwords and health data")
	known("", d.RequiresEncryption, "required by the organisation that manages it", "")
	known("Passcode", d.PasscodeSet, "set: from iOS 15.7 on, except with iOS 16.0, the device asks for it before a backup", "not set")
	known("Find My", d.FindMy, "on: switch it off before a restore", "off")
	known("iCloud backup", d.CloudBackup, "on", "off")
	if d.Battery != nil {
		charging := ""
		if d.Battery.Charging {
			charging = ", charging"
		}
		line("Battery", fmt.Sprintf("%d%%%s", d.Battery.Percent, charging))
	}
	if d.Storage != nil {
		line("Storage", fmt.Sprintf("%s, %s free", bytesText(d.Storage.Total), bytesText(d.Storage.Free)))
	}
	if d.LastBackup != nil {
		line("Last backup", timeText(*d.LastBackup)+", to any computer")
	}
	if d.LastSnapshot != nil {
		line("Last snapshot", fmt.Sprintf("%s of %s, %s", d.LastSnapshot.ID.Short(), timeText(d.LastSnapshot.Time), ageOf(d.LastSnapshot)))
	}
}

// pairResult is the output of pair and unpair.
type pairResult struct {
	UDID  string       `json:"udid"`
	Name  string       `json:"device_name,omitempty"`
	Trust device.Trust `json:"trust"`
	WiFi  bool         `json:"wifi_enabled"`
}

// defaultTrustWait is how long to wait for a tap on Trust.
const defaultTrustWait = 2 * time.Minute

func (a *app) devicePairCommand() *cobra.Command {
	var wifi bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "pair [DEVICE]",
		Short: "Make a device trust this computer",
		Long: `Asks a device that is connected by cable to trust this computer, and waits until
it is unlocked, Trust is tapped and its passcode is entered. Nothing changes if
the device already trusts this computer. All programs on this computer share the
pairing.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, argv []string) error {
			ctx := cmd.Context()
			m, e, err := a.oneDevice(ctx, argv)
			if err != nil {
				return err
			}
			name, locked := e.UDID, false
			if info, err := m.Describe(ctx, e); err == nil && info.Name != "" {
				name, locked = info.Name, info.Trust == device.Locked
			}
			err = m.Pair(ctx, e, device.PairOptions{Now: a.now(), Random: rand.Reader, KeyBits: a.keyBits, Wait: wait, On: func(t device.Trust) {
				// Printed despite --quiet, because the device waits for its user.
				switch {
				case t == device.Trusted:
				case a.json:
					a.warn("%s: %s", name, t.Words())
				default:
					fmt.Fprintf(a.messages(), "%s: %s\n", clean(name), t.Words())
				}
			}})
			if err != nil {
				return orInterrupted(ctx, err, "nothing was changed; run the same command again and tap Trust")
			}
			res := pairResult{UDID: e.UDID, Name: name, Trust: device.Trusted, WiFi: wifi}
			if wifi {
				if err := m.EnableWiFi(ctx, e); err != nil {
					return fmt.Errorf("%s trusts this computer, but Wi-Fi is not enabled: %w", name, err)
				}
			}
			return a.conclude(res, locked, func(w io.Writer) {
				fmt.Fprintf(w, "%s trusts this computer\n", clean(name))
				if locked {
					a.remark("unlock it before a backup: it has not been unlocked since it was switched on")
				}
				if wifi {
					fmt.Fprintln(w, "it can also be reached by Wi-Fi")
				}
			})
		},
	}
	cmd.Flags().BoolVar(&wifi, "wifi", false, "also make the device reachable by Wi-Fi")
	cmd.Flags().DurationVar(&wait, "wait", defaultTrustWait, "`duration` to wait for a tap on Trust")
	return cmd
}

func (a *app) deviceUnpairCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "unpair DEVICE",
		Short: "Make a device and this computer forget each other",
		Long: `Ends the pairing of a device with this computer, for all programs. Snapshots and
kept backup passwords stay.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, argv []string) error {
			m, e, err := a.oneDevice(cmd.Context(), argv)
			if err != nil {
				return err
			}
			name := e.UDID
			// The name is only for the message. The device does not tell it afterwards.
			if info, err := m.Describe(cmd.Context(), e); err == nil && info.Name != "" {
				name = info.Name
			}
			if err := m.Unpair(cmd.Context(), e); err != nil {
				return err
			}
			res := pairResult{UDID: e.UDID, Trust: device.NotPaired}
			if name != e.UDID {
				res.Name, name = name, fmt.Sprintf("%s (%s)", name, e.UDID)
			}
			return a.conclude(res, false, func(w io.Writer) {
				fmt.Fprintf(w, "%s and this computer are no longer paired\n", clean(name))
			})
		},
	}
}
