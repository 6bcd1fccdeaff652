package main

import (
	"errors"
	"fmt"

	"github.com/snap-backup/snap/repo"
	"github.com/spf13/cobra"
)

// errNoFile says that no file of the repository has a given ID.
var errNoFile = errors.New("no such file in the repository")

func (a *app) catCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "cat config | (snapshot|certificate|index|pack|key) ID",
		Short: "Print a file of the repository as JSON",
		Long: `Prints the content of a file of the repository as JSON. docs/format.md explains
the fields. An ID may be abbreviated; a snapshot may also be "latest".`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, argv []string) error {
			ctx := cmd.Context()
			if (argv[0] == "config") != (len(argv) == 1) {
				return usageError{fmt.Errorf("usage: %s", cmd.UseLine())}
			}
			r, err := a.openLocked(cmd, repo.LockRead)
			if err != nil {
				return err
			}
			var v any
			switch argv[0] {
			case "config":
				v = r.Config()
			case "snapshot":
				v, err = r.FindSnapshot(ctx, a.spec(argv[1]))
			case "certificate":
				v, err = r.FindCertificate(ctx, argv[1])
			case "index":
				v, err = r.InspectIndex(ctx, argv[1])
			case "pack":
				v, err = r.InspectPack(ctx, argv[1])
			case "key":
				v, err = r.InspectKey(ctx, argv[1])
			default:
				return usageError{fmt.Errorf("%q is not config, snapshot, certificate, index, pack or key", argv[0])}
			}
			if errors.Is(err, repo.ErrNoSnapshot) && argv[0] != "snapshot" {
				return fmt.Errorf("%w: no %s has an ID that begins with %q", errNoFile, argv[0], argv[1])
			}
			if err != nil {
				return err
			}
			return printJSON(a.stdout, v)
		},
	}
}
