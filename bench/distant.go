package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/snap-backup/snap/bench/farstore"
	"github.com/snap-backup/snap/device/simulator/synthetic"
)

// The steps of -distant that the other series does not have.
const (
	stepRestoreNewest step = "restore of the newest"
	stepRestoreCold   step = "restore of the newest, empty cache"
	stepStructure     step = "check of the structure"
	stepPrune         step = "forget and prune"
)

// distantSteps are the steps of -distant, in the order of the table.
var distantSteps = []step{stepFirst, stepNext, stepUnchanged, stepRestoreNewest, stepRestoreCold, stepStructure, stepPrune}

// distantSample is what a step took and asked for.
type distantSample struct {
	sample
	// Kinds has the requests by method and folder.
	Kinds map[string]farstore.Traffic `json:"kinds"`
}

// total returns all requests together.
func (s distantSample) total() (all farstore.Traffic) {
	for _, t := range s.Kinds {
		all.Requests += t.Requests
		all.Bytes += t.Bytes
	}
	return all
}

// distantReport has the samples of each program and step.
type distantReport struct {
	Command   string                              `json:"command"`
	Machine   machine                             `json:"machine"`
	RoundTrip string                              `json:"round_trip"`
	Versions  map[string]string                   `json:"versions"`
	Samples   map[string]map[step][]distantSample `json:"samples"`
}

// distant compares programs whose repositories are in an object store at the end of a long
// line. All use one store and one line, and take turns.
type distant struct {
	*bench
	line *farstore.Line
	out  *distantReport
}

// runDistant measures and prints -distant.
func runDistant(ctx context.Context, c config, args []string, stdout, stderr io.Writer) (err error) {
	if c.tools == nil {
		c.tools = []string{snapName, ratioTo}
	}
	tools, _, err := findTools(ctx, c)
	if err != nil {
		return err
	}
	for _, t := range tools {
		if t.structure == nil {
			return fmt.Errorf("-distant compares only %s and %s, not %s", snapName, ratioTo, t.name)
		}
	}
	g, err := farstore.Start(ctx, c.gateway, c.dir)
	if err != nil {
		return fmt.Errorf("object store: %w", err)
	}
	defer g.Stop()
	l, err := farstore.Open(ctx, g.Addr, c.roundTrip)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	d := &distant{
		bench: &bench{conf: c, tools: tools, log: stderr, flush: func() {}},
		line:  l,
		out: &distantReport{
			Command: strings.Join(append([]string{"go run ./bench"}, publicArgs(args)...), " "),
			Machine: thisMachine(ctx), RoundTrip: c.roundTrip.String(),
			Versions: map[string]string{}, Samples: map[string]map[step][]distantSample{},
		},
	}
	for _, t := range tools {
		d.out.Versions[t.name], d.out.Samples[t.name] = t.versionText, map[step][]distantSample{}
	}
	if err := d.run(ctx); err != nil {
		return err
	}
	if c.json {
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		return e.Encode(d.out)
	}
	_, err = io.WriteString(stdout, d.out.markdown(mapped(tools, func(t *tool) string { return t.name })))
	return err
}

// run makes the repositories and measures all steps.
func (d *distant) run(ctx context.Context) (err error) {
	d.backups = filepath.Join(d.conf.dir, "backups")
	if err := os.Mkdir(d.backups, 0o700); err != nil {
		return err
	}
	d.conf.series.StateDir = d.conf.dir
	series, err := synthetic.New(d.conf.series)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, series.Close()) }()
	d.devices = series.Devices()
	if err := d.createBuckets(ctx); err != nil {
		return err
	}
	for day := range d.conf.days {
		if err := series.Next(ctx, d.backups); err != nil {
			return err
		}
		kind := stepNext
		if day == 0 {
			kind = stepFirst
		}
		d.logf("day %d: import", day)
		if err := d.store(ctx, kind, day); err != nil {
			return err
		}
	}
	d.logf("unchanged, restore, check, prune")
	if err := d.store(ctx, stepUnchanged, d.conf.days); err != nil {
		return err
	}
	for _, kind := range []step{stepRestoreNewest, stepRestoreCold} {
		if err := d.restoreNewest(ctx, kind); err != nil {
			return err
		}
	}
	if err := d.whole(ctx, stepStructure, func(t *tool) []string { return t.structure() }); err != nil {
		return err
	}
	return d.whole(ctx, stepPrune, func(t *tool) []string { return t.prune(1) })
}

// createBuckets makes a repository in a bucket of its own for each tool and round.
func (d *distant) createBuckets(ctx context.Context) error {
	for n := range d.conf.repeat {
		var round []*toolRepo
		for _, t := range d.tools {
			name := fmt.Sprintf("%s-%d", t.name, n)
			r := &toolRepo{t, "s3:http://" + d.line.Addr + "/" + name, filepath.Join(d.conf.dir, name)}
			if err := os.Mkdir(r.home, 0o700); err != nil {
				return err
			}
			if _, err := d.ask(ctx, r, t.createDistant(), params{}, d.conf.dir); err != nil {
				return err
			}
			round = append(round, r)
		}
		d.rounds = append(d.rounds, round)
	}
	return nil
}

// ask runs a command of a program and returns what it took and asked for.
func (d *distant) ask(ctx context.Context, r *toolRepo, args []string, p params, dir string) (distantSample, error) {
	p.repo, p.home = r.repo, r.home
	d.line.Take()
	s, _, err := withKeys(r.tool.command(args, p, dir)).measure(ctx)
	return distantSample{s, d.line.Take()}, err
}

