package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/parity"
	"github.com/spf13/cobra"
)

func (a *app) parityCommand() *cobra.Command {
	var statusOnly bool
	cmd := &cobra.Command{
		Use:   "parity [PERCENT|off]",
		Short: "Protect the repository against bit rot without a copy",
		Long: `Makes or updates parity, from which "snap repair" can rebuild damaged files.
With 5% it can rebuild two damaged or missing packs of every 40, or damaged
sectors in any number of packs unless three packs are damaged at the same
position. It also protects snapshot records, keys, config and the ledger.
Without PERCENT it adds parity for files that have none yet, as "snap backup",
"snap import" and "snap prune" do. "off" removes all parity.

Parity does not replace a copy: if the disk dies, parity dies with it.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, argv []string) error {
			ctx := cmd.Context()
			percent, off := 0, false
			if len(argv) > 0 && argv[0] == "off" {
				off = true
			} else if len(argv) > 0 {
				var err error
				if percent, err = parsePercent(argv[0]); err != nil {
					return err
				}
			}
			r, err := a.open(ctx)
			if err != nil {
				return err
			}
			if !statusOnly {
				if err := a.mayReplace(); err != nil {
					return err
				}
				if err := a.takeLock(ctx, r, repo.LockWrite, cmd.CommandPath()); err != nil {
					return err
				}
			}
			if err := r.LoadIndex(ctx); err != nil {
				return err
			}
			var out parityResult
			switch {
			case statusOnly:
			case off:
				if out.Removed, err = r.RemoveParity(ctx); err != nil {
					return err
				}
			default:
				if out.Refreshed, err = a.refreshParity(cmd, r, percent); err != nil {
					return err
				}
			}
			if out.Status, err = r.ParityStatus(ctx); err != nil {
				return err
			}
			return a.conclude(out, statusOnly || out.Refreshed != nil && len(out.Refreshed.Damaged) > 0, func(w io.Writer) { printParity(w, &out) })
		},
	}
	cmd.Flags().BoolVar(&statusOnly, "status", false, "only show what is protected")
	return cmd
}

// parityResult is the output of parity.
type parityResult struct {
	Refreshed *parity.RefreshReport `json:"refreshed,omitempty"`
	Removed   int                   `json:"removed_files"`
	Status    *parity.Status        `json:"status"`
}

func (a *app) refreshParity(cmd *cobra.Command, r *repo.Repo, percent int) (*parity.RefreshReport, error) {
	var done, total atomic.Int64
	stop := a.showProgress(func() meter {
		m := meter{phase: "making parity"}
		if n := total.Load(); n > 0 {
			m.percent = 100 * done.Load() / n
		}
		return m
	})
	defer stop()
	return r.RefreshParity(cmd.Context(), percent, func(d, t int) { done.Store(int64(d)); total.Store(int64(t)) })
}

// parsePercent parses a percentage, such as "5%", and returns hundredths of a
// percent.
func parsePercent(s string) (int, error) {
	v, err := strconv.ParseFloat(strings.TrimSuffix(s, "%"), 64)
	if err != nil || !(v >= 1 && v <= 100) {
		return 0, usageError{errors.New("parity takes a percentage from 1% to 100%, such as 5%")}
	}
	return int(math.Round(v * 100)), nil
}

func printParity(w io.Writer, out *parityResult) {
	if r := out.Refreshed; r != nil {
		for _, name := range r.Damaged {
			fmt.Fprintf(w, "%s  %s: run \"snap repair\"\n", paint(w, bad, "DAMAGED"), name)
		}
		printAside(w, r.Aside)
	}
	s := out.Status
	for _, name := range s.Missing {
		fmt.Fprintf(w, "%s  %s: run \"snap repair\"\n", paint(w, bad, "MISSING"), name)
	}
	if s.Groups == 0 {
		fmt.Fprintln(w, "no parity; \"snap parity 5%\" makes it")
		return
	}
	fmt.Fprintf(w, "parity of %g%%: %s protected by %s in %s, %s unprotected\n", s.Percent, bytesText(s.Protected), bytesText(s.ParityBytes), plural(s.Groups, "file"), bytesText(s.Unprotected))
}

// updateParity makes parity for newly stored files, if the repository has parity. A
// failure is only a warning.
func (a *app) updateParity(cmd *cobra.Command, r *repo.Repo) {
	if a.mayReplace() != nil {
		// Parity of a few files is replaced when there are more. Here it would pile up.
		if s, err := parity.Load(cmd.Context(), a.store); err == nil && s.Percent() > 0 {
			a.remark("parity was not updated, since this user may remove nothing; run \"snap parity\" on the server itself")
		}
		return
	}
	rep, err := a.refreshParity(cmd, r, 0)
	if err != nil && cmd.Context().Err() == nil {
		a.warn("parity was not updated: %v; run \"snap parity\" to try again", err)
	}
	if err == nil && len(rep.Aside) > 0 {
		a.warn("a folder, a link or something else had the name of a parity file: it is now %s, and snap does not need it", rep.Aside[0])
	}
}
