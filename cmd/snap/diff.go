package main

import (
	"fmt"
	"io"
	"strings"

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
	Renamed  int          `json:"renamed"`  // files with the same content and another place
	Metadata int          `json:"metadata"` // files that differ only in metadata, such as times or keys
	Grown    int64        `json:"grown_bytes"`
	Changes  []diffChange `json:"changes"`

	// removed and added are the changes of these kinds, by content.
	removed, added map[string][]int
}

// diffChange is one file that differs.
type diffChange struct {
	Change string `json:"change"` // added, removed, modified, renamed or metadata
	Domain string `json:"domain"`
	Name   string `json:"name"`
	Path   string `json:"path"` // in the backup folder
	From   int64  `json:"from_size"`
	To     int64  `json:"to_size"`
	// Was is the earlier place of a renamed file.
	Was *diffPlace `json:"was,omitempty"`
}

// diffPlace is the place of a file.
type diffPlace struct {
	Domain string `json:"domain"`
	Name   string `json:"name"`
	Path   string `json:"path"`
}

// changeMarks are the marks that restic prints for changes.
var changeMarks = map[string]string{"added": "+", "removed": "-", "modified": "M", "renamed": "R", "metadata": "U"}

func (a *app) diffCommand() *cobra.Command {
	var metadata bool
	cmd := &cobra.Command{
		Use:   "diff SNAPSHOT SNAPSHOT",
		Short: "Show what changed between two snapshots",
		Long: `Lists the files that differ between two snapshots of the same or different
devices: + added, - removed, M modified, R renamed or moved with the same
content. --metadata adds U: same content, different times or key. If several
files have the content of a file that was removed, none of them counts as
renamed.`,
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
			res := diffResult{From: from.ID, To: to.ID, Changes: []diffChange{}, removed: map[string][]int{}, added: map[string][]int{}}
			err = r.Diff(ctx, from, to, func(x, y *tree.Entry) error {
				res.add(x, y, metadata)
				return nil
			})
			if err != nil {
				return err
			}
			res.findRenamed()
			return a.print(res, func(w io.Writer) {
				res.print(w)
				if len(res.Changes) > 0 {
					a.remark("+ added, - removed, M modified, R renamed, U only different times or key")
				}
			})
		},
	}
	cmd.Flags().BoolVar(&metadata, "metadata", false, "also list files that differ only in metadata")
	return cmd
}

func (d *diffResult) print(w io.Writer) {
	for _, c := range d.Changes {
		was := ""
		if c.Was != nil {
			was = clean(fileText(c.Was.Domain, c.Was.Name, c.Was.Path)) + " -> "
		}
		fmt.Fprintf(verbatim(w), "%s  %s%s\n", changeMarks[c.Change], was, clean(fileText(c.Domain, c.Name, c.Path)))
	}
	fmt.Fprintf(w, "%s added, %s removed, %s modified, %s renamed,\n%s with different metadata; %+.1f MiB\n",
		count(int64(d.Added)), count(int64(d.Removed)), count(int64(d.Modified)), count(int64(d.Renamed)), count(int64(d.Metadata)), float64(d.Grown)/(1<<20))
}

// contentKey returns a text that is the same for files with the same content, or "" if that
// says nothing about them.
func contentKey(e *tree.Entry) string {
	if e == nil || e.Kind != tree.File || e.Content.Size == 0 {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d ", e.Content.Level)
	for _, id := range e.Content.IDs {
		b.Write(id[:])
	}
	return b.String()
}

// findRenamed joins a removed and an added file with the same content, unless several
// files have it.
func (d *diffResult) findRenamed() {
	gone := map[int]bool{}
	for content, removed := range d.removed {
		added := d.added[content]
		if len(removed) != 1 || len(added) != 1 {
			continue
		}
		was, c := d.Changes[removed[0]], &d.Changes[added[0]]
		c.Change, c.From, c.Was = "renamed", was.From, &diffPlace{was.Domain, was.Name, was.Path}
		gone[removed[0]] = true
		d.Added, d.Removed, d.Renamed = d.Added-1, d.Removed-1, d.Renamed+1
	}
	left := d.Changes[:0]
	for i, c := range d.Changes {
		if !gone[i] {
			left = append(left, c)
		}
	}
	d.Changes = left
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
	note := func(changes map[string][]int, e *tree.Entry) {
		if key := contentKey(e); key != "" {
			changes[key] = append(changes[key], len(d.Changes))
		}
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
		note(d.added, y)
	case y == nil:
		c.Change = "removed"
		d.Removed++
		note(d.removed, x)
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
