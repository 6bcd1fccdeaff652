package main

import (
	"fmt"
	"io"
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

func (a *app) unlockCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "unlock",
		Short: "List locks and remove stale ones",
		Long: `Lists the locks of the repository, and removes those whose process is gone:

  alive    its process runs on this computer
  fresh    its process, on another computer, refreshed it in the last half hour
  dead     its process, on this computer, has ended: removed
  stale    its process, on another computer, did not refresh it for half an hour:
           removed
  damaged  it cannot be read

Other commands do this, too; dead and stale locks block nothing. --remove-all also
removes all other locks. A process that is still running notices this and makes no
snapshot.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			r, err := a.open(ctx)
			if err != nil {
				return err
			}
			locks, err := r.Locks(ctx)
			if err != nil {
				return err
			}
			res := unlockResult{Locks: []lockJSON{}, Removed: []repo.FileID{}}
			running := 0
			for _, l := range locks {
				res.Locks = append(res.Locks, lockToPrint(l))
				if l.State == repo.LockAlive || l.State == repo.LockFresh {
					running++
				}
			}
			if all && running > 0 {
				a.warn("removing %s of running processes; their backups will fail", plural(running, "lock"))
			}
			removed, err := r.RemoveLocks(ctx, func(l repo.LockInfo) bool { return all || repo.LeftBehind(l) })
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
		if l.State == repo.LockBad {
			rows = append(rows, fmt.Sprintf("%s\t\t\t\t\t\t%s", l.ID.Short(), l.State))
			continue
		}
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\t%s", l.ID.Short(), clean(l.Command),
			clean(l.User+"@"+l.Host), fmt.Sprint(l.PID), timeText(l.Since), timeText(l.Refreshed), l.State))
	}
	table(w, "ID\tCOMMAND\tWHO\t>PROCESS\tSINCE\tLAST SEEN\tSTATE", rows)
}
