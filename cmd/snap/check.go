package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/snap-backup/snap/repo"
	"github.com/spf13/cobra"
)

func (a *app) checkCommand() *cobra.Command {
	var readData string
	var decode bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Verify the repository",
		Long: `Verifies that every snapshot can be restored: keys and index are intact, all
packs exist with the right sizes, and every file of every snapshot has its
chunks in them. --read-data also reads every byte. Each pack is named by the
hash of its bytes, so check finds every byte that has changed since it was
written. A tenth of the packs, in turn, is also decoded. --decode decodes all
that is read, which takes several times as long: it would find content that was
already stored wrong, by a fault of this program or of the computer's memory.

--read-data=10%, =20 (packs) or =5GB reads a part: packs that were never read
come first, then those that were read longest ago. The repository records this,
so that daily runs cover everything: with =3%, in 34 days.

If something is damaged, check lists the affected files of each snapshot and
exits with 13.`,
		Args: optional("read-data"),
		RunE: func(cmd *cobra.Command, argv []string) error {
			ctx := cmd.Context()
			readData := optionalValue(readData, argv)
			opts, err := parsePart(readData)
			if err != nil {
				return err
			}
			if readData == "" && decode {
				opts.ReadData = 1
			}
			opts.Sample = readData != "" && !decode
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
			opts.Seed = rand.Uint64()
			opts.Progress = func(d, t int64) { done.Store(d); total.Store(t) }
			report, err := r.Check(ctx, opts)
			stop()
			if err != nil {
				return err
			}
			// No list may be null in JSON.
			report.Unreferenced = append([]string{}, report.Unreferenced...)
			report.Problems = append([]repo.Problem{}, report.Problems...)
			report.Marked = append([]repo.AffectedSnapshot{}, report.Marked...)
			report.Affected = append([]repo.AffectedSnapshot{}, report.Affected...)
			result := struct {
				*repo.CheckReport
				Clean bool `json:"clean"`
			}{report, report.Clean()}
			if err := a.conclude(result, len(report.Problems)+len(report.Affected) > 0, func(w io.Writer) { printCheck(w, report) }); err != nil {
				return err
			}
			if !report.Clean() {
				if a.protectedDays(ctx) > 0 {
					a.remark(`The store protects files: "snap protect" shows when some were hidden, and can bring them back.`)
				}
				return silentError{repo.ErrDamaged}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&readData, "read-data", "", "read all packs, or a `part` of them such as =10%, =20 or =5GB")
	cmd.Flags().Lookup("read-data").NoOptDefVal = "100%"
	cmd.Flags().BoolVar(&decode, "decode", false, "decode everything that is read; without --read-data all packs")
	return cmd
}

// parsePart parses the value of --read-data: "", "2.5%", a number of packs, or a
// size such as "5GB".
func parsePart(s string) (repo.CheckOptions, error) {
	wrong := usageError{errors.New("--read-data takes a percentage, a number of packs or a size, as in --read-data=10%, =20 or =5GB")}
	unit := strings.TrimLeft(s, "0123456789.")
	v, err := strconv.ParseFloat(strings.TrimSuffix(s, unit), 64)
	switch {
	case s == "":
		return repo.CheckOptions{}, nil
	case err != nil || !(v > 0):
		return repo.CheckOptions{}, wrong
	case unit == "%" && v <= 100:
		return repo.CheckOptions{ReadData: v / 100}, nil
	case unit == "" && v == math.Trunc(v) && v < 1<<31:
		return repo.CheckOptions{ReadPacks: int(v)}, nil
	}
	power := strings.IndexByte("KMGT", (strings.ToUpper(unit) + " ")[0])
	if rest := strings.ToUpper(unit)[min(1, len(unit)):]; power < 0 || rest != "" && rest != "B" && rest != "IB" {
		return repo.CheckOptions{}, wrong
	}
	bytes := v * math.Pow(1024, float64(power+1))
	if bytes >= 1<<62 {
		return repo.CheckOptions{}, wrong
	}
	return repo.CheckOptions{ReadBytes: max(1, int64(bytes))}, nil
}

// printRead prints what there is, and how much of it was read.
func printRead(w io.Writer, c *repo.CheckReport) {
	fmt.Fprintf(w, "%s; %s in %s, %s", plural(c.Snapshots, "snapshot"), plural(c.Chunks, "chunk"), plural(c.Packs, "pack"), bytesText(c.PackBytes))
	if c.ReadPacks > 0 {
		fmt.Fprintf(w, "; %s read", plural(c.ReadPacks, "pack"))
		switch {
		case c.DamagedPacks > 0:
			fmt.Fprintf(w, "; %s damaged", count(int64(c.DamagedPacks)))
		case c.DecodedPacks == c.ReadPacks:
			fmt.Fprint(w, " and decoded")
		default:
			fmt.Fprintf(w, ", %s of them decoded", count(int64(c.DecodedPacks)))
		}
		if c.UnreadPacks > 0 {
			fmt.Fprintf(w, ", %s never read", count(int64(c.UnreadPacks)))
		} else if c.ReadPacks < c.Packs && c.Oldest != nil {
			fmt.Fprintf(w, ", all read since %s", timeText(*c.Oldest))
		}
	}
}

func printCheck(w io.Writer, c *repo.CheckReport) {
	for _, p := range c.Problems {
		lead := "NOTE    "
		if p.Fatal {
			lead = paint(w, bad, "DAMAGED ")
		}
		if p.File != "" {
			fmt.Fprintf(w, "%s %s: %s\n", lead, p.File, clean(p.Text))
		} else {
			fmt.Fprintf(w, "%s %s\n", lead, clean(p.Text))
		}
		if p.Hint != "" {
			fmt.Fprintf(w, "         %s\n", paint(w, faint, p.Hint))
		}
	}
	for _, s := range c.Affected {
		what := plural(s.Files, "file") + " cannot be restored"
		switch {
		case s.Tree && s.Files == 0:
			what = "a part of its file tree is lost"
		case s.Tree:
			what = "a part of its file tree is lost, and at least " + what
		}
		fmt.Fprintf(w, "%s snapshot %s (%s, %s): %s\n", paint(w, bad, "AFFECTED"), s.Snapshot.Short(), clean(s.Device), timeText(s.Time), what)
		for _, n := range s.Names {
			fmt.Fprintf(verbatim(w), "           %s\n", clean(n))
		}
		if more := s.Files - int64(len(s.Names)); more > 0 {
			fmt.Fprintf(w, "           and %s more\n", count(more))
		}
	}
	for _, s := range c.Marked {
		what := plural(s.Files, "file")
		switch {
		case s.Tree && s.Files == 0:
			what = "a part of its file tree"
		case s.Tree:
			what += " and a part of its file tree"
		}
		fmt.Fprintf(w, "MARKED   snapshot %s (%s, %s) is marked as lacking %s\n", s.Snapshot.Short(), clean(s.Device), timeText(s.Time), what)
	}
	printUnreferenced(w, c.Unreferenced)
	if s := c.Parity; s != nil {
		fmt.Fprintf(w, "parity: %s protected, %s unprotected\n", bytesText(s.Protected), bytesText(s.Unprotected))
		if len(c.Problems) > 0 {
			fmt.Fprintln(w, "try \"snap repair\" first: it heals with parity, without a copy; \"snap repair -n\" shows what it would heal")
		}
	}
	printRead(w, c)
	if c.Snapshots == 0 && c.Packs > 0 {
		fmt.Fprint(w, "\nno snapshot is left: if a backup was interrupted, run it again; if records were lost, \"snap repair --from COPY --missing-snapshots\" brings back those of a copy")
	}
	if c.Clean() {
		fmt.Fprintln(w, "\n"+paint(w, good, "no errors were found"))
	} else {
		problems := ""
		if len(c.Problems) > 0 {
			problems = plural(len(c.Problems), "problem") + "; "
		}
		fmt.Fprintf(w, "\n%s: %saffected snapshots: %d\n", paint(w, bad, "the repository is damaged"), problems, len(c.Affected))
	}
}

// printUnreferenced prints what is in the folders of the repository and no snapshot needs.
func printUnreferenced(w io.Writer, names []string) {
	var left, aside []string
	for _, name := range names {
		if strings.Contains(name, ".aside-") {
			aside = append(aside, name)
		} else {
			left = append(left, name)
		}
	}
	say := func(names []string, text, then string) {
		if len(names) == 0 {
			return
		}
		more := ""
		if len(names) > 1 {
			more = ", …"
		}
		fmt.Fprintf(w, "%s %s (%s%s); %s\n", plural(len(names), "file"), text, clean(names[0]), more, then)
	}
	say(left, "left by an interrupted run or by a repair, harmless", `"snap prune" removes what no snapshot needs`)
	say(aside, "moved aside by a repair", "no command needs or removes them: delete them when you do not need them")
}
