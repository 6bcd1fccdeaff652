package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/host"
	"github.com/snap-backup/snap/device/protocol/backup2"
	"github.com/snap-backup/snap/internal/password"
	"github.com/snap-backup/snap/repo"
	"github.com/spf13/cobra"
)

// encryptionResult is the output of the commands below.
type encryptionResult struct {
	UDID      string `json:"udid"`
	Name      string `json:"device_name"`
	Encrypted bool   `json:"encrypted"` // whether later backups are encrypted
	Kept      bool   `json:"kept"`      // whether the repository keeps the new password
	Continues bool   `json:"continues"` // whether the next backup is incremental
}

func (a *app) deviceEncryptionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "encryption",
		Short: "Switch encryption of backups on or off, or change its password",
		Long: `Only encrypted backups contain saved passwords, health data, Wi-Fi networks and
call history. The device encrypts them with its backup password, which is not
its passcode and not the repository's password.

Without this password no backup can be decrypted or restored. If it is
forgotten, "Reset All Settings" on the device clears it. An older snapshot still
needs the password that the device had when the snapshot was made.`,
		Args: suggest,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },

		SuggestionsMinimumDistance: 2,
	}
	cmd.AddCommand(
		a.encryptionSwitch("on", "Encrypt the backups of a device", false, true),
		a.encryptionSwitch("change", "Change the backup password of a device", true, true),
		a.encryptionSwitch("off", "Stop encrypting the backups of a device", true, false),
	)
	return cmd
}

// passwordChange is one change of the backup password of a device.
type passwordChange struct {
	a                    *app
	old                  backupPassword
	newFile              string
	keep, noKeep         bool
	confirmed            bool
	hasOld, hasNew       bool
	host                 host.Host
	repo                 *repo.Repo
	entry                device.Entry
	info                 *device.Info
	oldSecret, newSecret []byte
	fromKept             bool
}

func (a *app) encryptionSwitch(name, short string, hasOld, hasNew bool) *cobra.Command {
	c := &passwordChange{a: a, hasOld: hasOld, hasNew: hasNew}
	cmd := &cobra.Command{
		Use:   name + " [DEVICE]",
		Short: short,
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, argv []string) error {
			return orInterrupted(cmd.Context(), c.run(cmd.Context(), argv), "nothing was changed; run the same command again")
		},
	}
	f := cmd.Flags()
	if hasOld {
		c.old.register(cmd)
	}
	if hasNew {
		f.StringVar(&c.newFile, "new-backup-password-file", "", "read the new backup password from the first line of this `file` (or $SNAP_NEW_BACKUP_PASSWORD)")
		f.BoolVar(&c.keep, "keep-password", true, "store the new password in the repository, so that backups are deduplicated")
		f.BoolVar(&c.noKeep, "no-keep-password", false, "do not store the new password")
		cmd.MarkFlagsMutuallyExclusive("keep-password", "no-keep-password")
	} else {
		f.BoolVar(&c.confirmed, "yes", false, "do not ask for confirmation")
	}
	return cmd
}

func (c *passwordChange) run(ctx context.Context, argv []string) error {
	m, e, err := c.a.oneDevice(ctx, argv)
	if err != nil {
		return err
	}
	r, release, err := c.a.openToWrite(ctx, "snap device encryption")
	if err != nil {
		return err
	}
	defer release()
	c.repo, c.entry = r, e
	if c.host, err = c.a.newHost(m, r, ""); err != nil {
		return err
	}
	// Find out before a prompt for passwords whether the change is possible.
	if c.info, err = c.host.Encryption(ctx, e, c.hasOld, c.hasNew); err != nil {
		return err
	}
	defer func() { clear(c.oldSecret); clear(c.newSecret) }()
	if err := c.ask(ctx); err != nil {
		return err
	}
	board := c.a.newBoard(ctx, m, []device.Entry{e})
	res, err := c.host.ChangePassword(ctx, e, c.oldSecret, c.newSecret, board.views[0])
	board.views[0].done()
	board.stop()
	if errors.Is(err, backup2.ErrWrongPassword) && c.hasOld {
		which := "given"
		if c.fromKept {
			which = "stored"
		}
		return fmt.Errorf("%s: the %s old backup password is wrong: %w", c.info.Name, which, err)
	}
	if err != nil {
		return orInterrupted(ctx, err, `if the passcode was entered, the password may have changed; "snap device info" shows whether encryption is on`)
	}
	return c.conclude(ctx, res)
}

