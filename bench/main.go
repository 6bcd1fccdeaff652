// Command bench compares snap with other backup programs on generated backups.
//
// It generates a series of backup folders (package synthetic), stores each day with
// every installed program, and prints one Markdown table: repository sizes, and wall
// time, CPU time and peak memory of storing, restoring and checking. For comparison the
// table also has the times of cp and checksum programs, and the floor: the size that
// good delta and compression programs reduce the changes to.
//
// All programs store the same folders, take turns, and have their own repositories and
// caches. bench compares everything that they restore with the original. It never
// measures itself: programs run as children of a small process that reads their
// resource usage.
//
//	go run ./bench -scale small -days 8 -floor
//
// It measures only on Unix. bench/tools.sh installs the other programs.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/snap-backup/snap/device/simulator/synthetic"
)

func main() {
	if isStarter() {
		os.Exit(starter(os.Args[1:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// config has the values of the flags.
type config struct {
	series synthetic.Config
	days   int
	repeat int
	tools  []string
	paths  map[string]string // program by tool; empty means PATH
	dir    string
	keep   bool
	floor  bool
	json   bool
	date   string
	seeds  []uint64
	// history is the number of snapshots that each repository gets beside those of the series.
	history int
	target  string // folder to restore to; empty means below dir
	from    string // file of an earlier report
	guard   string // file of limits
	update  bool   // write that file
	// distant compares repositories in an object store, the program gateway.
	distant   bool
	gateway   string
	roundTrip time.Duration
}

var encryptions = []string{"none", "all", "alternate"} // by synthetic.Encryption

func parseFlags(args []string, stderr io.Writer) (config, error) {
	c := config{paths: map[string]string{}}
	paths := map[string]*string{}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.IntVar(&c.days, "days", 8, "days of the series")
	f.IntVar(&c.series.Devices, "devices", 2, "devices of the series")
	scale := f.String("scale", "small", synthetic.ScaleUsage)
	encrypt := f.String("encrypt", "none", "devices that encrypt their backups: none, all or alternate")
	f.Uint64Var(&c.series.Seed, "seed", 1, "`seed` of the series; equal seeds generate equal folders")
	seeds := f.String("seeds", "", "`seeds` of several series, separated by commas; one table shows all of them")
	f.BoolVar(&c.series.CompactDBs, "compact", false, "compact databases, so that their pages move")
	names := f.String("tools", "", "programs to compare, separated by commas (default: all installed ones of "+strings.Join(toolNames(), ",")+")")
	for _, name := range toolNames() {
		text := name + "'s `program` (default: the one in PATH)"
		if name == snapName {
			text = "snap's `program` (default: built from ./cmd/snap)"
		}
		paths[name] = f.String(name, "", text)
	}
	f.StringVar(&c.dir, "dir", "", "`folder` for the run (default: a temporary one)")
	f.StringVar(&c.target, "restore-to", "", "restore and copy to a folder in this `folder`, such as one on a memory disk (default: the folder for the run)")
	f.IntVar(&c.history, "history", 0, "after day 0, add `N` snapshots of the same content without measuring; quick only with snap")
	f.BoolVar(&c.keep, "keep", false, "keep folders and repositories")
	f.IntVar(&c.repeat, "repeat", 3, "repositories per program; each step is measured in all of them")
	f.BoolVar(&c.floor, "floor", false, "also compute the floor: what xdelta3 and xz need for the changes")
	f.BoolVar(&c.json, "json", false, "print all samples as JSON instead of the table")
	f.StringVar(&c.from, "from", "", "measure nothing; print the report in this `file`, which -json has printed")
	f.StringVar(&c.guard, "guard", "", "compare one small series of snap with the limits in this `file`, and nothing else; -dir should be a memory disk")
	f.BoolVar(&c.update, "guard-update", false, "write what was measured as the new limits of -guard")
	f.BoolVar(&c.distant, "distant", false, "compare repositories in an object store far away: times, requests and bytes")
	f.StringVar(&c.gateway, "versitygw", cmp.Or(os.Getenv("SNAP_TEST_VERSITYGW"), "versitygw"), "the object store's `program`, for -distant")
	f.DurationVar(&c.roundTrip, "round-trip", 20*time.Millisecond, "`time` that a request and its answer need on the way, half of it in each direction, for -distant")
	f.StringVar(&c.date, "date", time.Now().UTC().Format(time.DateOnly), "`date` to print")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	if f.NArg() > 0 {
		return c, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if c.days < 1 || c.repeat < 1 || c.series.Devices < 1 {
		return c, errors.New("-days, -devices and -repeat must be at least 1")
	}
	if c.history < 0 || c.history > maxHistory {
		return c, fmt.Errorf("-history takes 0 to %d", maxHistory)
	}
	if c.days > maxDays || c.repeat > maxRepeat {
		return c, fmt.Errorf("-days takes at most %d, -repeat %d", maxDays, maxRepeat)
	}
	for name, path := range paths {
		c.paths[name] = *path
	}
	if *names != "" {
		c.tools = strings.Split(*names, ",")
	}
	if c.update && c.guard == "" {
		return c, errors.New("-guard-update needs -guard FILE")
	}
	var err error
	if c.series.Scale, err = synthetic.ParseScale(*scale); err != nil {
		return c, err
	}
	if c.series.Encryption, err = parseEncryption(*encrypt); err != nil {
		return c, err
	}
	c.seeds = []uint64{c.series.Seed}
	if *seeds != "" {
		if isSet(f, "seed") {
			return c, errors.New("give -seed or -seeds, not both")
		}
		c.seeds, err = parseSeeds(*seeds)
	}
	return c, err
}

// isSet reports whether a flag was given.
func isSet(f *flag.FlagSet, name string) (set bool) {
	f.Visit(func(one *flag.Flag) { set = set || one.Name == name })
	return set
}

// parseSeeds parses a list such as 1,2,3.
func parseSeeds(list string) (seeds []uint64, err error) {
	for _, text := range strings.Split(list, ",") {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("-seeds takes numbers separated by commas, not %q", list)
		}
		if slices.Contains(seeds, seed) {
			return nil, fmt.Errorf("-seeds has %d twice", seed)
		}
		seeds = append(seeds, seed)
	}
	return seeds, nil
}

func parseEncryption(name string) (synthetic.Encryption, error) {
	for i, n := range encryptions {
		if n == name {
			return synthetic.Encryption(i), nil
		}
	}
	return 0, fmt.Errorf("-encrypt takes %s, not %q", strings.Join(encryptions, ", "), name)
}

// run runs the command: it measures and prints.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	c, err := parseFlags(args, stderr)
	if err != nil {
		return err
	}
	if c.from != "" {
		report, err := readReport(c.from)
		if err != nil {
			return err
		}
		return report.write(stdout, c.json)
	}
	if !canMeasure {
		return errors.New("bench measures only on Unix, since other systems have no wait4")
	}
	if c.dir, err = workFolder(c.dir); err != nil {
		return err
	}
	if c.target != "" {
		if c.target, err = workFolder(c.target); err != nil {
			return errors.Join(err, os.RemoveAll(c.dir))
		}
		defer func() { err = errors.Join(err, os.RemoveAll(c.target)) }()
	}
	if c.keep {
		fmt.Fprintln(stderr, "working in", c.dir)
	} else {
		defer func() { err = errors.Join(err, os.RemoveAll(c.dir)) }()
	}
	if c.guard != "" {
		return runGuard(ctx, c, c.guard, c.update, stdout, stderr)
	}
	if c.distant {
		return runDistant(ctx, c, args, stdout, stderr)
	}
	tools, missing, err := findTools(ctx, c)
	if err != nil {
		return err
	}
	report, err := runSeeds(ctx, c, tools, stderr)
	if err != nil {
		return err
	}
	report.Missing = missing
	report.Command = strings.Join(append([]string{"go run ./bench"}, publicArgs(args)...), " ")
	return report.write(stdout, c.json)
}

// runSeeds measures a series for each seed and returns one report of all of them.
func runSeeds(ctx context.Context, c config, tools []*tool, log io.Writer) (*report, error) {
	var all *report
	for _, seed := range c.seeds {
		one := c
		one.series.Seed = seed
		one.dir = filepath.Join(c.dir, fmt.Sprintf("seed-%d", seed))
		if err := os.Mkdir(one.dir, 0o700); err != nil {
			return nil, err
		}
		if len(c.seeds) > 1 {
			fmt.Fprintf(log, "seed %d\n", seed)
		}
		b := &bench{conf: one, tools: tools, log: log, flush: flushDisks, sync: "sync"}
		r, err := b.run(ctx)
		if err != nil {
			return nil, err
		}
		if all == nil {
			all = r
		} else {
			all.add(r)
		}
		if !c.keep {
			if err := os.RemoveAll(one.dir); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

// workFolder makes a new folder for the run, so that removing it at the end removes
// nothing else.
func workFolder(parent string) (string, error) {
	if parent != "" {
		if err := os.MkdirAll(parent, 0o700); err != nil {
			return "", fmt.Errorf("work folder: %w", err)
		}
	}
	dir, err := os.MkdirTemp(parent, "snap-bench-")
	if err != nil {
		return "", fmt.Errorf("work folder: %w", err)
	}
	return filepath.Abs(dir)
}

// publicArgs removes paths of this machine from a command line, so that a report can be
// published.
func publicArgs(args []string) []string {
	private := map[string]bool{"dir": true, "restore-to": true, "date": true, "keep": true, "versitygw": true}
	for _, name := range toolNames() {
		private[name] = true
	}
	var out []string
	for i := 0; i < len(args); i++ {
		name, _, joined := strings.Cut(strings.TrimLeft(args[i], "-"), "=")
		if !strings.HasPrefix(args[i], "-") || !private[name] {
			out = append(out, args[i])
			continue
		}
		if !joined && name != "keep" {
			i++
		}
	}
	return out
}
