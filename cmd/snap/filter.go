package main

import (
	"errors"
	"slices"

	"github.com/snap-backup/snap/repo"
	"github.com/spf13/cobra"
)

// given reports whether there is any condition.
func (f *snapshotFilter) given() bool {
	return f.device != "" || f.host != "" || f.narrow()
}

// narrow reports whether there is a condition besides a device or computer, of which all
// snapshots may fit.
func (f *snapshotFilter) narrow() bool {
	return f.since != "" || f.until != "" || len(f.tags) > 0
}

// checkNames returns an error unless snapshots are given either by names or by a filter.
// So no command changes all snapshots by accident.
func (f *snapshotFilter) checkNames(names int) error {
	switch {
	case names == 0 && !f.given():
		return usageError{errors.New("no snapshots are given: name them, or choose them with --device, --since, --until, --tag or --host")}
	case names > 0 && f.given():
		return usageError{errors.New("name snapshots, or choose them with --device, --since, --until, --tag or --host, not both")}
	}
	return nil
}

// choose returns the snapshots that are named, each only once. Without names it returns
// those that fit the filter.
func (f *snapshotFilter) choose(list []*repo.Snapshot, names []string) ([]*repo.Snapshot, error) {
	if len(names) == 0 {
		return f.apply(list)
	}
	var chosen []*repo.Snapshot
	for _, name := range names {
		s, err := repo.FindIn(list, name)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(chosen, s) {
			chosen = append(chosen, s)
		}
	}
	return chosen, nil
}

// check returns an error if a time cannot be read. Commands check this before they ask for
// a password.
func (f *snapshotFilter) check() error {
	for _, text := range []string{f.since, f.until} {
		if _, _, err := parseTime(text); err != nil {
			return err
		}
	}
	return nil
}

// registerDryRun adds the flag of a command that may only show what it would do.
func registerDryRun(cmd *cobra.Command, dryRun *bool, usage string) {
	cmd.Flags().BoolVarP(dryRun, "dry-run", "n", false, usage)
}
