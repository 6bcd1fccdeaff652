package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/device/materialize"
	"github.com/snap-backup/snap/device/verify"
	"github.com/snap-backup/snap/internal/abandoned"
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
		Long: `Writes TARGET/UDID, byte for byte the original backup folder. Finder, iTunes,
Apple Devices and idevicebackup2 can restore from it. For Finder, TARGET is
~/Library/Application Support/MobileSync/Backup.

SNAPSHOT is the beginning of an ID, "latest", or "latest:DEVICE" with a UDID or
a device name.

The folder appears when it is complete. The same command continues an
interrupted run and keeps the files that are complete. It removes the partial
folders that runs for other snapshots left in TARGET, if these runs have ended.

If the repository has lost a part of the snapshot, everything else is written to
TARGET/UDID-incomplete, or to UDID-2-incomplete if that exists. The command
lists what is lacking, and the exit code is 13.

--decrypt writes TARGET/UDID-decrypted instead: the unencrypted files of the
device by domain and path. This is not a backup: no device can restore from it.
Files that are missing or damaged in the backup, or that could not be decrypted,
are named; the others are written, and the exit code is 13. "snap extract"
writes only some of the files, and "snap dump" one.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, argv []string) error {
			ctx := cmd.Context()
			if err := checkTarget(argv[1], false); err != nil {
				return err
			}
			r, found, err := a.openToRead(cmd, argv[0])
			if err != nil {
				return err
			}
			s := found[0]
			if s.Lost == nil && !s.Complete {
				a.warn("snapshot %s has an incomplete backup; a device may reject it", s.ID.Short())
			}
			damaged, err := a.describeDamage(ctx, r, s, decrypt)
			if err != nil {
				return err
			}
			p := &blob.Progress{}
			opts.Progress, opts.Workers, opts.Incomplete = p, runtime.GOMAXPROCS(0), true
			opts.Bytes, opts.Abandoned = bytesText, a.describeAbandoned
			stop := a.showProgress(func() meter { return transferMeter(p) })
			write := materialize.Write
			if decrypt {
				write = materialize.WriteDecrypted
			}
			res, err := write(ctx, r, s, argv[1], opts)
			stop()
			if err != nil {
				return orUnfinished(ctx, err)
			}
			flawed := len(res.Lacking)+res.LostParts > 0 || s.Lost != nil || decrypt && (damaged || len(res.NotDecrypted) > 0)
			err = a.conclude(materializeResult{s.ID, res}, flawed, func(w io.Writer) {
				fmt.Fprintf(w, "wrote %s: %s, %s", res.Dir, plural(res.Files, "file"), bytesText(res.Bytes))
				if res.Kept > 0 {
					fmt.Fprintf(w, ", %s of them already there", count(res.Kept))
				}
				if res.Verified {
					fmt.Fprint(w, ", verified")
				}
				fmt.Fprintln(w)
				a.describeLacking(res)
				for _, old := range res.Beside {
					a.warn("%s was there already and was not replaced; it may have files that this run could not read; --replace replaces it", clean(old))
				}
				for _, old := range materialize.IncompleteFolders(res.Dir) {
					a.remark("%s, which an earlier run wrote, is not needed any more", clean(old))
				}
				if decrypt {
					a.describeDecrypted(res)
					a.remark("These are the unencrypted files of the device. This is not a backup: no device can restore from it.")
				}
			})
			a.warnOfMeta(res)
			switch {
			case err != nil:
				return err
			case len(res.Lacking)+res.LostParts > 0:
				return fmt.Errorf("snapshot %s: %w", s.ID.Short(), errLacking)
			case s.Lost != nil:
				return fmt.Errorf("snapshot %s: %w", s.ID.Short(), errLostPart)
			case decrypt && (damaged || len(res.NotDecrypted) > 0):
				return fmt.Errorf("snapshot %s: %w", s.ID.Short(), errFlawed)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&opts.Replace, "replace", false, "replace an existing folder")
	cmd.Flags().BoolVar(&decrypt, "decrypt", false, "write the device's unencrypted files by domain and path; no device can restore from them")
	cmd.Flags().BoolVar(&opts.Verify, "verify", false, "read back what was written and compare it, with modes and times")
	return cmd
}

// orUnfinished returns err or, after Ctrl-C, an interruption that says what is left.
func orUnfinished(ctx context.Context, err error) error {
	hint := "nothing is left; run the same command again"
	var left *materialize.UnfinishedError
	if errors.As(err, &left) {
		hint = fmt.Sprintf("%s keeps what was written (%s); the same command continues there; remove it if you do not want that", left.Dir, bytesText(left.Bytes))
	}
	return orInterrupted(ctx, err, hint)
}

// describeAbandoned names a folder that an interrupted run has left.
func (a *app) describeAbandoned(f abandoned.Folder) {
	switch {
	case f.Removed:
		a.warn("removed what an interrupted run has left: %s (%s)", f.Path, bytesText(f.Bytes))
	case materialize.IsOriginal(f.Path):
		a.warn("%s (%s) is a folder that an interrupted run was going to replace; it stays, since it may be the only one: rename it, or remove it if you do not need it", f.Path, bytesText(f.Bytes))
	case f.Owner != nil:
		a.warn("%s (%s) was not removed: process %d of %s on %s made it; remove it if this process has ended", f.Path, bytesText(f.Bytes), f.Owner.PID, f.Owner.User, f.Owner.Host)
	default:
		a.warn("%s (%s) was not removed, since nothing says which run made it; remove it if no other snap writes there", f.Path, bytesText(f.Bytes))
	}
}

// errFlawed says that the decrypted files of a damaged backup were written.
var errFlawed = errors.New("files of the backup are missing, damaged or could not be decrypted")

// describeDamage prints what is wrong in a snapshot and reports whether anything is.
// If look is true, it verifies the snapshot and does not rely on the findings in its
// record, which an older program may have written.
func (a *app) describeDamage(ctx context.Context, r *repo.Repo, s *repo.Snapshot, look bool) (bool, error) {
	findings := s.Findings
	if look {
		rep, err := verify.Verify(ctx, r, s, verify.Options{Level: verify.Quick, Workers: 1})
		if err != nil {
			return false, err
		}
		findings = rep.Findings
	}
	findings = slices.DeleteFunc(slices.Clone(findings), func(f repo.Finding) bool { return f.Consequence == repo.Remark || f.Kind == finding.Lost })
	a.describeFindings("snapshot "+s.ID.Short(), findings)
	return finding.Worst(findings) == repo.Damage, nil
}

// errLacking says that the written folder lacks files that the repository has lost.
var errLacking = errors.New("the repository has lost files of it; the written folder lacks them")

// maxReasons bounds how many reasons for lacking files are printed; --json has all.
const maxReasons = 5

// describeLacking names the files that the repository has lost.
func (a *app) describeLacking(res *materialize.Result) {
	if n := len(res.Lacking); n > 0 {
		a.warn("lacking, because the repository has lost a part of their content: %s", plural(n, "file"))
		var names []string
		for _, f := range res.Lacking {
			names = append(names, nameOfLacking(f))
		}
		a.listNames(names, int64(n))
		var reasons []string
		for _, f := range res.Lacking {
			if !slices.Contains(reasons, f.Reason) && len(reasons) < maxReasons {
				reasons = append(reasons, f.Reason)
			}
		}
		for _, reason := range reasons {
			a.warn("%s", reason)
		}
	}
	if res.LostParts > 0 {
		a.warn("%s of the file tree cannot be read: the folder also lacks the files in them, and their names are unknown", plural(res.LostParts, "part"))
	}
}

func nameOfLacking(f materialize.Lacking) string {
	if f.Name == "" {
		return f.Path
	}
	return fmt.Sprintf("%s (%s)", f.Path, f.Name)
}

// describeDecrypted names the files that were not written, and those that have other
// names than on the device.
func (a *app) describeDecrypted(res *materialize.Result) {
	if n := len(res.NotDecrypted); n > 0 {
		a.warn("not written, because they could not be decrypted: %s", plural(n, "file"))
		a.listNames(res.NotDecrypted, int64(n))
	}
	if n := len(res.Renamed); n > 0 {
		a.remark("renamed, because the names are too long, taken or misleading: %s", plural(n, "file"))
		for _, r := range res.Renamed[:min(n, maxNamed)] {
			a.remark("    %s: %s", clean(r.Path), clean(r.Name))
		}
		if n > maxNamed {
			a.remark("    and %s more; --json lists all", count(int64(n-maxNamed)))
		}
	}
}

// warnOfMeta says how many times and modes of a written folder differ from those of the
// snapshot.
func (a *app) warnOfMeta(res *materialize.Result) {
	for _, w := range []struct {
		n    int64
		what string
	}{{res.OtherTimes, "times"}, {res.OtherModes, "modes"}} {
		if w.n > 0 {
			a.warn("%s: the file system cannot hold the %s of all files and folders (%s differ); their content is complete", res.Dir, w.what, count(w.n))
		}
	}
	if res.Unflushed {
		a.warn("%s: the file system cannot flush files, so a power cut could damage them; eject the drive before you unplug it", res.Dir)
	}
}

// errLostPart says that a snapshot was written without a part that the repository has
// lost.
var errLostPart = errors.New("the repository has lost a part of it; the written folder lacks this part")