// withKeys adds the keys of the object store to the environment of a command.
func withKeys(c command) command {
	c.env = append(c.env, "AWS_ACCESS_KEY_ID="+farstore.Key, "AWS_SECRET_ACCESS_KEY="+farstore.Secret, "AWS_REGION=us-east-1")
	return c
}

func (d *distant) add(r *toolRepo, kind step, s distantSample) {
	of := d.out.Samples[r.tool.name]
	of[kind] = append(of[kind], s)
}

// store stores the folders of all devices. Each one is a sample.
func (d *distant) store(ctx context.Context, kind step, day int) error {
	return d.eachRepo(func(r *toolRepo) error {
		for _, device := range d.devices {
			p := r.params(device, day)
			s, err := d.ask(ctx, r, r.tool.store(p), p, d.backups)
			if err != nil {
				return err
			}
			d.add(r, kind, s)
		}
		return nil
	})
}

// restoreNewest restores the newest snapshot of each device, and compares it with its folder.
func (d *distant) restoreNewest(ctx context.Context, kind step) error {
	want, err := readContents(d.backups)
	if err != nil {
		return err
	}
	return d.eachRepo(func(r *toolRepo) error {
		target := filepath.Join(d.conf.dir, "target")
		if err := os.Mkdir(target, 0o700); err != nil {
			return err
		}
		for _, device := range d.devices {
			p := r.params(device, d.conf.days-1)
			p.target = target
			if p.id, err = d.newest(ctx, r, p); err != nil {
				return err
			}
			at := *r
			if kind == stepRestoreCold {
				if at.home, err = os.MkdirTemp(d.conf.dir, "home-"); err != nil {
					return err
				}
			}
			s, err := d.ask(ctx, &at, r.tool.restore(p), p, target)
			if err != nil {
				return err
			}
			d.add(r, kind, s)
		}
		got, err := readContents(target)
		if err == nil {
			err = want.compare(got)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", r.tool.name, err)
		}
		return os.RemoveAll(target)
	})
}

// newest returns the ID of a snapshot, without measuring.
func (d *distant) newest(ctx context.Context, r *toolRepo, p params) (string, error) {
	p.repo, p.home = r.repo, r.home
	_, printed, err := withKeys(r.tool.command(r.tool.list(p), p, d.backups)).measure(ctx)
	if err != nil {
		return "", err
	}
	return r.tool.parseID(printed)
}

// whole measures a command about the whole repository.
func (d *distant) whole(ctx context.Context, kind step, args func(*tool) []string) error {
	return d.eachRepo(func(r *toolRepo) error {
		s, err := d.ask(ctx, r, args(r.tool), params{}, d.conf.dir)
		if err != nil {
			return err
		}
		d.add(r, kind, s)
		return nil
	})
}

// markdown returns a table of medians, and one of the requests by kind.
func (r *distantReport) markdown(names []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "    %s\n\nA round trip takes %s; load %s when the run began.\n\n", r.Command, r.RoundTrip, r.Machine.Load)
	for _, name := range names {
		fmt.Fprintf(&b, "%s: %s\n", name, r.Versions[name])
	}
	fmt.Fprintf(&b, "\n| |%s\n|---|%s\n",
		strings.Join(mapped(names, func(n string) string { return " " + n + ": wall, s | CPU, s | requests | MB |" }), ""),
		strings.Repeat("--:|--:|--:|--:|", len(names)))
	for _, kind := range distantSteps {
		fmt.Fprintf(&b, "| %s |", kind)
		for _, name := range names {
			r.cells(&b, name, kind)
		}
		b.WriteString("\n")
	}
	b.WriteString("\nRequests by kind, in the median sample:\n\n")
	for _, kind := range distantSteps {
		for _, name := range names {
			fmt.Fprintf(&b, "- %s, %s: %s\n", kind, name, profile(r.Samples[name][kind]))
		}
	}
	return b.String()
}

// cells writes the medians of a step, and in brackets their ratios to those of restic.
func (r *distantReport) cells(b *strings.Builder, name string, kind step) {
	for _, f := range []struct {
		prec int
		of   func(distantSample) float64
	}{
		{2, func(s distantSample) float64 { return s.Wall.Seconds() }},
		{2, func(s distantSample) float64 { return s.CPU.Seconds() }},
		{0, func(s distantSample) float64 { return float64(s.total().Requests) }},
		{2, func(s distantSample) float64 { return float64(s.total().Bytes) / 1e6 }},
	} {
		value, base := median(mapped(r.Samples[name][kind], f.of)), 0.0
		if list := r.Samples[ratioTo][kind]; name != ratioTo && len(list) > 0 {
			base = median(mapped(list, f.of))
		}
		fmt.Fprintf(b, " %.*f", f.prec, value)
		if base > 0 {
			fmt.Fprintf(b, " (%.2f)", value/base)
		}
		b.WriteString(" |")
	}
}

// profile returns the requests of the sample with the median number of requests, most first.
func profile(list []distantSample) string {
	if len(list) == 0 {
		return ""
	}
	list = slices.SortedFunc(slices.Values(list), func(a, b distantSample) int { return a.total().Requests - b.total().Requests })
	kinds := list[len(list)/2].Kinds
	names := slices.SortedFunc(maps.Keys(kinds), func(a, b string) int {
		if d := kinds[b].Requests - kinds[a].Requests; d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	return strings.Join(mapped(names, func(n string) string { return fmt.Sprintf("%d %s", kinds[n].Requests, n) }), ", ")
}
