package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/look"
	"github.com/snap-backup/snap/look/extract"
	"github.com/snap-backup/snap/repo"
	"github.com/spf13/cobra"
)

// extractResult is the output of extract.
type extractResult struct {
	Snapshot   repo.FileID      `json:"snapshot"`
	Target     string           `json:"target,omitempty"`
	Files      int64            `json:"files"`
	Bytes      int64            `json:"bytes"`
	Planned    []plannedFile    `json:"planned,omitempty"` // with --dry-run
	Renamed    []renamedFile    `json:"renamed,omitempty"`
	Lacking    []extractLacking `json:"lacking,omitempty"`
	LostParts  int              `json:"lost_parts,omitempty"`
	OtherTimes int64            `json:"other_times,omitempty"`
}

type plannedFile struct {
	Path    string     `json:"path"`
	Size    int64      `json:"size"`
	ModTime *time.Time `json:"mtime,omitempty"`
}

type renamedFile struct {
	Name string `json:"name"`
	Path string `json:"path"`
}

type extractLacking struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// extractFlags are the flags of extract.
type extractFlags struct {
	dir, tar, zip      string
	dryRun, ignoreCase bool
	source             backupPassword
}

func (a *app) extractCommand() *cobra.Command {
	var flags extractFlags
	cmd := &cobra.Command{
		Use:   "extract SNAPSHOT PATTERN...",
		Short: "Write some files of a snapshot to a folder or archive",
		Long: `Writes the files that match a pattern, as they are on the device, by domain and
path: to a new or empty folder (--to), or as a tar or zip archive; "-" is
standard output. --dry-run lists the files instead. Put patterns in quotes.

  *  ?  [a-z]  {a,b}   any letters, one letter, one of these, one of these texts
  **                   between slashes: any folders

A pattern without a slash fits a file, folder or domain of that name anywhere.
One with a slash begins with the domain. What fits a folder or a domain means
all that is in it.

Files of encrypted backups come out decrypted. If the snapshot was stored
locked, that needs the backup password: from the flags, SNAP_BACKUP_PASSWORD or
the repository, or it asks for it. Characters that some system does not allow in
names are escaped (%3A for a colon).

A file that is damaged or cannot be decrypted is left out and named; the others
are written, and the exit code is 13. After Ctrl-C a folder has the files that
are complete; an archive file is not there.`,
		Example: "  snap extract latest 'CameraRollDomain/Media/DCIM' --to ~/photos\n  snap extract latest:iPad 'AppDomain*com.example.app*' --zip app.zip\n  snap extract latest '*.pdf' --tar - > pdf.tar",
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, argv []string) error {
			patterns, err := look.ParsePatterns(argv[1:], flags.ignoreCase)
			if err != nil {
				return usageError{err}
			}
			if err := flags.check(a.onTerminal()); err != nil {
				return err
			}
			v, closeLook, err := a.openLook(cmd, argv[0], flags.source)
			if err != nil {
				return err
			}
			defer closeLook()
			return a.extract(cmd.Context(), v, patterns, &flags)
		},
	}
	f := cmd.Flags()
	f.StringVar(&flags.dir, "to", "", "write the files to this `folder`, which is new or empty")
	f.StringVar(&flags.tar, "tar", "", "write a tar archive to this `file`, or to standard output (-)")
	f.StringVar(&flags.zip, "zip", "", "write a zip archive to this `file`, or to standard output (-)")
	f.BoolVarP(&flags.ignoreCase, "ignore-case", "i", false, "upper and lower case are the same")
	registerDryRun(cmd, &flags.dryRun, "list what would be written")
	cmd.MarkFlagsMutuallyExclusive("to", "tar", "zip")
	flags.source.register(cmd)
	return cmd
}

// target returns where the files go.
func (f *extractFlags) target() string { return f.dir + f.tar + f.zip }

// check returns an error if the target cannot be written.
func (f *extractFlags) check(onTerminal bool) error {
	switch target := f.target(); {
	case f.dryRun:
		return nil
	case target == "":
		return usageError{errors.New("say where the files go: --to FOLDER, --tar FILE or --zip FILE, or list them with --dry-run")}
	case target == "-" && f.dir == "" && onTerminal:
		return usageError{errors.New("an archive is not written to a terminal: write it to a file, or to a program with |")}
	case target == "-" && f.dir == "":
		return nil
	case f.dir != "":
		if err := extract.CheckFolder(f.dir); err != nil {
			return err
		}
		return checkTarget(f.dir, true)
	default:
		return extract.CheckFile(target)
	}
}