// ask gets the passwords. Before encryption is switched off, it asks the user for
// consent.
func (c *passwordChange) ask(ctx context.Context) (err error) {
	name := clean(c.info.Name)
	if c.hasOld {
		if c.oldSecret, err = c.findOld(ctx); err != nil {
			return err
		}
	}
	if !c.hasNew {
		if c.confirmed {
			return nil
		}
		c.a.remark("backups of %s will lack passwords, health data, Wi-Fi networks and call history, and the next backup will be a full one: the device sends all files again", name)
		return c.a.confirm(ctx, c.info)
	}
	var pw *typed
	if c.newFile != "" {
		pw, err = c.a.readPasswordFile(c.newFile)
	} else {
		pw, err = fromVariable("SNAP_NEW_BACKUP_PASSWORD")
	}
	if pw == nil && err == nil {
		pw, err = c.a.askNew(ctx, "backups of "+name, newBackupPassword)
	}
	if err == nil {
		c.newSecret, err = pw.asNew()
	}
	return err
}

func (c *passwordChange) findOld(ctx context.Context) ([]byte, error) {
	given, err := c.old.given(ctx, c.a)
	if err != nil || given != nil {
		return oldText(given, err)
	}
	kept, err := c.repo.DevicePasswords(ctx, c.entry.UDID)
	if err != nil {
		return nil, err
	}
	if len(kept) > 0 {
		clearPasswords(kept[1:]) // the newest comes first
		c.fromKept = true
		return kept[0].Password, nil
	}
	return oldText(c.a.ask(ctx, fmt.Sprintf("backup password of %s: ", clean(c.info.Name)), oldBackupPassword))
}

// oldText returns the text of a password that opens something existing. It ignores the
// other bytes that earlier versions would have made of the same input.
func oldText(t *typed, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	return t.text, t.bad
}

func (c *passwordChange) conclude(ctx context.Context, res *host.PasswordResult) error {
	var notKept error
	out := encryptionResult{UDID: c.entry.UDID, Name: c.info.Name, Encrypted: c.hasNew, Continues: res.Continues}
	if c.hasNew && c.keep && !c.noKeep {
		// The device already has the new password, so this must not be interrupted.
		secret := password.Normal(c.newSecret) // as the device has it
		defer clear(secret)
		if err := c.repo.KeepDevicePassword(context.WithoutCancel(ctx), c.entry.UDID, secret); err != nil {
			notKept = notKeptError{c.info.Name, c.entry.UDID, err}
		} else {
			out.Kept = true
		}
	}
	err := c.a.conclude(out, out.Encrypted && !out.Kept, func(w io.Writer) {
		name := clean(c.info.Name)
		if !out.Encrypted {
			fmt.Fprintf(w, "%s no longer encrypts its backups\n", name)
		} else {
			fmt.Fprintf(w, "%s encrypts its backups with the new password\n", name)
		}
		if out.Kept {
			fmt.Fprintln(w, "the repository keeps the password; write it down, too: a device needs it to restore")
		} else if out.Encrypted {
			fmt.Fprintln(w, "write the password down: it cannot be recovered, and a device needs it to restore")
		}
		if !out.Continues {
			fmt.Fprintln(w, "the next backup will be a full one: the device sends all files again")
		}
	})
	return cmp.Or(err, notKept)
}

// notKeptError says that a device has a new backup password that the repository does not
// keep.
type notKeptError struct {
	name, udid string
	err        error
}

func (e notKeptError) Error() string {
	return fmt.Sprintf("%s has the new password, but the repository does not keep it: %v", e.name, e.err)
}

func (e notKeptError) Unwrap() error { return e.err }

func (e notKeptError) Hint() string {
	return fmt.Sprintf("store it with \"snap device password set %s\"; without it, later backups are stored locked", e.udid)
}
