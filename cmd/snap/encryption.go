package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/host"
	"github.com/snap-backup/snap/device/protocol/backup2"
	"github.com/snap-backup/snap/repo"
	"github.com/spf13/cobra"
)

// encryptionResult is what the commands below print.
type encryptionResult struct {
	UDID      string `json:"udid"`
	Name      string `json:"device_name"`
	Encrypted bool   `json:"encrypted"` // its backups are, from now on
	Kept      bool   `json:"kept"`      // the new password, in the repository
	Continues bool   `json:"continues"` // the next backup is no full one
}

func (a *app) deviceEncryptionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "encryption",
		Short: "Switch the encryption of a device's backups, change its password",
		Long: `An encrypted backup has what a plain one lacks: saved passwords, health data,
Wi-Fi networks, call history. The device encrypts with a backup password that it
keeps itself; it is not the device's passcode, nor the repository's password.

Whoever forgets it can back up no more to look into, and restore none; it can be
cleared on the device alone (Reset All Settings). Older snapshots keep the password
that they were made with.`,
		Args: suggest,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },

		SuggestionsMinimumDistance: 2,
	}
	cmd.AddCommand(
		a.encryptionSwitch("on", "Have a device encrypt its backups", false, true),
		a.encryptionSwitch("change", "Change the backup password of a device", true, true),
		a.encryptionSwitch("off", "Have a device encrypt its backups no more", true, false),
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
		Args:  args(cobra.MaximumNArgs(1)),
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
		f.BoolVar(&c.keep, "keep-password", true, "keep the new password in the repository, sealed, so that backups share storage")
		f.BoolVar(&c.noKeep, "no-keep-password", false, "do not keep it")
		cmd.MarkFlagsMutuallyExclusive("keep-password", "no-keep-password")
	} else {
		f.BoolVar(&c.confirmed, "yes", false, "do not ask")
	}
	return cmd
}

func (c *passwordChange) run(ctx context.Context, argv []string) error {
	m, e, err := oneDevice(ctx, argv)
	if err != nil {
		return err
	}
	r, release, err := c.a.openToWrite(ctx, "snap device encryption")
	if err != nil {
		return err
	}
	defer release()
	c.repo, c.entry = r, e
	if c.host, err = c.a.flowHost(m, r, ""); err != nil {
		return err
	}
	// Before anybody types a password for nothing.
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
			which = "that the repository keeps"
		}
		return fmt.Errorf("%s: the old backup password %s is wrong: %w", c.info.Name, which, err)
	}
	if err != nil {
		return orInterrupted(ctx, err, `if the device was given its passcode, it may have been changed: "snap device info" tells whether encryption is on`)
	}
	return c.conclude(ctx, res)
}

// ask gathers the passwords, or the consent to go without.
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
		c.a.remark("backups of %s will lack passwords, health data, Wi-Fi networks and call history, and the next one is a full one", name)
		return c.a.confirm(ctx, c.info)
	}
	switch pw := os.Getenv("SNAP_NEW_BACKUP_PASSWORD"); {
	case c.newFile != "":
		c.newSecret, err = readPasswordFile(c.newFile)
	case pw != "":
		c.newSecret = []byte(pw)
	default:
		c.newSecret, err = c.a.askNew(ctx, "backups of "+name, newBackupPassword)
	}
	return err
}

func (c *passwordChange) findOld(ctx context.Context) ([]byte, error) {
	given, err := c.old.given(ctx, c.a)
	if err != nil || given != nil {
		return given, err
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
	return c.a.ask(ctx, fmt.Sprintf("backup password of %s: ", clean(c.info.Name)), oldBackupPassword)
}

func (c *passwordChange) conclude(ctx context.Context, res *host.PasswordResult) error {
	out := encryptionResult{UDID: c.entry.UDID, Name: c.info.Name, Encrypted: c.hasNew, Continues: res.Continues}
	if c.hasNew && c.keep && !c.noKeep {
		// The device has it already: that counts, whatever happens here.
		if err := c.repo.KeepDevicePassword(context.WithoutCancel(ctx), c.entry.UDID, c.newSecret); err != nil {
			c.a.warn("%s has the new password, but the repository could not keep it: %v", c.info.Name, err)
		} else {
			out.Kept = true
		}
	}
	return c.a.print(out, func(w io.Writer) {
		name := clean(c.info.Name)
		if !out.Encrypted {
			fmt.Fprintf(w, "%s does not encrypt its backups any more\n", name)
		} else {
			fmt.Fprintf(w, "%s encrypts its backups with the new password\n", name)
		}
		if out.Kept {
			fmt.Fprintln(w, "the repository keeps it; keep it at another place, too: a device wants it to restore")
		} else if out.Encrypted {
			fmt.Fprintln(w, "keep it well: nobody can find it out, and a device wants it to restore")
		}
		if !out.Continues {
			fmt.Fprintln(w, "the next backup is a full one")
		}
	})
}
