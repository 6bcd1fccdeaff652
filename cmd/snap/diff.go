package main

import (
	"fmt"
	"io"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
	"github.com/spf13/cobra"
)

// diffResult is the output of diff.
type diffResult struct {
	From     repo.FileID  `json:"from"`
	To       repo.FileID  `json:"to"`
	Added    int          `json:"added"`
	Removed  int          `json:"removed"`
	Modified int          `json:"modified"`
	Metadata int          `json:"metadata"` // files that differ only in metadata, such as times or keys
	Grown    int64        `json:"grown_bytes"`
	Changes  []diffChange `json:"changes"`
}

// diffChange is one file that differs.
type diffChange struct {
	Change string `json:"change"` // added, removed, modified or metadata
	Domain string `json:"domain"`
	Name   string `json:"name"`
	Path   string `json:"path"` // in the backup folder
	From   int64  `json:"from_size"`
	To     int64  `json:"to_size"`
}

// changeMarks are the marks that restic prints for changes.
var changeMarks = map[string]string{"added": "+", "removed": "-", "modified": "M", "metadata": "U"}

func (a *app) diffCommand() *cobra.Command {
	var metadata bool
	cmd := &cobra.Command{
		Use:   "diff SNAPSHOT SNAPSHOT",
		Short: "Show what changed between two snapshots",
		Long: `Lists the files that differ between two snapshots of the same or different
devices: + added, - removed, M modified. --metadata adds U: same content,
different times or key.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, argv []string) error {
			ctx := cmd.Context()
			r, found, err := a.openToRead(cmd, argv[0], argv[1])
			if err != nil {
				return err
			}
			from, to := found[0], found[1]
			if locked(from) != locked(to) {
				for _, s := range []*repo.Snapshot{from, to} {
					if locked(s) {
						a.warn("snapshot %s was stored locked, without the backup password, and the other one was not: files cannot be compared, so all are listed as removed and added", s.ID.Short())
					}
				}
			}
			res := diffResult{From: from.ID, To: to.ID, Changes: []diffChange{}}
			err = r.Diff(ctx, from, to, func(x, y *tree.Entry) error {
				res.add(x, y, metadata)
				return nil
			})
			if err != nil {
				return err
			}
			return a.print(res, func(w io.Writer) {
				for _, c := range res.Changes {
					fmt.Fprintf(verbatim(w), "%s  %s\n", changeMarks[c.Change], clean(fileText(c.Domain, c.Name, c.Path)))
				}
				fmt.Fprintf(w, "%s added, %s removed, %s modified, %s with different metadata; %+.1f MiB\n",
					count(int64(res.Added)), count(int64(res.Removed)), count(int64(res.Modified)), count(int64(res.Metadata)), float64(res.Grown)/(1<<20))
				if len(res.Changes) > 0 {
					a.remark("+ added, - removed, M modified, U only different times or key; a renamed file is one removed and one added")
				}
			})
		},
	}
	cmd.Flags().BoolVar(&metadata, "metadata", false, "also list files that differ only in metadata")
	return cmd
}

// locked reports whether a snapshot was stored locked: its files are still encrypted.
func locked(s *repo.Snapshot) bool { return s.Encrypted && !s.Unlocked }

// add counts a difference and lists it. If only metadata differs, it lists the
// difference only if metadata is true. It ignores folders, whose times change with
// every file in them.
func (d *diffResult) add(x, y *tree.Entry, metadata bool) {
	e := y
	if e == nil {
		e = x
	}
	if e.Kind == tree.Dir {
		return
	}
	c := diffChange{Domain: e.Domain, Name: e.Name, Path: e.Path}
	if x != nil {
		c.From = x.Content.Size
	}
	if y != nil {
		c.To = y.Content.Size
	}
	switch {
	case x == nil:
		c.Change = "added"
		d.Added++
	case y == nil:
		c.Change = "removed"
		d.Removed++
	case !x.SameContent(y):
		c.Change = "modified"
		d.Modified++
	default:
		c.Change = "metadata"
		d.Metadata++
	}
	d.Grown += c.To - c.From
	if c.Change != "metadata" || metadata {
		d.Changes = append(d.Changes, c)
	}
}

// fileText returns the name of a file on the device, or its path in the backup folder
// if it has no domain.
func fileText(domain, name, path string) string {
	if domain == "" {
		return path
	}
	return domain + "/" + name
}
