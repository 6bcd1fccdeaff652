package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/snap-backup/snap/repo/backend/restserver"
	"github.com/spf13/cobra"
)

const newServerPassword passwordWays = "--new-password-file"

func (a *app) serveUserCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "user",
		Short: "Add and remove users of a server",
		Long: `Adds and removes the users of a server in an htpasswd file. A server that runs
reads the file again by itself. Apache's "htpasswd -B" makes such files, too.`,
		Args: suggest,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },

		SuggestionsMinimumDistance: 2,
	}
	cmd.AddCommand(a.serveUserAddCommand(), a.serveUserRemoveCommand())
	return cmd
}

// serveUser is the output of the commands that change users.
type serveUser struct {
	User     string `json:"user"`
	File     string `json:"file"`
	Replaced bool   `json:"replaced,omitempty"`
}

func (a *app) serveUserAddCommand() *cobra.Command {
	var file, passwordFile string
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a user, or change a user's password",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, argv []string) error {
			if err := checkUserFile(file, argv[0]); err != nil {
				return err
			}
			var pw *typed
			var err error
			if passwordFile != "" {
				pw, err = a.readPasswordFile(passwordFile)
			} else {
				pw, err = a.askNew(cmd.Context(), "the user "+argv[0], newServerPassword)
			}
			if err != nil {
				return err
			}
			defer pw.clear()
			text, err := pw.asNew()
			if err != nil {
				return err
			}
			res := serveUser{User: argv[0], File: file}
			err = restserver.EditUsers(file, func(old []byte) (out []byte, err error) {
				out, res.Replaced, err = restserver.SetPassword(old, argv[0], string(text), restserver.NewCost)
				return out, err
			})
			if err != nil {
				return fmt.Errorf("nothing was changed: %w", err)
			}
			return a.conclude(res, false, func(w io.Writer) {
				if res.Replaced {
					fmt.Fprintf(w, "changed the password of %s in %s\n", res.User, clean(file))
					return
				}
				fmt.Fprintf(w, "added %s to %s\n", res.User, clean(file))
			})
		},
	}
	cmd.Flags().StringVar(&file, "htpasswd", "", "the `file` of users; it need not exist")
	cmd.Flags().StringVar(&passwordFile, "new-password-file", "", "read the password from the first line of this `file`")
	return cmd
}

func (a *app) serveUserRemoveCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "remove NAME",
		Short: "Remove a user; the user's repositories stay",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, argv []string) error {
			if err := checkUserFile(file, argv[0]); err != nil {
				return err
			}
			err := restserver.EditUsers(file, func(old []byte) ([]byte, error) {
				out, existed := restserver.RemoveUser(old, argv[0])
				if !existed {
					return nil, fmt.Errorf("%s has no user %s", file, argv[0])
				}
				return out, nil
			})
			if err != nil {
				return fmt.Errorf("nothing was changed: %w", err)
			}
			return a.conclude(serveUser{User: argv[0], File: file}, false, func(w io.Writer) {
				fmt.Fprintf(w, "removed %s from %s\n", argv[0], clean(file))
			})
		},
	}
	cmd.Flags().StringVar(&file, "htpasswd", "", "the `file` of users")
	return cmd
}

func checkUserFile(file, name string) error {
	if file == "" {
		return usageError{errors.New("name the file of users with --htpasswd FILE")}
	}
	if err := restserver.CheckUserName(name); err != nil {
		return usageError{err}
	}
	return nil
}
