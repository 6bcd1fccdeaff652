package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/look"
	"github.com/snap-backup/snap/repo"
	"github.com/spf13/cobra"
)

// foundFile is one file in the output of find.
type foundFile struct {
	UDID     string         `json:"udid"`
	Device   string         `json:"device_name"`
	Domain   string         `json:"domain"`
	Name     string         `json:"name"`
	Path     string         `json:"path"`
	Versions []foundVersion `json:"versions"`

	fullName string
}

// foundVersion is one version of a file.
type foundVersion struct {
	Change       look.Change `json:"change"`
	Size         int64       `json:"size"`
	ModTime      *time.Time  `json:"mtime,omitempty"`
	Snapshot     repo.FileID `json:"snapshot"` // the first that has it
	Time         time.Time   `json:"time"`
	LastSnapshot repo.FileID `json:"last_snapshot"`
	LastTime     time.Time   `json:"last_time"`
	Snapshots    int         `json:"snapshots"`
}

func (a *app) findCommand() *cobra.Command {
	var filter snapshotFilter
	var source backupPassword
	var ignoreCase, gone bool
	var oldest, newest string
	cmd := &cobra.Command{
		Use:   "find PATTERN...",
		Short: "Find the versions of files in all snapshots",
		Long: `Lists the files that match a pattern, each with its versions: when it was added,
when its content changed, when it was gone, and when it came back, with the
first and the last snapshot of each version. Put patterns in quotes.

  *  ?  [a-z]  {a,b}   any letters, one letter, one of these, one of these texts
  **                   between slashes: any folders

A pattern without a slash fits a file, folder or domain of that name anywhere.
One with a slash begins with the domain. What fits a folder or a domain means
all that is in it.

--device, --tag, --host, --since and --until choose snapshots; --oldest and
--newest choose files by their own time. Names in snapshots that were stored
locked need the backup password: from the flags, SNAP_BACKUP_PASSWORD or the
repository. Without it, these snapshots are left out, with a warning.`,
		Example: "  snap find 'IMG_0042.*'\n  snap find -i --device \"Anna's iPhone\" 'HomeDomain/**/*.db'\n  snap find --since 2026-01-01 'AppDomain*com.example.app*'",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, argv []string) error {
			patterns, err := look.ParsePatterns(argv, ignoreCase)
			if err != nil {
				return usageError{err}
			}
			from, _, err := parseTime(oldest)
			if err != nil {
				return err
			}
			_, to, err := parseTime(newest)
			if err != nil {
				return err
			}
			if err := filter.check(); err != nil {
				return err
			}
			r, all, _, err := a.openAll(cmd)
			if err != nil {
				return err
			}
			list, err := filter.apply(all)
			if err != nil {
				return err
			}
			s := &search{app: a, r: r, newFinder: func() *look.Finder { return look.NewFinder(r, patterns, from, to) }}
			if s.passwords, err = a.newLookUnlocker(cmd.Context(), r, source); err != nil {
				return err
			}
			defer s.passwords.close()
			files := []foundFile{}
			for _, own := range repo.ByDevice(list) {
				f, _, err := s.device(cmd.Context(), own)
				if err != nil {
					return err
				}
				device := own[len(own)-1].Device
				for _, v := range f.Versions() {
					if gone && v.List[len(v.List)-1].Change != look.Gone {
						continue
					}
					files = append(files, newFoundFile(device, v))
				}
			}
			if err := a.print(files, func(w io.Writer) { printFound(w, files) }); err != nil {
				return err
			}
			return s.outcome(len(list))
		},
	}
	filter.register(cmd)
	f := cmd.Flags()
	f.BoolVarP(&ignoreCase, "ignore-case", "i", false, "upper and lower case are the same")
	f.BoolVar(&gone, "gone", false, "only files that the last snapshot of the device does not have")
	f.StringVarP(&oldest, "oldest", "O", "", "only files that were last changed at or after this `time`")
	f.StringVarP(&newest, "newest", "N", "", "only files that were last changed at or before this `time`")
	source.register(cmd)
	return cmd
}

// search looks for files in snapshots.
type search struct {
	*app
	r         *repo.Repo
	newFinder func() *look.Finder
	passwords *lookUnlocker
	left      int   // snapshots that were left out
	locked    error // why the first of them was
	lost      error // the first part of a file list that is lost
}

