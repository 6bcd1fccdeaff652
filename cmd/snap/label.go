package main

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/snap-backup/snap/repo"
	"github.com/spf13/cobra"
)

// newTags is a flag that adds tags to snapshots and can be repeated. Tags are checked
// before anything is done.
type newTags struct {
	tags       *[]string
	allowEmpty bool // an empty tag stands for none
}

func (newTags) Type() string     { return "tag" }
func (f newTags) String() string { return "" }

func (f newTags) Set(tag string) error {
	if tag != "" || !f.allowEmpty {
		if err := repo.CheckTag(tag); err != nil {
			return err
		}
	}
	if len(*f.tags) >= repo.MaxTags {
		return fmt.Errorf("a snapshot has at most %d tags", repo.MaxTags)
	}
	*f.tags = append(*f.tags, tag)
	return nil
}

// labelResult is the output of the commands below for one snapshot.
type labelResult struct {
	snapshotJSON
	Was repo.FileID `json:"was"` // ID before the change
}

// relabel changes the labels of snapshots and prints their new labels.
func (a *app) relabel(cmd *cobra.Command, specs []string, change func(*repo.Labels), text func(was repo.Labels, now *repo.Snapshot) string) error {
	ctx := cmd.Context()
	r, err := a.openLocked(cmd, repo.LockWrite)
	if err != nil {
		return err
	}
	list, damaged, err := r.Snapshots(ctx)
	if err != nil {
		return err
	}
	for _, err := range damaged {
		a.warn("%v", err)
	}
	var chosen []*repo.Snapshot
	for _, spec := range specs {
		s, err := repo.FindIn(list, a.spec(spec))
		if err != nil {
			return err
		}
		if !slices.Contains(chosen, s) {
			chosen = append(chosen, s)
		}
	}
	results, before := []labelResult{}, []repo.Labels{}
	for _, s := range chosen {
		labels := s.Labels()
		change(&labels)
		now := s
		if !reflect.DeepEqual(labels, s.Labels()) {
			if now, err = r.ChangeSnapshot(ctx, s, labels); err != nil {
				return err
			}
		}
		before = append(before, s.Labels())
		results = append(results, labelResult{snapshotsJSON([]*repo.Snapshot{now}, nil)[0], s.ID})
	}
	return a.conclude(results, false, func(w io.Writer) {
		for i, res := range results {
			fmt.Fprintf(w, "%s of %s, %s: %s\n", res.ShortID, clean(res.DeviceName), timeText(res.Time), clean(text(before[i], res.Snapshot)))
		}
		if slices.ContainsFunc(results, func(l labelResult) bool { return l.ID != l.Was }) {
			a.remark("a changed snapshot has a new ID; its earlier IDs still work")
		}
	})
}

func (a *app) tagCommand() *cobra.Command {
	var add, remove, set []string
	cmd := &cobra.Command{
		Use:     "tag SNAPSHOT...",
		Short:   "Change the tags of snapshots",
		Example: "  snap tag --add before-update latest\n  snap tag --remove before-update --add kept 1a2b3c4d\n  snap tag --set '' 1a2b3c4d",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, specs []string) error {
			f := cmd.Flags()
			if !f.Changed("add") && !f.Changed("remove") && !f.Changed("set") {
				return usageError{errors.New("no tag is given: use --add, --remove or --set")}
			}
			if f.Changed("set") && (f.Changed("add") || f.Changed("remove")) {
				return usageError{errors.New("--set replaces all tags and cannot be combined with --add or --remove; --set a --set b sets two tags, --set '' removes all")}
			}
			if slices.Contains(remove, "") {
				return usageError{errors.New("--remove: a tag cannot be empty")}
			}
			return a.relabel(cmd, specs, func(l *repo.Labels) {
				if f.Changed("set") {
					l.Tags = nil
				}
				l.Tags = slices.DeleteFunc(l.Tags, func(tag string) bool { return slices.Contains(remove, tag) })
				for _, tag := range slices.Concat(set, add) {
					if tag != "" && !slices.Contains(l.Tags, tag) {
						l.Tags = append(l.Tags, tag)
					}
				}
			}, func(_ repo.Labels, s *repo.Snapshot) string {
				if len(s.Tags) == 0 {
					return "no tags"
				}
				return "tags " + strings.Join(s.Tags, ", ")
			})
		},
	}
	f := cmd.Flags()
	f.Var(newTags{&add, false}, "add", "add this `tag` (can be repeated)")
	f.StringArrayVar(&remove, "remove", nil, "remove this `tag` (can be repeated)")
	f.Var(newTags{&set, true}, "set", "replace all tags with this `tag` (can be repeated; empty for none)")
	return cmd
}

func (a *app) pinCommand() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "pin SNAPSHOT...",
		Short: "Protect snapshots from being forgotten",
		Long: `A pinned snapshot is never forgotten, neither by a policy nor by its ID, until
it is unpinned. "snap snapshots" marks it with ⚑. To change the reason, pin it
again with another --reason.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, specs []string) error {
			return a.relabel(cmd, specs, func(l *repo.Labels) {
				switch {
				case l.Pin == nil:
					l.Pin = &repo.Pin{Since: time.Now().UTC().Truncate(time.Second), Reason: reason}
				case cmd.Flags().Changed("reason"):
					l.Pin = &repo.Pin{Since: l.Pin.Since, Reason: reason}
				}
			}, func(was repo.Labels, s *repo.Snapshot) string {
				text := "pinned"
				if s.Pin.Reason != "" {
					text += ": " + s.Pin.Reason
				}
				if was.Pin != nil && was.Pin.Reason != "" && was.Pin.Reason != s.Pin.Reason {
					text += " (previous reason: " + was.Pin.Reason + ")"
				}
				return text
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "`text` that says why")
	return cmd
}

func (a *app) unpinCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "unpin SNAPSHOT...",
		Short: "Allow snapshots to be forgotten again",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, specs []string) error {
			return a.relabel(cmd, specs, func(l *repo.Labels) { l.Pin = nil },
				func(repo.Labels, *repo.Snapshot) string { return "not pinned" })
		},
	}
}

func (a *app) noteCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "note SNAPSHOT [TEXT]",
		Short: "Set or remove the note of a snapshot",
		Args:  cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, argv []string) error {
			text := ""
			if len(argv) > 1 {
				text = argv[1]
			}
			return a.relabel(cmd, argv[:1], func(l *repo.Labels) { l.Note = text }, func(_ repo.Labels, s *repo.Snapshot) string {
				if s.Note == "" {
					return "no note"
				}
				return s.Note
			})
		},
	}
}
