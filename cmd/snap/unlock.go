package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/snap-backup/snap/repo"
	"github.com/spf13/cobra"
)

// lockJSON is a lock in the output.
type lockJSON struct {
	ID        repo.FileID    `json:"id"`
	Kind      repo.LockKind  `json:"kind,omitempty"`
	Command   string         `json:"command,omitempty"`
	Host      string         `json:"host,omitempty"`
	User      string         `json:"user,omitempty"`
	PID       int            `json:"pid,omitempty"`
	Since     time.Time      `json:"since,omitzero"`
	Refreshed time.Time      `json:"refreshed,omitzero"`
	State     repo.LockState `json:"state"`
}

func lockToPrint(l repo.LockInfo) lockJSON {
	return lockJSON{l.ID, l.Kind, l.What, l.Owner.Host, l.Owner.User, l.Owner.PID, l.Since, l.Refreshed, l.State}
}

// unlockResult is the output of unlock.
type unlockResult struct {
	Locks   []lockJSON    `json:"locks"` // all locks before the removal
	Removed []repo.FileID `json:"removed"`
}

// errNoLock says that no lock has a given ID.
var errNoLock = errors.New("no such lock")

func (a *app) unlockCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "unlock [LOCK...]",
		Short: "List locks and remove stale ones",
		Long: `Lists the locks of the repository with their states, and removes dead and stale
ones:

  alive    the process runs on this computer
  fresh    the process runs on another computer and refreshed the lock in the
           last half hour
  dead     the process ran on this computer and has ended
  stale    the process ran on another computer and has not refreshed the lock
           for half an hour
  unknown  the process is on another computer, and no clock shows whether it
           still runs: the lock has a date in the future, or the repository's
           storage has no file times
  damaged  the lock cannot be read, and is not stale yet

The clock of the disk or server that has the repository tells the age of a lock.
The clocks of computers are not compared. Commands remove dead locks, and stale
locks that are in their way, so these never block a command. To wait for an
unknown lock, give a command --retry-lock 35m: a lock that does not change for
half an hour is stale.

Locks that are named by their IDs are removed in any state, and with
--remove-all all locks are. A process that is still running then notices that
its lock is gone, and makes no snapshot.`,
		Example: "  snap unlock\n  snap unlock 1a2b3c4d",
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, specs []string) error {
			ctx := cmd.Context()
			if all && len(specs) > 0 {
				return usageError{errors.New("name locks or give --remove-all, not both")}
			}
			r, err := a.open(ctx)
			if err != nil {
				return err
			}
			locks, err := r.Locks(ctx)
			if err != nil {
				return err
			}
			named, err := findLocks(locks, specs)
			if err != nil {
				return err
			}
			res := unlockResult{Locks: []lockJSON{}, Removed: []repo.FileID{}}
			running := 0
			for _, l := range locks {
				res.Locks = append(res.Locks, lockToPrint(l))
				if (all || named[l.ID]) && (l.State == repo.LockAlive || l.State == repo.LockFresh) {
					running++
				}
			}
			if running > 0 {
				a.warn("removing %s of running processes; their backups will fail", plural(running, "lock"))
			}
			removed, err := r.RemoveLocks(ctx, func(l repo.LockInfo) bool {
				return all || named[l.ID] || len(specs) == 0 && repo.LeftBehind(l)
			})
			for _, l := range removed {
				res.Removed = append(res.Removed, l.ID)
			}
			if err != nil {
				return err
			}
			return a.print(res, func(w io.Writer) { res.print(w) })
		},
	}
	cmd.Flags().BoolVar(&all, "remove-all", false, "also remove locks of running processes")
	return cmd
}

// findLocks returns the IDs of the locks that begin with specs.
func findLocks(locks []repo.LockInfo, specs []string) (map[repo.FileID]bool, error) {
	named := map[repo.FileID]bool{}
	for _, spec := range specs {
		var found []repo.FileID
		for _, l := range locks {
			if spec != "" && strings.HasPrefix(l.ID.String(), strings.ToLower(spec)) {
				found = append(found, l.ID)
			}
		}
		switch len(found) {
		case 0:
			return nil, fmt.Errorf("%q: %w", spec, errNoLock)
		case 1:
			named[found[0]] = true
		default:
			return nil, fmt.Errorf("%q fits %s: %w", spec, plural(len(found), "lock"), repo.ErrAmbiguous)
		}
	}
	return named, nil
}

func (res *unlockResult) print(w io.Writer) {
	if len(res.Locks) == 0 {
		fmt.Fprintln(w, "no locks")
		return
	}
	printLocks(w, res.Locks)
	fmt.Fprintf(w, "\nremoved %s\n", plural(len(res.Removed), "lock"))
}

func printLocks(w io.Writer, locks []lockJSON) {
	var rows []string
	for _, l := range locks {
		if l.Kind == "" { // it cannot be read
			rows = append(rows, fmt.Sprintf("%s\t\t\t\t\t\t%s", l.ID.Short(), l.State))
			continue
		}
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\t%s", l.ID.Short(), clean(l.Command),
			clean(l.User+"@"+l.Host), fmt.Sprint(l.PID), timeText(l.Since), timeText(l.Refreshed), l.State))
	}
	table(w, "ID\tCOMMAND\t<WHO\t->PROCESS\tSINCE\t-LAST SEEN\t+STATE", rows)
}