// device looks into the snapshots of one device, which are in the order of their times. It
// returns those that were left out or not read completely, too.
func (s *search) device(ctx context.Context, list []*repo.Snapshot) (f *look.Finder, unknown map[*repo.Snapshot]bool, err error) {
	f, unknown = s.newFinder(), map[*repo.Snapshot]bool{}
	left := 0
	for _, one := range list {
		v := look.Open(s.r, one, s.passwords.unlock)
		err := f.Add(ctx, v, func(err error) {
			s.warn("%v", err)
			unknown[one] = true
			if s.lost == nil {
				s.lost = err
			}
		})
		v.Close()
		switch {
		case err == nil:
		case errors.Is(err, look.ErrLocked), errors.Is(err, keybag.ErrWrongPassword):
			left++
			unknown[one] = true
			if s.locked == nil {
				s.locked = err
			}
		case errors.Is(err, repo.ErrDamaged):
			s.warn("%v", err)
			unknown[one] = true
			s.lost = err
		default:
			return nil, nil, err
		}
	}
	if left > 0 {
		s.warn("%s: %s left out, stored locked: without the backup password the names of the files are not known", clean(list[len(list)-1].Device.Name), plural(left, "snapshot"))
	}
	s.left += left
	return f, unknown, nil
}

// outcome returns the error of a search in this many snapshots.
func (s *search) outcome(snapshots int) error {
	switch {
	case s.lost != nil:
		return fmt.Errorf("the list lacks files: %w", s.lost)
	case s.left > 0 && s.left == snapshots:
		return s.locked
	}
	return nil
}

func newFoundFile(device repo.Device, v *look.Versions) foundFile {
	f := foundFile{UDID: device.UDID, Device: device.Name, Domain: v.Domain, Name: v.Name, Path: v.Path, fullName: v.FullName()}
	for i := range v.List {
		one := &v.List[i]
		out := foundVersion{
			Change: one.Change, Size: one.Size, Snapshot: one.First.ID, Time: one.First.Time,
			LastSnapshot: one.Last.ID, LastTime: one.Last.Time, Snapshots: len(one.Snapshots),
		}
		if one.Change != look.Gone {
			out.ModTime = jsonTime(one.ModTime)
		}
		f.Versions = append(f.Versions, out)
	}
	return f
}

// jsonTime returns a time of a file, or nil if JSON has no such year.
func jsonTime(t time.Time) *time.Time {
	t = t.UTC()
	if year := t.Year(); year < 0 || year > 9999 {
		return nil
	}
	return &t
}

// printFound lists files by device.
func printFound(to io.Writer, files []foundFile) {
	w := bufio.NewWriter(verbatim(to)) // so that a name can be copied
	defer func() { _ = w.Flush() }()   // a.outcome reports a failure of standard output
	device := ""
	versions := 0
	for i := range files {
		f := &files[i]
		if f.UDID != device || i == 0 {
			if i > 0 {
				fmt.Fprintln(w)
			}
			device = f.UDID
			fmt.Fprintln(w, clean(f.Device))
		}
		fmt.Fprintf(w, "  %s\n", clean(f.fullName))
		for _, v := range f.Versions {
			versions++
			fmt.Fprintf(w, "    %s  %s\n", versionText(v.Change, v.Size, v.ModTime), snapshotsText(&v))
		}
	}
	if len(files) == 0 {
		fmt.Fprintln(w, "no file matches")
		return
	}
	fmt.Fprintf(w, "\n%s, %s\n", plural(len(files), "file"), plural(versions, "version"))
}

// versionText has the columns of one version: change, size and time of the file.
func versionText(change look.Change, size int64, modTime *time.Time) string {
	if change == look.Gone || change == unknownChange {
		return fmt.Sprintf("%-7s  %10s  %16s", change, "", "")
	}
	when := "unknown"
	if modTime != nil {
		when = timeText(*modTime)
	}
	return fmt.Sprintf("%-7s  %10s  %16s", change, bytesText(size), when)
}

// snapshotsText names the snapshots of a version.
func snapshotsText(v *foundVersion) string {
	first := fmt.Sprintf("%s of %s", v.Snapshot.Short(), timeText(v.Time))
	if v.Snapshots == 1 {
		return first
	}
	last := fmt.Sprintf("%s of %s", v.LastSnapshot.Short(), timeText(v.LastTime))
	if v.Snapshots == 2 {
		return first + " and " + last
	}
	return strings.Join([]string{first, last}, " to ")
}
