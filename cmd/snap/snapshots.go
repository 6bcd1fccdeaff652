package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/snap-backup/snap/internal/words"
	"github.com/snap-backup/snap/repo"
	"github.com/spf13/cobra"
)

// snapshotFilter chooses snapshots.
type snapshotFilter struct {
	device, host, since, until string
	tags                       []string
}

func (f *snapshotFilter) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.device, "device", "", "only snapshots of this `device` (UDID or name)")
	cmd.Flags().StringArrayVar(&f.tags, "tag", nil, "only snapshots with this `tag` (repeated: with all of these tags)")
	cmd.Flags().StringVar(&f.host, "host", "", "only snapshots that the computer of this `name` made")
	cmd.Flags().StringVar(&f.since, "since", "", "only backups made at or after this `time` (such as 2026-01-31 or \"2026-01-31 15:04\")")
	cmd.Flags().StringVar(&f.until, "until", "", "only backups made at or before this `time`; a date means the end of that day")
}

func (f *snapshotFilter) apply(list []*repo.Snapshot) ([]*repo.Snapshot, error) {
	if f.device != "" {
		var err error
		if list, err = ofDevice(list, f.device); err != nil {
			return nil, err
		}
	}
	since, _, err := parseTime(f.since)
	if err != nil {
		return nil, err
	}
	_, until, err := parseTime(f.until)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(list), func(s *repo.Snapshot) bool {
		for _, tag := range f.tags {
			if !slices.Contains(s.Tags, tag) {
				return true
			}
		}
		if f.host != "" && !strings.EqualFold(s.Host, f.host) {
			return true
		}
		return f.since != "" && s.Time.Before(since) || f.until != "" && !s.Time.Before(until)
	}), nil
}

// ofDevice returns the snapshots of a device. It is an error if there are none,
// because the name may be mistyped.
func ofDevice(list []*repo.Snapshot, device string) ([]*repo.Snapshot, error) {
	own, err := repo.OfDevice(list, device)
	if err != nil {
		return nil, fmt.Errorf("device %q: %w", device, err)
	}
	if len(own) == 0 {
		return nil, repo.NoDevice(list, device)
	}
	return own, nil
}

// parseTime parses a local time that names a day, minute or second. It returns the
// beginning of this period and that of the next one.
func parseTime(s string) (from, after time.Time, err error) {
	if s == "" {
		return
	}
	for _, form := range []struct {
		layout string
		next   func(time.Time) time.Time
	}{
		{"2006-01-02", func(t time.Time) time.Time { return t.AddDate(0, 0, 1) }},
		{"2006-01-02 15:04", func(t time.Time) time.Time { return t.Add(time.Minute) }},
		{"2006-01-02T15:04", func(t time.Time) time.Time { return t.Add(time.Minute) }},
		{"2006-01-02 15:04:05", func(t time.Time) time.Time { return t.Add(time.Second) }},
		{time.RFC3339, func(t time.Time) time.Time { return t.Add(time.Second) }},
	} {
		if t, perr := time.ParseInLocation(form.layout, s, time.Local); perr == nil {
			return t, form.next(t), nil
		}
	}
	return from, after, usageError{fmt.Errorf("%q is not a time such as 2026-01-31 or \"2026-01-31 15:04\"", s)}
}

