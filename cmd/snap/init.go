package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/local"
	"github.com/spf13/cobra"
)

func (a *app) initCommand() *cobra.Command {
	var guard string
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a new repository",
		Long: `Makes a new, empty repository in the folder given with -r or SNAP_REPOSITORY.

The password is asked for, or comes from --password-file, --password-command,
SNAP_PASSWORD or --key-file. Without it nobody can read the repository: add a
recovery key with "snap key add --recovery" and keep it on paper.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			percent := 0
			if guard != "" {
				var err error
				if percent, err = parsePercent(guard); err != nil {
					return err
				}
			}
			dir, err := a.location()
			if err != nil {
				return err
			}
			if be, err := local.Open(dir); err == nil {
				// Said before a password is asked for.
				if _, err := be.Stat(ctx, "config"); err == nil {
					return fmt.Errorf("%s: %w", dir, repo.ErrExists)
				}
			}
			secret, kind, err := a.newSecret(cmd.Context(), a.passwordFile, a.passwordCommand, a.keyFile, true)
			if err != nil {
				return err
			}
			defer clear(secret)
			be, err := local.Create(dir)
			if errors.Is(err, backend.ErrExist) {
				// What an interrupted init left is no obstacle; repo.Create
				// tells it from a folder that is in use.
				be, err = local.Open(dir)
			}
			if err != nil {
				return err
			}
			r, err := repo.Create(ctx, be, secret, crypto.SlotInfo{Kind: kind, Label: whoami()}, a.options)
			if err != nil {
				return fmt.Errorf("%s: %w", dir, err)
			}
			if err := r.MakeReserve(ctx); err != nil {
				a.warn("the repository is there, but has no reserve for when the disk is full: %v", err)
			}
			if percent > 0 {
				if _, err := r.RefreshParity(ctx, percent, nil); err != nil {
					return fmt.Errorf("the repository was made, but without parity: %w", err)
				}
			}
			result := struct {
				Repository string `json:"repository"`
				ID         string `json:"id"`
				Format     int    `json:"format"`
			}{dir, r.Config().ID, r.Config().Version}
			return a.print(result, func(w io.Writer) {
				fmt.Fprintf(w, "made repository %.8s in %s\n", result.ID, dir)
				if kind == crypto.PasswordSlot {
					a.remark("Keep the password: without it nobody can read the repository.\nA recovery key for the safe: snap key add --recovery")
				}
			})
		},
	}
	cmd.Flags().StringVar(&guard, "parity", "", "guard it against bit rot with so many `percent` more, such as 5% (snap help parity)")
	return cmd
}

// whoami says who made a key, as user@host.
func whoami() string {
	host, _ := os.Hostname()
	if u, err := user.Current(); err == nil {
		return u.Username + "@" + host
	}
	return host
}
