package main

import (
	"context"
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
	Was         repo.FileID `json:"was"`                    // ID before the change
	WouldChange *bool       `json:"would_change,omitempty"` // in a dry run

	before repo.Labels
	change bool
}

// relabeling changes the labels of the snapshots that are named or fit a filter.
type relabeling struct {
	a      *app
	filter snapshotFilter
	dryRun bool
	change func(*repo.Labels)
	text   func(was repo.Labels, now *repo.Snapshot) string // the new labels
}

func (l *relabeling) register(cmd *cobra.Command) {
	if cmd.Args == nil {
		cmd.Args = func(_ *cobra.Command, names []string) error { return l.filter.checkNames(len(names)) }
	}
	l.filter.register(cmd)
	registerDryRun(cmd, &l.dryRun, "only show what would be changed")
}

// run prints the new labels of the snapshots.
func (l *relabeling) run(cmd *cobra.Command, names []string) error {
	ctx := cmd.Context()
	if err := errors.Join(l.filter.checkNames(len(names)), l.filter.check()); err != nil {
		return err
	}
	open := l.a.openToReplace
	if l.dryRun {
		open = func(cmd *cobra.Command) (*repo.Repo, error) { return l.a.openLocked(cmd, repo.LockRead) }
	}
	r, err := open(cmd)
	if err != nil {
		return err
	}
	list, damaged, err := r.Snapshots(ctx)
	if err != nil {
		return err
	}
	for _, err := range damaged {
		l.a.warn("%v", err)
	}
	chosen, err := l.filter.choose(list, l.a.specs(names))
	if err != nil {
		return err
	}
	results := []labelResult{}
	for _, s := range chosen {
		res, err := l.one(ctx, r, s)
		if err != nil {
			return labelsChanged(results, err)
		}
		results = append(results, res)
	}
	return l.a.conclude(results, l.dryRun, func(w io.Writer) { l.print(w, results, len(names) == 1) })
}

// one changes the labels of a snapshot.
func (l *relabeling) one(ctx context.Context, r *repo.Repo, s *repo.Snapshot) (labelResult, error) {
	labels := s.Labels()
	l.change(&labels)
	res := labelResult{Was: s.ID, before: s.Labels(), change: !reflect.DeepEqual(labels, s.Labels())}
	now, err := s, error(nil)
	switch {
	case l.dryRun:
		preview := *s
		preview.Tags, preview.Note, preview.Pin = labels.Tags, labels.Note, labels.Pin
		now, res.WouldChange = &preview, &res.change
	case res.change:
		now, err = r.ChangeSnapshot(ctx, s, labels)
	}
	if err == nil {
		res.snapshotJSON = snapshotsJSON([]*repo.Snapshot{now}, nil)[0]
	}
	return res, err
}

// labelsChanged adds to an error how many snapshots were changed before it.
func labelsChanged(results []labelResult, err error) error {
	if n := changedLabels(results); n > 0 {
		return fmt.Errorf("%w; %s changed before that", err, plural(n, "snapshot"))
	}
	return err
}

func changedLabels(results []labelResult) int {
	n := 0
	for _, res := range results {
		if res.change {
			n++
		}
	}
	return n
}

func (l *relabeling) print(w io.Writer, results []labelResult, one bool) {
	if len(results) == 0 {
		fmt.Fprintln(w, "no snapshot matches")
		return
	}
	for _, res := range results {
		text := clean(l.text(res.before, res.Snapshot))
		switch {
		case l.dryRun && res.change:
			text = "would be changed to: " + text
		case l.dryRun:
			text = "would stay: " + text
		}
		fmt.Fprintf(w, "%s of %s, %s: %s\n", res.ShortID, clean(res.DeviceName), timeText(res.Time), text)
	}
	n := changedLabels(results)
	switch {
	case l.dryRun:
		fmt.Fprintf(w, "would change %s of %s\n", count(int64(n)), plural(len(results), "snapshot"))
		return
	case !one:
		fmt.Fprintf(w, "changed %s of %s\n", count(int64(n)), plural(len(results), "snapshot"))
	}
	if n > 0 {
		l.a.remark("a changed snapshot has a new ID; its earlier IDs still work")
	}
}

// filterHelp is the part of a help text about the choice of snapshots.
const filterHelp = `Without SNAPSHOT it changes the snapshots that --device, --since, --until, --tag
and --host choose: those that fit each of the flags that are given. --dry-run
only shows what would change.`

