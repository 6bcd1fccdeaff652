package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/snap-backup/snap/repo"
	"github.com/spf13/cobra"
)

// statsResult is the output of stats.
type statsResult struct {
	*repo.Stats
	Shares []repo.Share `json:"shares,omitzero"` // with --by
	Growth []growth     `json:"growth,omitzero"` // with --growth
	Prune  *pruneResult `json:"prune,omitempty"` // with --prune
}

// growth is what was added to the repository in one period.
type growth struct {
	Date      string `json:"date"` // first day of the period
	Snapshots int    `json:"snapshots"`
	NewBytes  int64  `json:"new_bytes"`
	Stored    int64  `json:"stored_bytes"`
	Total     int64  `json:"total_bytes"` // bytes stored up to the end of the period
}

func (a *app) statsCommand() *cobra.Command {
	var by, period string
	var prune bool
	cmd := &cobra.Command{
		Use:   "stats [SNAPSHOT]",
		Short: "Show the content and size of the repository or of a snapshot",
		Long: `Shows the content and size of the repository by device.

--by domain and --by app also show each domain or app: its files in the newest
snapshots, and the bytes stored for it in all snapshots. Content that several of
them share counts only for the first that had it.

--growth also shows what each day (or =week, =month) added, without forgotten
snapshots. --prune also shows what "snap prune" would free.

With SNAPSHOT it shows what this snapshot holds: its files, their size, the
bytes stored for them, and the unique bytes, which no other snapshot needs. It
names the ten largest domains; --by domain and --by app name all.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, argv []string) error {
			ctx := cmd.Context()
			if f := cmd.Flags().Lookup("growth"); len(argv) > 0 && f.Changed && period == f.NoOptDefVal {
				period, argv = argv[0], nil // as in "--growth week"
			}
			name, ok := shareNames[by]
			if !ok {
				return usageError{fmt.Errorf("--by takes domain or app, not %q", by)}
			}
			begin, ok := periods[period]
			if !ok {
				return usageError{fmt.Errorf("--growth takes day, week or month, not %q", period)}
			}
			if len(argv) > 0 {
				if prune || begin != nil {
					return usageError{errors.New("--growth and --prune are about the repository: give them without SNAPSHOT")}
				}
				return a.snapshotStats(cmd, argv[0], name)
			}
			r, list, _, err := a.openAll(cmd)
			if err != nil {
				return err
			}
			st, err := r.Stats(ctx, list)
			if err != nil {
				return err
			}
			res := statsResult{Stats: st}
			if name != nil {
				if res.Shares, err = r.Shares(ctx, list, name); err != nil {
					return err
				}
			}
			if begin != nil {
				res.Growth = grow(list, begin, time.Local)
			}
			if prune {
				opts, err := (&pruneFlags{maxUnused: "5%"}).options()
				if err != nil {
					return err
				}
				opts.DryRun = true
				if res.Prune, err = a.prune(ctx, r, opts); err != nil {
					return err
				}
			}
			return a.print(res, res.printTo)
		},
	}
	f := cmd.Flags()
	f.StringVar(&by, "by", "", "also show each `domain or app`")
	f.StringVar(&period, "growth", "", "also show what each `period` added: day, week or month")
	f.Lookup("growth").NoOptDefVal = "day"
	f.BoolVar(&prune, "prune", false, "also show what a prune would free")
	return cmd
}

// snapshotStatsResult is the output of stats for one snapshot. Sizes are in bytes.
type snapshotStatsResult struct {
	ID         repo.FileID `json:"id"`
	UDID       string      `json:"udid"`
	DeviceName string      `json:"device_name"`
	Time       time.Time   `json:"time"`
	Files      int64       `json:"files"`
	Bytes      int64       `json:"bytes"`
	Stored     int64       `json:"stored_bytes"`
	Unique     int64       `json:"unique_bytes"`
	Parts      []repo.Part `json:"parts"`
}

// snapshotStats shows what a snapshot holds. name groups its files; if it is nil, they are
// grouped by domain, and only the largest are printed.
func (a *app) snapshotStats(cmd *cobra.Command, spec string, name func(domain string) string) error {
	ctx := cmd.Context()
	r, found, err := a.openToRead(cmd, spec)
	if err != nil {
		return err
	}
	list, _, err := r.Snapshots(ctx) // openToRead has named damaged records
	if err != nil {
		return err
	}
	shown := math.MaxInt
	if name == nil {
		name, shown = shareNames["domain"], 10
	}
	s := found[0]
	parts, err := r.Parts(ctx, s, list, name)
	if err != nil {
		return err
	}
	res := snapshotStatsResult{ID: s.ID, UDID: s.Device.UDID, DeviceName: s.Device.Name, Time: s.Time, Files: s.Files, Bytes: s.Bytes, Parts: parts}
	for _, p := range parts {
		res.Stored += p.StoredBytes
		res.Unique += p.UniqueBytes
	}
	return a.print(res, func(w io.Writer) { res.printTo(w, shown) })
}

func (res *snapshotStatsResult) printTo(w io.Writer, shown int) {
	fmt.Fprintf(w, "snapshot %s of %s, backup of %s\n", res.ID.Short(), clean(orUnknown(res.DeviceName)), timeText(res.Time))
	fmt.Fprintf(w, "%s, %s, stored in %s, of which only this snapshot needs %s\n\n", plural(res.Files, "file"), bytesText(res.Bytes), bytesText(res.Stored), bytesText(res.Unique))
	var rows []string
	for _, p := range res.Parts[:min(shown, len(res.Parts))] {
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%s", clean(p.Name), count(p.Files), bytesText(p.Bytes), bytesText(p.StoredBytes), bytesText(p.UniqueBytes)))
	}
	table(w, "<NAME\t->FILES\t>SIZE\t->STORED\t>UNIQUE", rows)
	if more := len(res.Parts) - shown; more > 0 {
		fmt.Fprintf(w, "and %s; \"snap stats %s --by domain\" shows all\n", plural(more, "smaller domain"), res.ID.Short())
	}
}

// shareNames has the functions that return the domain or app of a file, by value of
// --by.
var shareNames = map[string]func(domain string) string{
	"": nil,
	"domain": func(domain string) string {
		if domain == "" {
			return noDomain
		}
		return domain
	},
	"app": appOf,
}

// appOf returns the app that a domain belongs to, the domain itself if it belongs to
// the system, or "-" without a domain.
func appOf(domain string) string {
	for _, kind := range []string{"AppDomain-", "AppDomainGroup-group.", "AppDomainGroup-", "AppDomainPlugin-"} {
		if app, ok := strings.CutPrefix(domain, kind); ok && app != "" {
			return app
		}
	}
	if domain == "" {
		return noDomain
	}
	return domain
}

// periods has functions that return the first day of the period that contains a time,
// by value of --growth.
var periods = map[string]func(time.Time) time.Time{
	"":      nil,
	"day":   func(t time.Time) time.Time { return t },
	"week":  func(t time.Time) time.Time { return t.AddDate(0, 0, -(int(t.Weekday())+6)%7) },
	"month": func(t time.Time) time.Time { return t.AddDate(0, 0, 1-t.Day()) },
}

// grow sums up what snapshots added, by the period in which they were stored.
func grow(list []*repo.Snapshot, begin func(time.Time) time.Time, zone *time.Location) []growth {
	out, at := []growth{}, map[string]int{}
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b *repo.Snapshot) int { return a.StoredAt.Compare(b.StoredAt) })
	total := int64(0)
	for _, s := range list {
		date := begin(s.StoredAt.In(zone)).Format(time.DateOnly)
		i, ok := at[date]
		if !ok {
			i = len(out)
			at[date] = i
			out = append(out, growth{Date: date})
		}
		g := &out[i]
		total += s.StoredBytes
		g.Snapshots++
		g.NewBytes += s.NewBytes
		g.Stored += s.StoredBytes
		g.Total = total
	}
	return out
}

func (st *statsResult) printTo(w io.Writer) {
	var rows []string
	for _, d := range st.Devices {
		rows = append(rows, fmt.Sprintf("%s\t%d\t%s\t%s\t%s\t%s", clean(d.Name), d.Snapshots, timeText(d.Last),
			bytesText(d.NewestBytes), bytesText(d.LogicalBytes), bytesText(d.StoredBytes)))
	}
	if len(rows) > 0 {
		table(w, "<DEVICE\t>SNAPSHOTS\tNEWEST\t>SIZE\t>ALL SIZES\t>ADDED", rows)
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "%s, %s in all, stored in %s", plural(st.Snapshots, "snapshot"), bytesText(st.LogicalBytes), bytesText(st.StoredBytes))
	if st.Snapshots > 0 {
		fmt.Fprintf(w, " (%.1f to 1)", st.Ratio)
	}
	fmt.Fprintf(w, "\n%s content, %s trees, %s index, %s other; %s in %s\n", bytesText(st.ContentBytes),
		bytesText(st.MetaBytes), bytesText(st.IndexBytes), bytesText(st.OtherBytes), plural(st.Chunks, "chunk"), plural(st.Packs, "pack"))
	if st.ReserveBytes > 0 {
		fmt.Fprintf(w, "plus a reserve of %s for a full disk\n", bytesText(st.ReserveBytes))
	}
	if st.Shares != nil {
		fmt.Fprintln(w)
		rows = nil
		for _, s := range st.Shares {
			rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s", clean(s.Name), count(s.Files), bytesText(s.NewestBytes), bytesText(s.StoredBytes)))
		}
		table(w, "<NAME\t->FILES NOW\t>SIZE NOW\t>STORED", rows)
	}
	if st.Growth != nil {
		fmt.Fprintln(w)
		printGrowth(w, st.Growth)
	}
	if st.Prune != nil {
		fmt.Fprintln(w, "\nsnap prune:")
		st.Prune.print(w)
	}
}

// printGrowth prints what each period added, with a bar.
func printGrowth(w io.Writer, list []growth) {
	most := int64(1)
	for _, g := range list {
		most = max(most, g.Stored)
	}
	var rows []string
	for _, g := range list {
		rows = append(rows, fmt.Sprintf("%s\t%d\t%s\t%s\t%s", g.Date, g.Snapshots, bytesText(g.Stored), bytesText(g.Total), bar(g.Stored, most)))
	}
	table(w, "STORED\t>SNAPSHOTS\t>ADDED\t>TOTAL\t", rows)
	fmt.Fprintln(w, "Forgotten snapshots are not counted.")
}

const (
	barWidth = 30
	eighths  = "▏▎▍▌▋▊▉█"
)

// bar draws a bar whose length is proportional to part. If part equals most, the bar has
// barWidth columns. Lengths are rounded down to eighths of a column, but the bar of a
// positive part has at least one eighth.
func bar(part, most int64) string {
	n := int(float64(part) / float64(most) * barWidth * 8)
	if part > 0 {
		n = max(n, 1)
	}
	blocks := []rune(eighths)
	out := strings.Repeat(string(blocks[7]), n/8)
	if n%8 > 0 {
		out += string(blocks[n%8-1])
	}
	return out
}
