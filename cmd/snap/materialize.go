package main

import (
	"fmt"
	"io"
	"runtime"

	"github.com/snap-backup/snap/device/transfer"
	"github.com/snap-backup/snap/repo"
	"github.com/spf13/cobra"
)

// materializeResult is what materialize prints.
type materializeResult struct {
	Snapshot repo.FileID `json:"snapshot"`
	*transfer.MaterializeResult
}

func (a *app) materializeCommand() *cobra.Command {
	var opts transfer.MaterializeOptions
	cmd := &cobra.Command{
		Use:   "materialize SNAPSHOT TARGET",
		Short: "Give a snapshot back as a standard backup folder",
		Long: `Writes TARGET/UDID, the folder as it was imported, byte for byte: Finder,
iTunes, Apple Devices and idevicebackup2 restore from it. To restore with
Finder, TARGET is ~/Library/Application Support/MobileSync/Backup.

SNAPSHOT is the beginning of an ID, "latest", or "latest:DEVICE" with a UDID or
a device name.

The folder appears when it is complete. An interrupted run is continued by the
same command; files that are whole are not written again.`,
		Args: args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, argv []string) error {
			ctx := cmd.Context()
			r, err := a.openIndexed(ctx)
			if err != nil {
				return err
			}
			s, err := r.FindSnapshot(ctx, argv[0])
			if err != nil {
				return err
			}
			if !s.Complete {
				a.warn("snapshot %s is of an incomplete backup; a device may refuse it", s.ID.Short())
			}
			p := &transfer.Progress{}
			opts.Progress, opts.Workers = p, runtime.GOMAXPROCS(0)
			stop := a.showProgress(func() meter { return transferMeter(p) })
			res, err := transfer.Materialize(ctx, r, s, argv[1], opts)
			stop()
			if err != nil {
				return err
			}
			return a.print(materializeResult{s.ID, res}, func(w io.Writer) {
				fmt.Fprintf(w, "wrote %s: %s, %s", res.Dir, plural(res.Files, "file"), bytesText(res.Bytes))
				if res.Kept > 0 {
					fmt.Fprintf(w, ", %s of them were there already", count(res.Kept))
				}
				if res.Verified {
					fmt.Fprint(w, ", read back and the same")
				}
				fmt.Fprintln(w)
			})
		},
	}
	cmd.Flags().BoolVar(&opts.Replace, "replace", false, "replace the folder if it is there")
	cmd.Flags().BoolVar(&opts.Verify, "verify", false, "read back what was written and compare")
	return cmd
}