func (a *app) snapshotsCommand() *cobra.Command {
	var filter snapshotFilter
	var latest int
	cmd := &cobra.Command{
		Use:   "snapshots [DEVICE]",
		Short: "List snapshots",
		Long: `Lists the snapshots of all devices or of one, oldest first. DATE is the time of
the backup, SIZE is the size of the backup folder, and ADDED is what the
snapshot added to the repository. NOTE is the note or the reason of the pin.
--verbose also shows the UDIDs of devices. FLAGS has these signs:

  E  encrypted by the device
  L  stored locked, without the backup password
  !  unfinished, or some files are missing or damaged: the import, a verify or a
     drill has found this
  V  passed a full verify
  D  passed a drill
  ⚑  pinned`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, argv []string) error {
			if len(argv) > 0 {
				if cmd.Flags().Changed("device") {
					return usageError{errors.New("name the device or give --device, not both")}
				}
				filter.device = a.deviceName(argv[0])
			}
			if cmd.Flags().Changed("latest") && latest < 1 {
				return usageError{fmt.Errorf("--latest takes a number from 1 on, not %d", latest)}
			}
			r, err := a.openToList(cmd)
			if err != nil {
				return err
			}
			list, damaged, err := r.Snapshots(cmd.Context())
			if err != nil {
				return err
			}
			for _, err := range damaged {
				a.warn("%v", err)
			}
			certificates, damaged, err := r.Certificates(cmd.Context())
			if err != nil {
				return err
			}
			for _, err := range damaged {
				a.warn("%v", err)
			}
			all := len(list)
			if list, err = filter.apply(list); err != nil {
				return err
			}
			if latest > 0 {
				list = latestOf(list, latest)
			}
			shown := snapshotsJSON(list, certificates)
			return a.print(shown, func(w io.Writer) {
				switch {
				case len(list) > 0:
					printSnapshots(w, shown, a.now(), a.verbose)
				case all == 0:
					fmt.Fprintln(w, "no snapshots yet")
					a.remark("\"snap backup\" and \"snap import\" make snapshots")
				default:
					fmt.Fprintln(w, "no snapshot matches")
				}
			})
		},
	}
	filter.register(cmd)
	cmd.Flags().IntVar(&latest, "latest", 0, "only the last `N` snapshots of each device")
	return cmd
}

// latestOf returns the last n snapshots of each device. The list is sorted by time.
func latestOf(list []*repo.Snapshot, n int) []*repo.Snapshot {
	seen := map[string]int{}
	var out []*repo.Snapshot
	for _, s := range slices.Backward(list) {
		key := strings.ToLower(s.Device.UDID)
		if seen[key]++; seen[key] <= n {
			out = append(out, s)
		}
	}
	slices.Reverse(out)
	return out
}

// snapshotJSON is a snapshot as --json prints it. It repeats the most important
// nested fields at the top level.
type snapshotJSON struct {
	*repo.Snapshot
	ShortID        string `json:"short_id"`
	UDID           string `json:"udid"`
	DeviceName     string `json:"device_name"`
	ProductType    string `json:"product_type"`
	ProductVersion string `json:"product_version"`
	// Problems are sentences about all findings.
	Problems []string `json:"problems,omitempty"`
	// When it last passed a full verify and a drill.
	Verified time.Time `json:"verified,omitzero"`
	Drilled  time.Time `json:"drilled,omitzero"`
	// When it failed a verify or drill, unless it has passed since.
	Failed time.Time `json:"failed,omitzero"`
}

func snapshotsJSON(list []*repo.Snapshot, certificates []*repo.Certificate) []snapshotJSON {
	out := make([]snapshotJSON, 0, len(list))
	for _, s := range list {
		verified, drilled := repo.LastPassed(certificates, s)
		var failed time.Time
		if c := repo.Refuted(certificates, s); c != nil {
			failed = c.Time
		}
		out = append(out, snapshotJSON{s, s.ID.Short(), s.Device.UDID, s.Device.Name, s.Device.ProductType, s.Device.ProductVersion, problems(s), verified, drilled, failed})
	}
	return out
}

// problems returns a sentence for each finding. Records of older programs have
// sentences only.
func problems(s *repo.Snapshot) []string {
	var out []string
	for _, f := range s.Findings {
		out = append(out, f.Text)
	}
	return append(out, s.Problems...)
}