// extract writes the files that match.
func (a *app) extract(ctx context.Context, v *look.Reader, patterns *look.Patterns, flags *extractFlags) error {
	s := v.Snapshot
	res := extractResult{Snapshot: s.ID, Target: flags.target()}
	var files []look.File
	var lost error
	for f, err := range v.Files(ctx, patterns) {
		switch {
		case errors.Is(err, repo.ErrDamaged):
			a.warn("%v", err)
			res.LostParts++
			lost = err
		case err != nil:
			return err
		default:
			files = append(files, f)
		}
	}
	if len(files) == 0 {
		if lost != nil {
			return lost
		}
		return fmt.Errorf("no file of snapshot %s matches: %w", s.ID.Short(), look.ErrNoFile)
	}
	items := extract.Plan(files)
	for i := range items {
		if it := &items[i]; it.Renamed {
			res.Renamed = append(res.Renamed, renamedFile{it.FullName(), it.Target})
		}
	}
	if flags.dryRun {
		return a.planExtract(&res, items)
	}
	p := &blob.Progress{}
	stop := a.showProgress(func() meter { return transferMeter(p) })
	out, err := a.writeExtract(ctx, items, flags, p)
	stop()
	if err != nil {
		return orInterrupted(ctx, err, extractLeft(flags, out))
	}
	return a.concludeExtract(&res, out, flags)
}

// extractLeft says what an interrupted run has left.
func extractLeft(flags *extractFlags, out *extract.Result) string {
	switch {
	case flags.dir != "" && out != nil && out.Files > 0:
		return fmt.Sprintf("%s has the files that are complete (%s); remove it, and run the same command again", flags.dir, count(out.Files))
	case flags.target() == "-":
		return "what was written to standard output is not a complete archive"
	}
	return "nothing is left; run the same command again"
}

func (a *app) writeExtract(ctx context.Context, items []extract.Item, flags *extractFlags, p *blob.Progress) (*extract.Result, error) {
	format, name := extract.Tar, flags.tar
	if flags.zip != "" {
		format, name = extract.Zip, flags.zip
	}
	switch {
	case flags.dir != "":
		return extract.Folder(ctx, items, flags.dir, p)
	case name == "-":
		return extract.Archive(ctx, items, a.stdout, format, p)
	}
	return extract.ArchiveFile(ctx, items, name, format, p)
}

// planExtract lists what would be written.
func (a *app) planExtract(res *extractResult, items []extract.Item) error {
	for i := range items {
		it := &items[i]
		res.Files++
		res.Bytes += it.Size
		res.Planned = append(res.Planned, plannedFile{it.Target, it.Size, jsonTime(it.ModTime)})
	}
	err := a.print(res, func(w io.Writer) {
		for _, f := range res.Planned {
			when := "unknown"
			if f.ModTime != nil {
				when = timeText(*f.ModTime)
			}
			fmt.Fprintf(verbatim(w), "%10s  %16s  %s\n", bytesText(f.Size), when, clean(f.Path))
		}
		fmt.Fprintf(w, "would write %s, %s\n", plural(res.Files, "file"), bytesText(res.Bytes))
	})
	if err == nil && res.LostParts > 0 {
		err = fmt.Errorf("snapshot %s: %w", res.Snapshot.Short(), errLacking)
	}
	return err
}

// concludeExtract says what was written.
func (a *app) concludeExtract(res *extractResult, out *extract.Result, flags *extractFlags) error {
	res.Files, res.Bytes, res.OtherTimes = out.Files, out.Bytes, out.OtherTimes
	flawed := errFlawed
	var names []string
	for _, l := range out.Lacking {
		res.Lacking = append(res.Lacking, extractLacking{l.Name, l.Err.Error()})
		names = append(names, l.Name)
		if errors.Is(l.Err, repo.ErrDamaged) {
			flawed = errLacking
		}
	}
	lacks := len(res.Lacking)+res.LostParts > 0
	if flags.target() == "-" { // standard output has the archive
		a.remark("wrote %s, %s", plural(res.Files, "file"), bytesText(res.Bytes))
	} else {
		err := a.conclude(res, lacks, func(w io.Writer) {
			fmt.Fprintf(w, "wrote %s: %s, %s\n", res.Target, plural(res.Files, "file"), bytesText(res.Bytes))
		})
		if err != nil {
			return err
		}
	}
	if n := len(res.Renamed); n > 0 {
		a.remark("renamed, because the names are too long, taken or misleading: %s", plural(n, "file"))
	}
	if res.OtherTimes > 0 {
		a.warn("%s: the file system cannot hold the times of %s; their content is complete", res.Target, plural(res.OtherTimes, "file"))
	}
	if len(names) > 0 {
		a.warn("not written: %s; %s", plural(len(names), "file"), res.Lacking[0].Reason)
		a.listNames(names, int64(len(names)))
	}
	if !lacks {
		return nil
	}
	if res.LostParts > 0 {
		flawed = errLacking
	}
	return fmt.Errorf("snapshot %s: %w", res.Snapshot.Short(), flawed)
}
