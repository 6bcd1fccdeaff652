package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/snap-backup/snap/config"
	"github.com/snap-backup/snap/device/ingest/passwordchange"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/repo"
	"github.com/spf13/cobra"
)

func (a *app) deviceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "device",
		Short: "Pair, describe, encrypt a device, and store its backup password",
		Args:  suggest,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },

		SuggestionsMinimumDistance: 2,
	}
	password := &cobra.Command{
		Use:   "password",
		Short: "Store, forget and test the backup password of a device",
		Long: `With the device's backup password snap decrypts encrypted backups before it
stores them, so that they are deduplicated with other days and devices. The
repository can store the password, sealed like everything else, for later
backups.

Snapshots can be materialized without the password. A device needs it to restore
from them.`,
		Args: suggest,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },

		SuggestionsMinimumDistance: 2,
	}
	password.AddCommand(a.devicePasswordSetCommand(), a.devicePasswordForgetCommand(), a.devicePasswordTestCommand())
	cmd.AddCommand(a.deviceInfoCommand(), a.devicePairCommand(), a.deviceUnpairCommand(), a.deviceEncryptionCommand(), password)
	return cmd
}

// devicePasswordResult is the output of the commands below.
type devicePasswordResult struct {
	UDID   string `json:"udid"`
	Name   string `json:"device_name,omitempty"`
	Kept   int    `json:"kept"`   // number of passwords kept for the device after the command
	Tested int    `json:"tested"` // number of encrypted snapshots whose keybag was tried
	Opened int    `json:"opened"` // number of these that a password opened
}

func (a *app) devicePasswordSetCommand() *cobra.Command {
	var source backupPassword
	var untested bool
	cmd := &cobra.Command{
		Use:   "set DEVICE",
		Short: "Store a backup password of a device in the repository",
		Long: `Stores a backup password in addition to earlier ones, which older snapshots may
need. The password must open the newest encrypted snapshot of the device, if
there is one; --untested skips that test.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, argv []string) error {
			ctx := cmd.Context()
			r, d, err := a.openDevice(cmd, repo.LockWrite, argv[0])
			if err != nil {
				return err
			}
			pw, err := source.given(ctx, a)
			if err == nil && pw == nil {
				pw, err = a.askNew(ctx, "backups of "+clean(d.name), oldBackupPassword)
			}
			if err != nil {
				return err
			}
			defer pw.clear()
			res := devicePasswordResult{UDID: d.udid, Name: d.name}
			if enc := d.encrypted(); len(enc) > 0 && !untested {
				res.Tested = 1
				form, err := a.opensAny(ctx, r, enc[len(enc)-1], pw.tries())
				if err != nil {
					return err
				}
				if form == nil {
					return advised{wrongBackupPassword{d.name}, "nothing was stored: the password does not open the newest encrypted snapshot; try again, or store it anyway with --untested"}
				}
				res.Opened = 1
				pw.clear()
				pw = &typed{text: form}
			}
			if pw.bad != nil {
				return pw.bad
			}
			if err := r.KeepDevicePassword(ctx, d.udid, pw.text); err != nil {
				return err
			}
			kept, err := r.DevicePasswords(ctx, d.udid)
			if err != nil {
				return err
			}
			clearPasswords(kept)
			res.Kept = len(kept)
			return a.conclude(res, false, func(w io.Writer) {
				tested := ""
				if res.Opened > 0 {
					tested = "; it opens the newest snapshot"
				}
				fmt.Fprintf(w, "the repository keeps the backup password of %s%s\n", clean(d.name), tested)
			})
		},
	}
	source.register(cmd)
	cmd.Flags().BoolVar(&untested, "untested", false, "do not try the password on a snapshot")
	return cmd
}

func (a *app) devicePasswordForgetCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "forget DEVICE",
		Short: "Remove the backup passwords of a device from the repository",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, argv []string) error {
			r, d, err := a.openDevice(cmd, repo.LockWrite, argv[0])
			if err != nil {
				return err
			}
			n, err := r.ForgetDevicePasswords(cmd.Context(), d.udid)
			if err != nil {
				return err
			}
			return a.conclude(devicePasswordResult{UDID: d.udid, Name: d.name}, false, func(w io.Writer) {
				fmt.Fprintf(w, "forgot %s of %s\n", plural(int64(n), "backup password"), clean(d.name))
			})
		},
	}
}

func (a *app) devicePasswordTestCommand() *cobra.Command {
	var source backupPassword
	cmd := &cobra.Command{
		Use:   "test DEVICE",
		Short: "Try the backup passwords of a device on its snapshots",
		Long: `Tries the passwords that the repository keeps, or a given one, on the keybag of
every encrypted snapshot of the device. The device need not be connected. Each
attempt takes a few seconds. A device needs the password of a snapshot
to restore from it.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, argv []string) error {
			ctx := cmd.Context()
			r, d, err := a.openDevice(cmd, repo.LockRead, argv[0])
			if err != nil {
				return err
			}
			kept, err := r.DevicePasswords(ctx, d.udid)
			if err != nil {
				return err
			}
			defer clearPasswords(kept)
			passwords, err := source.toTry(ctx, a)
			if err != nil {
				return err
			}
			defer clearAll(passwords)
			if passwords == nil {
				for _, p := range kept {
					passwords = append(passwords, p.Password)
				}
			}
			if len(passwords) == 0 {
				return advised{usageError{fmt.Errorf("the repository keeps no backup password of %s, and none is given", clean(d.name))},
					fmt.Sprintf("use --backup-password-file, or store one with \"snap device password set %s\"", d.udid)}
			}
			res := devicePasswordResult{UDID: d.udid, Name: d.name, Kept: len(kept)}
			var locked []string
			if locked, err = a.testAll(ctx, r, d.encrypted(), passwords, &res); err != nil {
				return err
			}
			err = a.conclude(res, res.Opened < res.Tested, func(w io.Writer) {
				fmt.Fprintf(w, "opened %d of %d encrypted snapshots of %s\n", res.Opened, res.Tested, clean(d.name))
				for _, s := range locked {
					fmt.Fprintf(w, "  not opened: %s\n", s)
				}
			})
			if err == nil && res.Opened < res.Tested {
				err = silentError{wrongBackupPassword{d.name}}
			}
			return err
		},
	}
	source.register(cmd)
	return cmd
}

