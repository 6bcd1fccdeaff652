package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/snap-backup/snap/look"
	"github.com/snap-backup/snap/repo"
	"github.com/spf13/cobra"
)

// historyResult is the output of history.
type historyResult struct {
	UDID      string         `json:"udid"`
	Device    string         `json:"device_name"`
	Domain    string         `json:"domain"`
	Name      string         `json:"name"`
	Path      string         `json:"path"`
	Snapshots []historyEntry `json:"snapshots"`
}

// historyEntry says what one snapshot holds of the file.
type historyEntry struct {
	Snapshot repo.FileID `json:"snapshot"`
	Time     time.Time   `json:"time"`
	Change   look.Change `json:"change"`
	Size     int64       `json:"size"`
	ModTime  *time.Time  `json:"mtime,omitempty"`
}

// unknownChange is the change of a snapshot whose file list cannot be read.
const unknownChange look.Change = "unknown"

func (a *app) historyCommand() *cobra.Command {
	var source backupPassword
	var all bool
	cmd := &cobra.Command{
		Use:   "history SNAPSHOT|DEVICE DOMAIN/PATH",
		Short: "Show how one file changed from snapshot to snapshot",
		Long: `Lists the snapshots of a device, oldest first, with the size and time that a
file has in each, and what happened to it since the snapshot before: added,
changed, gone or back. Snapshots in which it is the same are left out; --all
lists them, too. SNAPSHOT stands for its device.

DOMAIN/PATH is what "snap ls" and "snap find" print, a path of the backup
folder, or the 40 digits that name the file there. "snap dump" writes any of the
versions.`,
		Example: "  snap history latest HomeDomain/Library/SMS/sms.db\n  snap history --all \"Anna's iPhone\" HomeDomain/Library/Notes/notes.sqlite",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, argv []string) error {
			r, list, _, err := a.openAll(cmd)
			if err != nil {
				return err
			}
			own, err := a.deviceOf(list, argv[0])
			if err != nil {
				return err
			}
			s := &search{app: a, r: r, newFinder: func() *look.Finder {
				return look.NewFinder(r, look.Named(argv[1]), time.Time{}, time.Time{})
			}}
			if s.passwords, err = a.newLookUnlocker(cmd.Context(), r, source); err != nil {
				return err
			}
			defer s.passwords.close()
			f, unknown, err := s.device(cmd.Context(), own)
			if err != nil {
				return err
			}
			versions := f.Versions()
			if len(versions) == 0 {
				if err := s.outcome(len(own)); err != nil {
					return err
				}
				return fmt.Errorf("%q in the snapshots of %s: %w", argv[1], own[0].Device.Name, look.ErrNoFile)
			}
			res := newHistory(own, versions[0], unknown)
			if err := a.print(res, func(w io.Writer) { res.print(w, all) }); err != nil {
				return err
			}
			return s.outcome(len(own))
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "also list snapshots in which the file is the same")
	source.register(cmd)
	return cmd
}

// deviceOf returns the snapshots of the device that an argument names, or whose snapshot it
// names.
func (a *app) deviceOf(list []*repo.Snapshot, arg string) ([]*repo.Snapshot, error) {
	s, err := repo.FindIn(list, a.spec(arg))
	if err != nil {
		own, derr := repo.OfDevice(list, a.deviceName(arg))
		if errors.Is(err, repo.ErrNoSnapshot) && derr != nil {
			err = derr
		}
		if len(own) == 0 {
			return nil, err
		}
		return own, nil
	}
	var own []*repo.Snapshot
	for _, one := range list {
		if repo.SameDevice(one.Device.UDID, s.Device.UDID) {
			own = append(own, one)
		}
	}
	return own, nil
}

// newHistory lists the snapshots from the first that has the file.
func newHistory(list []*repo.Snapshot, v *look.Versions, unknown map[*repo.Snapshot]bool) *historyResult {
	device := list[len(list)-1].Device
	h := &historyResult{UDID: device.UDID, Device: device.Name, Domain: v.Domain, Name: v.Name, Path: v.Path, Snapshots: []historyEntry{}}
	at := map[*repo.Snapshot]*look.Version{}
	for i := range v.List {
		for _, s := range v.List[i].Snapshots {
			at[s] = &v.List[i]
		}
	}
	for _, s := range list {
		one := at[s]
		e := historyEntry{Snapshot: s.ID, Time: s.Time, Change: unknownChange}
		switch {
		case one != nil && one.First == s:
			e.Change = one.Change
		case unknown[s]:
		case one == nil:
			continue // before the file was there
		case one.Change == look.Gone:
			e.Change = look.Gone
		default:
			e.Change = look.Same
		}
		if one != nil && one.Change != look.Gone && e.Change != unknownChange {
			e.Size, e.ModTime = one.Size, jsonTime(one.ModTime)
		}
		h.Snapshots = append(h.Snapshots, e)
	}
	return h
}

// print lists the snapshots in which something happened to the file, or all.
func (h *historyResult) print(w io.Writer, all bool) {
	fmt.Fprintf(w, "%s: %s\n", clean(h.Device), clean(fileText(h.Domain, h.Name, h.Path)))
	last := look.Change("")
	for i := range h.Snapshots {
		e := &h.Snapshots[i]
		nothing := e.Change == look.Same || e.Change == look.Gone && last == look.Gone
		last = e.Change
		if nothing && !all {
			continue
		}
		text := strings.TrimRight(versionText(e.Change, e.Size, e.ModTime), " ")
		fmt.Fprintf(w, "  %s  %s  %s\n", e.Snapshot.Short(), timeText(e.Time), text)
	}
}
