package main

import (
	"errors"
	"fmt"
	"io"
	"runtime"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/materialize"
	"github.com/snap-backup/snap/repo"
	"github.com/spf13/cobra"
)

// materializeResult is what materialize prints.
type materializeResult struct {
	Snapshot repo.FileID `json:"snapshot"`
	*materialize.Result
}

func (a *app) materializeCommand() *cobra.Command {
	var opts materialize.Options
	var decrypt bool
	cmd := &cobra.Command{
		Use:   "materialize SNAPSHOT TARGET",
		Short: "Give a snapshot back as a standard backup folder",
		Long: `Writes TARGET/UDID, the folder as it was imported, byte for byte: Finder,
iTunes, Apple Devices and idevicebackup2 restore from it. To restore with
Finder, TARGET is ~/Library/Application Support/MobileSync/Backup.

SNAPSHOT is the beginning of an ID, "latest", or "latest:DEVICE" with a UDID or
a device name.

The folder appears when it is complete. An interrupted run is continued by the
same command; files that are whole are not written again.

--decrypt writes TARGET/UDID-decrypted instead: the files of the device by domain
and path, in the clear, to look at or take out. That is not a backup: no device
restores from it.`,
		Args: args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, argv []string) error {
			ctx := cmd.Context()
			r, found, err := a.openToRead(cmd, argv[0])
			if err != nil {
				return err
			}
			s := found[0]
			if s.Lost == nil && !s.Complete {
				a.warn("snapshot %s is of an incomplete backup; a device may refuse it", s.ID.Short())
			}
			p := &blob.Progress{}
			opts.Progress, opts.Workers = p, runtime.GOMAXPROCS(0)
			stop := a.showProgress(func() meter { return transferMeter(p) })
			write := materialize.Write
			if decrypt {
				write = materialize.WriteDecrypted
			}
			res, err := write(ctx, r, s, argv[1], opts)
			stop()
			if err != nil {
				return err
			}
			err = a.print(materializeResult{s.ID, res}, func(w io.Writer) {
				fmt.Fprintf(w, "wrote %s: %s, %s", res.Dir, plural(res.Files, "file"), bytesText(res.Bytes))
				if res.Kept > 0 {
					fmt.Fprintf(w, ", %s of them were there already", count(res.Kept))
				}
				if res.Verified {
					fmt.Fprint(w, ", read back and the same")
				}
				fmt.Fprintln(w)
				if decrypt {
					a.remark("These are the device's files in the clear. It is not a backup: no device restores from it.")
				}
			})
			if err == nil && s.Lost != nil {
				err = fmt.Errorf("snapshot %s: %w", s.ID.Short(), errLostPart)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&opts.Replace, "replace", false, "replace the folder if it is there")
	cmd.Flags().BoolVar(&decrypt, "decrypt", false, "write the device's files by domain and path instead, to look at; no device restores from that")
	cmd.Flags().BoolVar(&opts.Verify, "verify", false, "read back what was written and compare")
	return cmd
}

// errLostPart says that a snapshot was given back as far as there is anything
// of it.
var errLostPart = errors.New("the repository has lost a part of it, which what was written lacks")