// testAll tries passwords on snapshots and returns the snapshots that no password
// opens. It tries each distinct keybag only once.
func (a *app) testAll(ctx context.Context, r *repo.Repo, list []*repo.Snapshot, passwords [][]byte, res *devicePasswordResult) ([]string, error) {
	var locked []string
	known := map[[32]byte]bool{}
	for _, s := range list {
		bag, err := passwordchange.KeyBag(ctx, r, s)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(bag)
		opens, ok := known[sum]
		for i := 0; i < len(passwords) && !ok && !opens; i++ {
			form, err := a.opens(ctx, r, s, passwords[i])
			if err != nil {
				return nil, err
			}
			opens = form != nil
			clear(form)
		}
		known[sum] = opens
		res.Tested++
		if opens {
			res.Opened++
		} else {
			locked = append(locked, fmt.Sprintf("%s of %s", s.ID.Short(), timeText(s.Time)))
		}
	}
	return locked, nil
}

// opens tries a password on the keybag of a snapshot. It returns a copy of the form of
// the password that opens it, or nil if none does.
func (a *app) opens(ctx context.Context, r *repo.Repo, s *repo.Snapshot, password []byte) (form []byte, err error) {
	raw, err := passwordchange.KeyBag(ctx, r, s)
	if err != nil {
		return nil, err
	}
	bag, err := keybag.Parse(raw)
	if err != nil {
		return nil, err
	}
	var done, total atomic.Int64
	stop := a.showProgress(func() meter {
		return meter{phase: "trying the password", percent: percent(done.Load(), total.Load())}
	})
	defer stop()
	keys, form, err := bag.UnlockText(ctx, password, func(d, t uint64) { done.Store(int64(d)); total.Store(int64(t)) })
	if errors.Is(err, keybag.ErrWrongPassword) {
		return nil, nil
	}
	if err == nil {
		keys.Destroy()
	}
	return form, err
}

// knownDevice is a device with snapshots in the repository, or only a UDID if there
// are none.
type knownDevice struct {
	udid, name string
	snapshots  []*repo.Snapshot
}

func (d *knownDevice) encrypted() []*repo.Snapshot {
	var out []*repo.Snapshot
	for _, s := range d.snapshots {
		if s.Encrypted {
			out = append(out, s)
		}
	}
	return out
}

// openDevice opens the repository and finds a device by UDID or name. It accepts a
// UDID that has no snapshots, because a password may be stored before the first
// backup.
func (a *app) openDevice(cmd *cobra.Command, kind repo.LockKind, device string) (*repo.Repo, *knownDevice, error) {
	ctx := cmd.Context()
	device = a.deviceName(device)
	r, err := a.openLocked(cmd, kind)
	if err != nil {
		return nil, nil, err
	}
	list, damaged, err := r.SnapshotsIndexed(ctx)
	if err != nil {
		return nil, nil, err
	}
	a.warnOfRecords(damaged)
	a.warnOfIndex(r, list...)
	own, err := repo.OfDevice(list, device)
	if err != nil {
		return nil, nil, fmt.Errorf("device %q: %w", device, err)
	}
	if len(own) > 0 {
		d := newest(own).Device
		return r, &knownDevice{d.UDID, d.Name, own}, nil
	}
	if !config.IsUDID(device) {
		return nil, nil, fmt.Errorf("no device is named %q; name a device without snapshots by its UDID: %w", device, repo.ErrNoSnapshot)
	}
	return r, &knownDevice{udid: device, name: device}, nil
}
