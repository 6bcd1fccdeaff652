package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

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
	cmd.AddCommand(a.keyListCommand(), a.keyAddCommand(), a.keyRemoveCommand(), a.keyPasswdCommand(), a.keyRememberCommand(), a.keyForgetHereCommand())
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
			a.renewKey(cmd.Context(), r)
			keys, err := r.Keys(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(keys, func(w io.Writer) {
				var rows []string
				older := 0
				for _, k := range keys {
					mark := " "
					if k.Current {
						mark = "*"
					}
					if k.Newer {
						rows = append(rows, fmt.Sprintf("%s%s\tNEWER\t\ta newer snap made this key, and this one cannot use it", mark, k.ID.Short()))
						continue
					}
					if k.Damaged != "" {
						state := "DAMAGED"
						if k.Exchanged {
							state = "EXCHANGED"
						}
						rows = append(rows, fmt.Sprintf("%s%s\t%s\t\t%s", mark, k.ID.Short(), state, clean(k.Damaged)))
						continue
					}
					label := clean(k.Label)
					if !k.Bound {
						older++
						label += " (not proven)"
					}
					rows = append(rows, fmt.Sprintf("%s%s\t%s\t%s\t%s", mark, k.ID.Short(), k.Kind, timeText(k.Created), strings.TrimSpace(label)))
				}
				table(w, " ID\tKIND\tCREATED\t+LABEL", rows)
				if older > 0 {
					a.remark("%s of an older version: whoever can write to the storage can exchange their kinds and labels. A key is renewed when it is used for \"snap key list\" or to store something.", plural(older, "key"))
				}
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
			if recovery && a.isNowhere() {
				return usageError{errors.New("nobody would see the recovery key: standard output is closed or the null device; nothing was changed")}
			}
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
			err = a.conclude(res, recovery, func(w io.Writer) {
				if !recovery {
					fmt.Fprintf(w, "added key %s (%s)\n", res.ID.Short(), res.Kind)
					return
				}
				a.remark("Write this recovery key down. It is shown only now.\n")
				fmt.Fprintf(w, "    %s\n", res.Recovery)
				a.remark("\nadded key %s (%s)", res.ID.Short(), res.Kind)
			})
			if lost := a.lostOutput(); lost != nil && recovery {
				return takeBack(ctx, r, res.ID, lost)
			}
			return err
		},
	}
	flags.register(cmd)
	cmd.Flags().StringVar(&flags.keyFile, "new-key-file", "", "use the content of this `file` as the new key (at least 16 bytes)")
	cmd.Flags().StringVar(&flags.label, "label", "", "`owner` of the key (default user@host)")
	cmd.Flags().BoolVar(&recovery, "recovery", false, "make a recovery key and print it")
	cmd.MarkFlagsMutuallyExclusive("recovery", "new-password-file", "new-password-command", "new-key-file")
	return cmd
}

// takeBack removes a recovery key that could not be shown, because nobody has it.
func takeBack(ctx context.Context, r *repo.Repo, id repo.FileID, cause error) error {
	if _, err := r.RemoveKey(context.WithoutCancel(ctx), id.String()); err != nil {
		return advised{errors.Join(cause, fmt.Errorf("key %s, which nobody has seen, could not be removed: %w", id.Short(), err)),
			fmt.Sprintf("remove it: snap key remove %s", id.Short())}
	}
	return advised{cause, "nobody has seen the recovery key, so it was removed again; run the same command again"}
}

