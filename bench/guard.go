package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/snap-backup/snap/device/simulator/synthetic"
)

// guardFile has the limits of -guard, which -guard-update writes.
//
// CPU times are given in units: the time of a calibration, which is fixed work in this
// process (see calibrate). So limits hold on fast and slow machines, and on busy ones,
// since other programs that slow snap down also slow the calibration down.
type guardFile struct {
	// CPU has the medians of all steps, by name.
	CPU map[step]float64 `json:"cpu"`
	// CPUFactor is the factor by which a median may exceed that in CPU.
	CPUFactor float64 `json:"cpu_factor"`
	// Bytes has the sizes of the repository, by name.
	Bytes map[string]int64 `json:"bytes"`
	// BytesTolerance is the part of a size by which it may differ in either direction.
	BytesTolerance float64 `json:"bytes_tolerance"`
}

const (
	guardDays      = 2
	guardRepeat    = 3
	guardFactor    = 2.0  // noise is far below this
	guardTolerance = 0.01 // sizes differ slightly, since keys and IDs are random
)

// guardSeries is what the guard stores: one small device on two days.
var guardSeries = synthetic.Config{Seed: 1, Devices: 1, Scale: synthetic.Small}

// guard measures the steps of the guard.
type guard struct {
	*bench
	calibrate func() time.Duration
	units     map[step][]float64 // CPU time of each step, in units
	sizes     map[string][]int64
	unit      []time.Duration // all calibrations
}

// runGuard measures a small series and compares it with the limits in a file, or writes
// that file. It returns an error that names all limits that are exceeded.
func runGuard(ctx context.Context, c config, name string, update bool, stdout, log io.Writer) (err error) {
	limits := &guardFile{CPUFactor: guardFactor, BytesTolerance: guardTolerance}
	if !update { // read first: a bad file is found at once
		if limits, err = readGuardFile(name); err != nil {
			return err
		}
	}
	c.series, c.days, c.repeat, c.floor = guardSeries, guardDays, guardRepeat, false
	c.tools = []string{snapName}
	tools, _, err := findTools(ctx, c)
	if err != nil {
		return err
	}
	g := &guard{
		bench:     &bench{conf: c, tools: tools, log: log, flush: func() {}, sync: "sync"},
		calibrate: newCalibration(),
		units:     map[step][]float64{}, sizes: map[string][]int64{},
	}
	if err := g.run(ctx); err != nil {
		return err
	}
	if wrong := g.report.tool(snapName).Wrong; len(wrong) > 0 {
		return fmt.Errorf("%d of %d restores differ, such as %s", len(wrong), guardRepeat, wrong[0])
	}
	if update {
		limits.set(g)
		return limits.write(name)
	}
	return limits.judge(g, stdout)
}

// run measures every step in every repository.
func (g *guard) run(ctx context.Context) (err error) {
	series, err := g.begin(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, series.Close()) }()
	for day := range guardDays {
		if err := g.nextDay(ctx, series); err != nil {
			return err
		}
		kind := stepNext
		if day == 0 {
			kind = stepFirst
		}
		if err := g.step(kind, func(r *toolRepo) error { return g.store(ctx, r, kind, day) }); err != nil {
			return err
		}
		if err := g.addSizes(day); err != nil {
			return err
		}
	}
	if err := g.step(stepUnchanged, func(r *toolRepo) error { return g.store(ctx, r, stepUnchanged, guardDays) }); err != nil {
		return err
	}
	last := guardDays - 1
	return g.step(stepRestore(last), func(r *toolRepo) error { return g.restore(ctx, r, last) })
}

// step runs a step in every repository. It calibrates before and after each, so that
// both see the same noise.
func (g *guard) step(kind step, do func(*toolRepo) error) error {
	return g.eachRepo(func(r *toolRepo) error {
		before := g.calibrate()
		if err := do(r); err != nil {
			return err
		}
		after := g.calibrate()
		g.unit = append(g.unit, before, after)
		samples := g.report.tool(r.tool.name).Samples[kind]
		cpu := samples[len(samples)-1].CPU
		g.units[kind] = append(g.units[kind], 2*float64(cpu)/float64(before+after))
		return nil
	})
}

