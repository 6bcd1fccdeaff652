package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo"
	"github.com/spf13/cobra"
)

func (a *app) keyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "List, add and remove keys and change the password",
		Long: `A repository has one or more keys: passwords, key files and recovery keys. Each
opens the complete repository. A removed key still opens older copies of the
repository (docs/threat-model.md).`,
		Args: suggest,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },

		SuggestionsMinimumDistance: 2,
	}
	cmd.AddCommand(a.keyListCommand(), a.keyAddCommand(), a.keyRemoveCommand(), a.keyPasswdCommand())
	return cmd
}

func (a *app) keyListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the keys of the repository",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := a.openLocked(cmd, repo.LockRead)
			if err != nil {
				return err
			}
			keys, err := r.Keys(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(keys, func(w io.Writer) {
				var rows []string
				for _, k := range keys {
					mark := " "
					if k.Current {
						mark = "*"
					}
					if k.Damaged != "" {
						rows = append(rows, fmt.Sprintf("%s%s\tDAMAGED\t%s\t", mark, k.ID.Short(), clean(k.Damaged)))
						continue
					}
					rows = append(rows, fmt.Sprintf("%s%s\t%s\t%s\t%s", mark, k.ID.Short(), k.Kind, timeText(k.Created), clean(k.Label)))
				}
				table(w, " ID\tKIND\tCREATED\tLABEL", rows)
			})
		},
	}
}

// newKeyFlags say where the secret of a new key comes from.
type newKeyFlags struct{ file, command, keyFile, label string }

func (f *newKeyFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.file, "new-password-file", "", "read the new password from the first line of this `file`")
	cmd.Flags().StringVar(&f.command, "new-password-command", "", "read the new password from the output of this shell `command`")
}

// keyResult is the output of key add and key passwd.
type keyResult struct {
	ID       repo.FileID     `json:"id"`
	Kind     crypto.SlotKind `json:"kind"`
	Recovery string          `json:"recovery_key,omitempty"`
}

func (a *app) keyAddCommand() *cobra.Command {
	var flags newKeyFlags
	var recovery bool
	cmd := &cobra.Command{
		Use:   "add",
		Short: "Add a password, a key file or a recovery key",
		Long: `Adds a key that also opens the repository. Without flags it prompts for a new
password. --recovery makes a recovery key and prints it once: write it down and
keep it in a safe place. It is accepted wherever the password is.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			r, err := a.openLocked(cmd, repo.LockWrite)
			if err != nil {
				return err
			}
			res := keyResult{Kind: crypto.RecoverySlot}
			var secret []byte
			if recovery {
				if res.Recovery, err = crypto.NewRecoveryKey(rand.Reader); err == nil {
					secret, err = crypto.Secret(res.Recovery)
				}
			} else {
				secret, res.Kind, err = a.newSecret(ctx, flags.file, flags.command, flags.keyFile, false)
			}
			if err != nil {
				return err
			}
			defer clear(secret)
			label := flags.label
			if label == "" {
				label = whoami()
			}
			if res.ID, err = r.AddKey(ctx, secret, crypto.SlotInfo{Kind: res.Kind, Label: label}); err != nil {
				return err
			}
			return a.print(res, func(w io.Writer) {
				if !recovery {
					fmt.Fprintf(w, "added key %s (%s)\n", res.ID.Short(), res.Kind)
					return
				}
				a.remark("Write this recovery key down. It is shown only now.\n")
				fmt.Fprintf(w, "    %s\n", res.Recovery)
				a.remark("\nadded key %s (%s)", res.ID.Short(), res.Kind)
			})
		},
	}
	flags.register(cmd)
	cmd.Flags().StringVar(&flags.keyFile, "new-key-file", "", "use the content of this `file` as the new key (at least 16 bytes)")
	cmd.Flags().StringVar(&flags.label, "label", "", "`owner` of the key (default user@host)")
	cmd.Flags().BoolVar(&recovery, "recovery", false, "make a recovery key and print it")
	cmd.MarkFlagsMutuallyExclusive("recovery", "new-password-file", "new-password-command", "new-key-file")
	return cmd
}

func (a *app) keyRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "remove ID",
		Short: "Remove a key",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, ids []string) error {
			r, err := a.openLocked(cmd, repo.LockWrite)
			if err != nil {
				return err
			}
			id, err := r.RemoveKey(cmd.Context(), ids[0])
			if err != nil {
				return err
			}
			return a.print(struct {
				Removed repo.FileID `json:"removed"`
			}{id}, func(w io.Writer) { fmt.Fprintf(w, "removed key %s\n", id.Short()) })
		},
	}
}

func (a *app) keyPasswdCommand() *cobra.Command {
	var flags newKeyFlags
	cmd := &cobra.Command{
		Use:   "passwd",
		Short: "Change the password that opened the repository",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			r, err := a.openLocked(cmd, repo.LockWrite)
			if err != nil {
				return err
			}
			secret, kind, err := a.newSecret(ctx, flags.file, flags.command, "", false)
			if err != nil {
				return err
			}
			defer clear(secret)
			id, err := r.ChangePassword(ctx, secret, kind)
			if err != nil {
				return err
			}
			return a.print(keyResult{ID: id, Kind: kind}, func(w io.Writer) {
				fmt.Fprintf(w, "the new password is key %s; the old one no longer opens the repository\n", id.Short())
			})
		},
	}
	flags.register(cmd)
	return cmd
}

// newSecret returns the secret for a new key. It may come from SNAP_PASSWORD and
// similar variables if environment is true; otherwise these variables have the
// current password.
func (a *app) newSecret(ctx context.Context, file, command, keyFile string, environment bool) ([]byte, crypto.SlotKind, error) {
	if keyFile != "" {
		b, err := readKeyFile(keyFile)
		return b, crypto.KeyFileSlot, err
	}
	var typed []byte
	var err error
	switch {
	case file != "":
		typed, err = readPasswordFile(file)
	case command != "":
		typed, err = a.runCommand(ctx, command)
	case environment:
		typed, err = a.given(ctx, "", "")
	}
	if err == nil && typed == nil {
		ways := newRepoPassword
		if environment {
			ways = repoPassword
		}
		typed, err = a.askNew(ctx, "the repository", ways)
	}
	if err != nil {
		return nil, "", err
	}
	defer clear(typed)
	secret, err := crypto.Secret(string(typed))
	if errors.Is(err, crypto.ErrRecoveryTypo) {
		// snap would always take this password for a mistyped recovery key.
		err = usageError{errors.New("a password must not look like a recovery key; choose another one")}
	}
	return secret, crypto.PasswordSlot, err
}