func (a *app) keyRemoveCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "remove ID",
		Short: "Remove a key",
		Long: `Removes a key and says whether it is proven that the key no longer opens the
repository. Older copies of the repository still open with it
(docs/threat-model.md).

The key that you have just used is removed only if you confirm that, or with
--yes.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, ids []string) error {
			r, err := a.openToReplace(cmd)
			if err != nil {
				return err
			}
			gone, err := a.removeKey(cmd.Context(), r, ids[0], yes)
			if err != nil {
				return err
			}
			for _, why := range gone.Doubts {
				a.warn("it is not proven that the key no longer opens the repository: %s", why)
			}
			result := struct {
				Removed repo.FileID     `json:"removed"`
				Kind    crypto.SlotKind `json:"kind"`
				Label   string          `json:"label"`
				Copies  []repo.FileID   `json:"copies"`
				Proven  bool            `json:"proven"`
				Doubts  []string        `json:"doubts"`
			}{gone.ID, gone.Kind, gone.Label, gone.Copies, len(gone.Doubts) == 0, gone.Doubts}
			err = a.conclude(result, false, func(w io.Writer) {
				what := gone.ID.Short()
				if gone.Damaged == "" {
					what = strings.TrimSpace(fmt.Sprintf("%s (%s) %s", what, gone.Kind, clean(gone.Label)))
				}
				fmt.Fprintf(w, "removed key %s\n", what)
				if n := len(gone.Copies); n > 0 {
					fmt.Fprintf(w, "and %s that the same secret opened\n", plural(n, "other file"))
				}
			})
			if gone.Kind == crypto.RecoverySlot {
				a.warnOfNoRecovery(cmd.Context(), r)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "also remove the key that opened the repository, without a question")
	return cmd
}

// warnOfNoRecovery warns if the repository has no recovery key.
func (a *app) warnOfNoRecovery(ctx context.Context, r *repo.Repo) {
	keys, err := r.Keys(ctx)
	if err == nil && !slices.ContainsFunc(keys, func(k repo.KeyInfo) bool { return k.Kind == crypto.RecoverySlot }) {
		a.warn("no recovery key is left; \"snap key add --recovery\" makes one")
	}
}

// removeKey removes a key. If it is the one that opened the repository, a person must
// agree: that may be the only key whose secret anybody knows.
func (a *app) removeKey(ctx context.Context, r *repo.Repo, id string, yes bool) (*repo.RemovedKey, error) {
	if yes {
		return r.RemoveKey(ctx, id)
	}
	gone, err := r.RemoveOtherKey(ctx, id)
	if !errors.Is(err, repo.ErrKeyInUse) || !a.canAsk() {
		return gone, err
	}
	line, err := a.askLine(ctx, "this key has just opened the repository; without it you need another one. Type yes to remove it: ")
	if err != nil {
		return nil, orInterrupted(ctx, err, nothingDone)
	}
	if fold(line) != "yes" {
		return nil, advised{usageError{errors.New("not confirmed: nothing was changed")}, "run the same command again and type yes, or use --yes"}
	}
	return r.RemoveKey(ctx, id)
}

// renewKey replaces the key that opened the repository by one of the newest version. It is
// no error if that fails, since the key still opens the repository.
func (a *app) renewKey(ctx context.Context, r *repo.Repo) {
	if a.mayReplace() != nil {
		return // the old one would stay
	}
	k, err := r.RenewKey(ctx)
	switch {
	case errors.Is(err, repo.ErrNoKey):
		a.warn("%v; it was not renewed, and can no longer open the repository", err)
	case err != nil && ctx.Err() == nil:
		a.warn("the key of an older version was not renewed, and still opens the repository: %v", err)
	case k != nil:
		a.remark("key %s is now %s: its label %q is bound to it. If this is not the label of your key, the labels of two keys were exchanged.", k.Old.Short(), k.New.Short(), clean(k.Info.Label))
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
			r, err := a.openToReplace(cmd)
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
			return a.conclude(keyResult{ID: id, Kind: kind}, false, func(w io.Writer) {
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
		b, err := a.readKeyFile(keyFile)
		return b, crypto.KeyFileSlot, err
	}
	var pw *typed
	var err error
	switch {
	case file != "":
		pw, err = a.readPasswordFile(file)
	case command != "":
		pw, err = a.runCommand(ctx, command)
	case environment:
		pw, err = a.given(ctx, "", "")
	}
	if v, ok := a.fromFile("key-file"); ok && environment && err == nil && pw == nil {
		b, err := a.readKeyFile(v.Text)
		return b, crypto.KeyFileSlot, err
	}
	if err == nil && pw == nil {
		ways := newRepoPassword
		if environment {
			ways = repoPassword
		}
		pw, err = a.askNew(ctx, "the repository", ways)
	}
	if err != nil {
		return nil, "", err
	}
	defer pw.clear()
	text, err := pw.asNew()
	if err != nil {
		return nil, "", err
	}
	secret, err := crypto.Secret(string(text))
	if errors.Is(err, crypto.ErrRecoveryTypo) {
		// snap would always take this password for a mistyped recovery key.
		err = usageError{errors.New("a password must not look like a recovery key; choose another one")}
	}
	return secret, crypto.PasswordSlot, err
}