// addSizes records the sizes of the repositories after a day.
func (g *guard) addSizes(day int) error {
	return g.eachRepo(func(r *toolRepo) error {
		size, err := diskUsage(r.repo)
		if err != nil {
			return err
		}
		g.sizes[sizeAfter(day)] = append(g.sizes[sizeAfter(day)], size)
		return nil
	})
}

func sizeAfter(day int) string { return fmt.Sprintf("repository after day %d", day) }

// set takes over what was measured.
func (f *guardFile) set(g *guard) {
	f.CPU, f.Bytes = map[step]float64{}, map[string]int64{}
	for kind, units := range g.units {
		f.CPU[kind] = math.Round(median(units)*100) / 100
	}
	for name, sizes := range g.sizes {
		f.Bytes[name] = int64(median(sizes))
	}
}

// judge prints what was measured beside the limits. It returns an error if a limit is
// exceeded.
func (f *guardFile) judge(g *guard, w io.Writer) error {
	var wrong []error
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\tmeasured\texpected\tlimit\t")
	for _, kind := range []step{stepFirst, stepNext, stepUnchanged, stepRestore(guardDays - 1)} {
		got, want := median(g.units[kind]), f.CPU[kind]
		limit := want * f.CPUFactor
		fmt.Fprintf(t, "%s, CPU\t%.2f (%s)\t%.2f\t%.2f\t\n", kind, got, rangeOf(g.units[kind]), want, limit)
		if !(got <= limit) {
			wrong = append(wrong, fmt.Errorf("%s takes %.2f units of CPU time, more than %.2f", kind, got, limit))
		}
	}
	for day := range guardDays {
		name := sizeAfter(day)
		got, want := median(g.sizes[name]), float64(f.Bytes[name])
		fmt.Fprintf(t, "%s, bytes\t%.0f\t%.0f\t±%.1f %%\t\n", name, got, want, f.BytesTolerance*100)
		if !(math.Abs(got-want) <= want*f.BytesTolerance) {
			wrong = append(wrong, fmt.Errorf("%s has %.0f bytes, which differs from %.0f by %+.1f %%", name, got, want, (got/want-1)*100))
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "Medians of %d repositories. A unit is the CPU time of a calibration, here %.0f ms.\n",
		guardRepeat, median(mapped(g.unit, func(d time.Duration) float64 { return d.Seconds() * 1000 })))
	if len(wrong) == 0 {
		return nil
	}
	return fmt.Errorf("%w\nIf this is intended, write new limits with -guard-update and say why in the commit", errors.Join(wrong...))
}

func rangeOf(list []float64) string {
	return fmt.Sprintf("%.2f–%.2f", slices.Min(list), slices.Max(list))
}

func readGuardFile(name string) (*guardFile, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	f, err := parseGuardFile(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return f, nil
}

// parseGuardFile parses and checks limits. All of them must be there, so that a
// misspelt name does not switch one off.
func parseGuardFile(b []byte) (*guardFile, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	f := new(guardFile)
	if err := dec.Decode(f); err != nil {
		return nil, err
	}
	for _, kind := range []step{stepFirst, stepNext, stepUnchanged, stepRestore(guardDays - 1)} {
		if f.CPU[kind] <= 0 {
			return nil, fmt.Errorf("no CPU time of %q", kind)
		}
	}
	for day := range guardDays {
		if f.Bytes[sizeAfter(day)] <= 0 {
			return nil, fmt.Errorf("no size of %q", sizeAfter(day))
		}
	}
	if f.CPUFactor < 1 || f.BytesTolerance <= 0 || f.BytesTolerance >= 1 {
		return nil, errors.New("cpu_factor must be at least 1, bytes_tolerance between 0 and 1")
	}
	return f, nil
}

func (f *guardFile) write(name string) error {
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Clean(name), append(b, '\n'), 0o644)
}