func (a *app) tagCommand() *cobra.Command {
	var add, remove, set []string
	l := relabeling{a: a}
	cmd := &cobra.Command{
		Use:     "tag [SNAPSHOT...]",
		Short:   "Change the tags of snapshots",
		Long:    "Changes the tags of the named snapshots.\n\n" + filterHelp,
		Example: "  snap tag --add before-update latest\n  snap tag --remove before-update --add kept 1a2b3c4d\n  snap tag --set '' 1a2b3c4d\n  snap tag --add trip --since 2026-07-01 --until 2026-07-14 --dry-run",
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
			l.change = func(l *repo.Labels) {
				if f.Changed("set") {
					l.Tags = nil
				}
				l.Tags = slices.DeleteFunc(l.Tags, func(tag string) bool { return slices.Contains(remove, tag) })
				for _, tag := range slices.Concat(set, add) {
					if tag != "" && !slices.Contains(l.Tags, tag) {
						l.Tags = append(l.Tags, tag)
					}
				}
			}
			return l.run(cmd, specs)
		},
	}
	l.text = func(_ repo.Labels, s *repo.Snapshot) string {
		if len(s.Tags) == 0 {
			return "no tags"
		}
		return "tags " + strings.Join(s.Tags, ", ")
	}
	l.register(cmd)
	f := cmd.Flags()
	f.Var(newTags{&add, false}, "add", "add this `tag` (can be repeated)")
	f.StringArrayVar(&remove, "remove", nil, "remove this `tag` (can be repeated)")
	f.Var(newTags{&set, true}, "set", "replace all tags with this `tag` (can be repeated; empty for none)")
	return cmd
}

func (a *app) pinCommand() *cobra.Command {
	var reason string
	l := relabeling{a: a}
	cmd := &cobra.Command{
		Use:   "pin [SNAPSHOT...]",
		Short: "Protect snapshots from being forgotten",
		Long: `A pinned snapshot is never forgotten, neither by a policy nor by its ID, until
it is unpinned. "snap snapshots" marks it with ⚑. To change the reason, pin it
again with another --reason.

` + filterHelp,
		RunE: func(cmd *cobra.Command, specs []string) error {
			l.change = func(l *repo.Labels) {
				switch {
				case l.Pin == nil:
					l.Pin = &repo.Pin{Since: time.Now().UTC().Truncate(time.Second), Reason: reason}
				case cmd.Flags().Changed("reason"):
					l.Pin = &repo.Pin{Since: l.Pin.Since, Reason: reason}
				}
			}
			return l.run(cmd, specs)
		},
	}
	l.text = func(was repo.Labels, s *repo.Snapshot) string {
		text := "pinned"
		if s.Pin.Reason != "" {
			text += ": " + s.Pin.Reason
		}
		if was.Pin != nil && was.Pin.Reason != "" && was.Pin.Reason != s.Pin.Reason {
			text += " (previous reason: " + was.Pin.Reason + ")"
		}
		return text
	}
	l.register(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "`text` that says why")
	return cmd
}

func (a *app) unpinCommand() *cobra.Command {
	l := relabeling{a: a, change: func(l *repo.Labels) { l.Pin = nil },
		text: func(repo.Labels, *repo.Snapshot) string { return "not pinned" }}
	cmd := &cobra.Command{
		Use:   "unpin [SNAPSHOT...]",
		Short: "Allow snapshots to be forgotten again",
		Long:  "Removes the pins of the named snapshots, so that they can be forgotten again.\n\n" + filterHelp,
		RunE:  func(cmd *cobra.Command, specs []string) error { return l.run(cmd, specs) },
	}
	l.register(cmd)
	return cmd
}

func (a *app) noteCommand() *cobra.Command {
	l := relabeling{a: a, text: func(_ repo.Labels, s *repo.Snapshot) string {
		if s.Note == "" {
			return "no note"
		}
		return s.Note
	}}
	cmd := &cobra.Command{
		Use:   "note [SNAPSHOT] [TEXT]",
		Short: "Set or remove the note of a snapshot",
		Long: `Sets the note of a snapshot. Without TEXT, or with an empty one, it removes the
note.

` + filterHelp + `
Then the only argument is the text.`,
		Example: "  snap note 1a2b3c4d \"the last one of the old phone\"\n  snap note --tag trip \"Norway\"",
		Args:    cobra.MaximumNArgs(2),
		RunE: func(cmd *cobra.Command, argv []string) error {
			names := argv
			if !l.filter.given() && len(argv) > 0 {
				names, argv = argv[:1], argv[1:]
			} else if len(argv) < 2 {
				names = nil
			}
			text := strings.Join(argv, "")
			l.change = func(l *repo.Labels) { l.Note = text }
			return l.run(cmd, names)
		},
	}
	l.register(cmd)
	return cmd
}
