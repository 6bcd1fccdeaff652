package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/snap-backup/snap/repo"
	"github.com/spf13/cobra"
)

func (a *app) checkCommand() *cobra.Command {
	var readData string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Verify the repository",
		Long: `Verifies that every snapshot can be given back: that keys and index are sound,
all packs are there with their right sizes, and every file of every snapshot
leads to chunks in them. With --read-data every byte is read and verified, with
--read-data=10% a random tenth of the packs.

If something is damaged it says which files of which snapshots suffer, and exits
with 13.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			part, err := parsePart(readData)
			if err != nil {
				return err
			}
			r, err := a.openLocked(cmd, repo.LockRead)
			if err != nil {
				return err
			}
			var done, total atomic.Int64
			stop := a.showProgress(func() meter {
				if total.Load() == 0 {
					return meter{phase: "checking structure"}
				}
				return meter{phase: "reading packs", bytes: done.Load(), totalBytes: total.Load()}
			})
			report, err := r.Check(ctx, repo.CheckOptions{
				ReadData: part, Seed: rand.Uint64(),
				Progress: func(d, t int64) { done.Store(d); total.Store(t) },
			})
			stop()
			if err != nil {
				return err
			}
			// No list is null in JSON.
			report.Leftovers = append([]string{}, report.Leftovers...)
			report.Problems = append([]repo.Problem{}, report.Problems...)
			report.Suffering = append([]repo.Suffering{}, report.Suffering...)
			result := struct {
				*repo.CheckReport
				Clean bool `json:"clean"`
			}{report, report.Clean()}
			if err := a.print(result, func(w io.Writer) { printCheck(w, report) }); err != nil {
				return err
			}
			if !report.Clean() {
				return silentError{repo.ErrDamaged}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&readData, "read-data", "", "read and verify all packs, or a `part` of them such as =10%")
	cmd.Flags().Lookup("read-data").NoOptDefVal = "100%"
	return cmd
}

// parsePart reads "", "10%" or "2.5%".
func parsePart(s string) (float64, error) {
	if s == "" {
		return 0, nil
	}
	v, err := strconv.ParseFloat(strings.TrimSuffix(s, "%"), 64)
	if err != nil || !(v > 0 && v <= 100) {
		return 0, usageError{errors.New("--read-data takes a part from 1% to 100%, as in --read-data=10%")}
	}
	return v / 100, nil
}

func printCheck(w io.Writer, c *repo.CheckReport) {
	for _, p := range c.Problems {
		if p.File != "" {
			fmt.Fprintf(w, "DAMAGED  %s: %s\n", p.File, clean(p.Text))
		} else {
			fmt.Fprintf(w, "DAMAGED  %s\n", clean(p.Text))
		}
		if p.Hint != "" {
			fmt.Fprintf(w, "         %s\n", p.Hint)
		}
	}
	for _, s := range c.Suffering {
		least := ""
		if s.Tree {
			least = "at least "
		}
		fmt.Fprintf(w, "SUFFERS  snapshot %s (%s, %s): %s%s cannot be given back\n", s.Snapshot.Short(), clean(s.Device), timeText(s.Time), least, plural(s.Files, "file"))
		for _, n := range s.Names {
			fmt.Fprintf(w, "           %s\n", clean(n))
		}
		if more := s.Files - int64(len(s.Names)); more > 0 {
			fmt.Fprintf(w, "           and %s more\n", count(more))
		}
	}
	if n := len(c.Leftovers); n > 0 {
		more := ""
		if n > 1 {
			more = ", …"
		}
		fmt.Fprintf(w, "%s of an interrupted run that nothing needs (%s%s); no harm in that\n", plural(n, "file"), c.Leftovers[0], more)
	}
	fmt.Fprintf(w, "%s; %s in %s, %s", plural(c.Snapshots, "snapshot"), plural(c.Chunks, "chunk"), plural(c.Packs, "pack"), bytesText(c.PackBytes))
	if c.ReadPacks > 0 {
		fmt.Fprintf(w, "; %s read and verified", plural(c.ReadPacks, "pack"))
	}
	if c.Clean() {
		fmt.Fprintln(w, "\nno errors were found")
	} else {
		fmt.Fprintf(w, "\nthe repository is damaged: %s; snapshots that suffer: %d\n", plural(len(c.Problems), "problem"), len(c.Suffering))
	}
}