// printSnapshots lists snapshots by device. It shows UDIDs if they are wanted, and where
// the name does not tell devices apart. A device without a name has its UDID instead.
func printSnapshots(w io.Writer, list []snapshotJSON, now time.Time, udids bool) {
	byDevice := map[string][]snapshotJSON{}
	var order []string
	for _, s := range list {
		key := strings.ToLower(s.Device.UDID)
		if byDevice[key] == nil {
			order = append(order, key)
		}
		byDevice[key] = append(byDevice[key], s)
	}
	slices.SortStableFunc(order, func(a, b string) int {
		return words.Compare(newest(byDevice[a]).Device.Name, newest(byDevice[b]).Device.Name)
	})
	names := map[string]int{}
	for _, key := range order {
		names[newest(byDevice[key]).Device.Name]++
	}
	for i, key := range order {
		if i > 0 {
			fmt.Fprintln(w)
		}
		d := newest(byDevice[key]).Device
		about := []string{clean(cmp.Or(d.ProductType, "unknown model"))}
		if d.Name != "" && (udids || names[d.Name] > 1) {
			about = append(about, clean(d.UDID))
		}
		fmt.Fprintf(w, "%s (%s)\n", clean(cmp.Or(d.Name, d.UDID)), strings.Join(about, ", "))
		var rows []string
		for _, s := range byDevice[key] {
			note := s.Note
			if note == "" && s.Pin != nil {
				note = s.Pin.Reason
			}
			rows = append(rows, fmt.Sprintf("  %s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s", s.ID.Short(), timeText(s.Time), clean(s.Device.ProductVersion),
				count(s.Files), bytesText(s.Bytes), bytesText(s.StoredBytes), paintMarks(w, marks(s.Snapshot)+passedMarks(&s)), clean(strings.Join(s.Tags, ",")), clean(note)))
		}
		header := "  ID\tDATE\tIOS\t>FILES\t>SIZE\t>ADDED\tFLAGS\t+TAGS"
		if slices.ContainsFunc(byDevice[key], func(s snapshotJSON) bool { return s.Note != "" || s.Pin != nil }) {
			header += "\t+NOTE"
		} else {
			header += "\t"
		}
		table(w, header, rows)
		fmt.Fprintf(w, "  %s\n", summary(byDevice[key]))
		fmt.Fprintf(w, "  last verified: %s; last drilled: %s\n",
			lastPassed(byDevice[key], now, func(s *snapshotJSON) time.Time { return s.Verified }),
			lastPassed(byDevice[key], now, func(s *snapshotJSON) time.Time { return s.Drilled }))
	}
	fmt.Fprintf(w, "\n%s of %s\n", plural(len(list), "snapshot"), plural(len(order), "device"))
}

// summary describes the listed snapshots of a device.
func summary(list []snapshotJSON) string {
	added := int64(0)
	for _, s := range list {
		added += s.StoredBytes
	}
	date := func(s snapshotJSON) string { text, _, _ := strings.Cut(timeText(s.Time), " "); return text }
	when := date(list[0])
	if last := date(newest(list)); last != when {
		when += " to " + last
	}
	return fmt.Sprintf("%s, %s, added %s", plural(len(list), "snapshot"), when, bytesText(added))
}

func newest[T any](list []T) T { return list[len(list)-1] }

// paintMarks shows the flag of an incomplete or failed snapshot in red.
func paintMarks(w io.Writer, m string) string {
	before, after, found := strings.Cut(m, "!")
	if !found {
		return m
	}
	return before + paint(w, bad, "!") + after
}

// passedMarks returns the flags for what a snapshot has passed or failed.
func passedMarks(s *snapshotJSON) string {
	m := ""
	if !s.Failed.IsZero() && s.Complete {
		m += "!"
	}
	if !s.Verified.IsZero() {
		m += "V"
	}
	if !s.Drilled.IsZero() {
		m += "D"
	}
	return m
}

// lastPassed says when a snapshot of the list last passed, and which.
func lastPassed(list []snapshotJSON, now time.Time, when func(*snapshotJSON) time.Time) string {
	last := slices.MaxFunc(list, func(a, b snapshotJSON) int { return when(&a).Compare(when(&b)) })
	if when(&last).IsZero() {
		return "never"
	}
	return fmt.Sprintf("%s (%s)", words.Ago(now.Sub(when(&last))), last.ShortID)
}

// marks returns the flags of a snapshot.
func marks(s *repo.Snapshot) string {
	m := ""
	if s.Encrypted {
		m += "E"
		if locked(s) {
			m += "L"
		}
	}
	if !s.Complete {
		m += "!"
	}
	if s.Pin != nil {
		m += "⚑"
	}
	return m
}
