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

// materializeResult is the output of materialize.
type materializeResult struct {
	Snapshot repo.FileID `json:"snapshot"`
	*materialize.Result
}

func (a *app) materializeCommand() *cobra.Command {
	var opts materialize.Options
	var decrypt bool
	cmd := &cobra.Command{
		Use:   "materialize SNAPSHOT TARGET",
		Short: "Write a snapshot as a standard backup folder",
		Long: `Writes TARGET/UDID, byte for byte the original backup folder. Finder, iTunes, Apple
Devices and idevicebackup2 can restore from it. For Finder, TARGET is
~/Library/Application Support/MobileSync/Backup.

SNAPSHOT is the beginning of an ID, "latest", or "latest:DEVICE" with a UDID or
a device name.

The folder appears when it is complete. The same command continues an interrupted
run and keeps the files that are complete.

--decrypt writes TARGET/UDID-decrypted instead: the unencrypted files of the device
by domain and path. This is not a backup: no device can restore from it.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, argv []string) error {
			ctx := cmd.Context()
			r, found, err := a.openToRead(cmd, argv[0])
			if err != nil {
				return err
			}
			s := found[0]
			if s.Lost == nil && !s.Complete {
				a.warn("snapshot %s has an incomplete backup; a device may reject it", s.ID.Short())
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
					fmt.Fprintf(w, ", %s of them already there", count(res.Kept))
				}
				if res.Verified {
					fmt.Fprint(w, ", verified")
				}
				fmt.Fprintln(w)
				if decrypt {
					a.remark("These are the unencrypted files of the device. This is not a backup: no device can restore from it.")
				}
			})
			if err == nil && s.Lost != nil {
				err = fmt.Errorf("snapshot %s: %w", s.ID.Short(), errLostPart)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&opts.Replace, "replace", false, "replace an existing folder")
	cmd.Flags().BoolVar(&decrypt, "decrypt", false, "write the device's unencrypted files by domain and path; no device can restore from them")
	cmd.Flags().BoolVar(&opts.Verify, "verify", false, "read back and compare what was written")
	return cmd
}

// errLostPart says that a snapshot was written without a part that the repository has
// lost.
var errLostPart = errors.New("the repository has lost a part of it; the written folder lacks this part")
