package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
)

// figure is a kind of number that the table shows for a step, such as its CPU time.
type figure struct {
	unit string
	of   func(sample) float64
	prec int
}

// figures are the rows of each step. MB are millions of bytes.
var figures = []figure{
	{"s", func(s sample) float64 { return s.Wall.Seconds() }, 2},
	{"CPU s", func(s sample) float64 { return s.CPU.Seconds() }, 2},
	{"peak MB", func(s sample) float64 { return float64(s.Peak) / 1e6 }, 0},
}

// times are the figures of steps that serve only for comparison, such as cp.
var times = figures[:2]

// row is a line of the table.
type row struct {
	title  string
	values map[string]float64 // by tool; absent if a tool has none
	prec   int
	suffix string
	ratio  bool // print ratios to restic
}

// rows returns all rows of the table.
func (r *report) rows() []row {
	out := r.sizeRows()
	for _, s := range []step{stepFirst, stepNext, stepUnchanged} {
		out = append(out, r.stepRows(s, figures)...)
	}
	last := r.Series.Days - 1
	for day := range r.Series.Days {
		out = append(out, r.stepRows(stepRestore(day), figures)...)
	}
	for _, s := range []step{stepCopy, stepCopySync} {
		out = append(out, r.stepRows(s, times)...)
	}
	out = append(out, r.quotient(fmt.Sprintf("time to restore day %d, against cp -r", last), func(t *toolReport) (float64, float64) {
		return r.wall(t, stepRestore(last)), r.wall(r.tool(referenceName), stepCopy)
	}))
	out = append(out, r.stepRows(stepCheck, figures)...)
	for _, s := range []step{stepSHA256, stepB3} {
		for _, line := range r.stepRows(s, times) {
			line.ratio = false // the repositories differ in size
			out = append(out, line)
		}
	}
	out = append(out, r.quotient("speed of the check, against the slower checksum program", func(t *toolReport) (float64, float64) {
		return max(r.wall(t, stepSHA256), r.wall(t, stepB3)), r.wall(t, stepCheck)
	}))
	return slices.DeleteFunc(out, func(r row) bool { return len(r.values) == 0 })
}

// sizeRows returns the rows of repository sizes.
func (r *report) sizeRows() []row {
	last := r.Series.Days - 1
	size := func(t *toolReport, day int) float64 {
		if day >= len(t.Sizes) {
			return 0
		}
		return median(t.Sizes[day])
	}
	line := func(title string, of func(day func(int) float64) float64) row {
		out := row{title: title + ", MB", values: map[string]float64{}, prec: 2, ratio: true}
		for i := range r.Tools {
			t := &r.Tools[i]
			day := func(d int) float64 { return size(t, d) }
			if t.Name == referenceName {
				day = func(d int) float64 { return float64(r.floorUntil(d).Each) }
			}
			if v := of(day); v > 0 {
				out.values[t.Name] = v / 1e6
			}
		}
		return out
	}
	out := []row{line("repository after day 0", func(day func(int) float64) float64 { return day(0) })}
	if last == 0 {
		return out
	}
	out = append(out,
		line(fmt.Sprintf("repository after day %d", last), func(day func(int) float64) float64 { return day(last) }),
		line("growth between", func(day func(int) float64) float64 { return day(last) - day(0) }))
	low := r.floorUntil(last)
	for _, f := range []struct {
		title string
		of    int64
	}{
		{"the floor, file by file", low.Each},
		{"the floor, small files together", low.Together},
	} {
		out = append(out, r.quotient(fmt.Sprintf("after day %d, against %s", last, f.title), func(t *toolReport) (float64, float64) {
			return size(t, last), float64(f.of)
		}))
	}
	return out
}

// floorUntil returns the total floor from day 0 to a day.
func (r *report) floorUntil(day int) floorSize {
	var sum floorSize
	for _, f := range r.Floor[:min(day+1, len(r.Floor))] {
		sum.Each += f.Each
		sum.Together += f.Together
	}
	return sum
}

// stepRows returns the rows of one step.
func (r *report) stepRows(s step, list []figure) []row {
	var out []row
	for _, f := range list {
		line := row{title: fmt.Sprintf("%s, %s", s, f.unit), values: map[string]float64{}, prec: f.prec, ratio: true}
		for _, t := range r.Tools {
			if samples := t.Samples[s]; len(samples) > 0 {
				line.values[t.Name] = median(mapped(samples, f.of))
			}
		}
		out = append(out, line)
	}
	return out
}

// quotient returns a row of ratios, for the tools for which both values are known.
func (r *report) quotient(title string, of func(*toolReport) (value, base float64)) row {
	line := row{title: title, values: map[string]float64{}, prec: 2, suffix: "x"}
	for i := range r.Tools {
		if t := &r.Tools[i]; t.Name != referenceName {
			if value, base := of(t); value > 0 && base > 0 {
				line.values[t.Name] = value / base
			}
		}
	}
	return line
}

// wall returns the median wall time of a step in seconds, 0 without samples.
func (r *report) wall(t *toolReport, s step) float64 {
	return median(mapped(t.Samples[s], figures[0].of))
}

func mapped[T, U any](list []T, f func(T) U) []U {
	out := make([]U, len(list))
	for i, v := range list {
		out[i] = f(v)
	}
	return out
}

// median returns the median, 0 without values.
func median[T int64 | float64](list []T) float64 {
	if len(list) == 0 {
		return 0
	}
	sorted := slices.SortedFunc(slices.Values(list), cmp.Compare[T])
	m := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return float64(sorted[m])
	}
	return (float64(sorted[m-1]) + float64(sorted[m])) / 2
}

// ratioTo is the tool that the others are compared with.
const ratioTo = "restic"

// writeMarkdown prints the conditions and the table.
func (r *report) writeMarkdown(w io.Writer) error {
	var b strings.Builder
	r.conditions(&b)
	names := mapped(r.Tools, func(t toolReport) string { return t.Name })
	rows := r.rows()
	if !slices.ContainsFunc(rows, func(l row) bool { _, ok := l.values[referenceName]; return ok }) {
		names = names[:len(names)-1]
	}
	fmt.Fprintf(&b, "| | %s |\n|---|%s\n", strings.Join(names, " | "), strings.Repeat("--:|", len(names)))
	for _, l := range rows {
		fmt.Fprintf(&b, "| %s | %s |\n", l.title, strings.Join(mapped(names, l.cell), " | "))
	}
	b.WriteString("\n")
	r.notes(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

// cell returns a value, with its ratio to restic's value in brackets.
func (l row) cell(name string) string {
	v, ok := l.values[name]
	if !ok {
		return ""
	}
	text := fmt.Sprintf("%.*f%s", l.prec, v, l.suffix)
	if base := l.values[ratioTo]; l.ratio && base > 0 && name != ratioTo {
		text += fmt.Sprintf(" (%.2f)", v/base)
	}
	return text
}

// conditions prints what was measured and where.
func (r *report) conditions(w io.Writer) {
	s, m := r.Series, r.Machine
	fmt.Fprintf(w, "    %s\n\n", r.Command)
	databases := "live databases"
	if s.Compact {
		databases = "databases as compacted copies"
	}
	fmt.Fprintf(w, "%d %s backups over %d days, encryption %s, %s, seed %d: ", s.Devices, s.Scale, s.Days, s.Encrypt, databases, s.Seed)
	if n := len(s.Bytes); n > 0 {
		fmt.Fprintf(w, "%.1f MB in %d files on day 0, %.1f MB in %d on day %d", float64(s.Bytes[0])/1e6, s.Files[0], float64(s.Bytes[n-1])/1e6, s.Files[n-1], n-1)
	}
	fmt.Fprintf(w, ".\n%s, %s, %d cores, %.1f GB of memory, load %s when the run began; %s; %s.\n\n", m.System, m.CPU, m.Cores, float64(m.Memory)/1e9, m.Load, r.Go, r.Date)
}

// notes prints how to read the table and which programs were measured.
func (r *report) notes(w io.Writer) {
	fmt.Fprintf(w, "Medians of %d repositories per program (next day: of all days in all of them). In brackets: the ratio to %s's figure. MB are millions of bytes. A step runs one command per device; times are sums, peaks the largest. Files are in the page cache. Peaks of 8 MB or less are those of the measuring process.\n", r.Repeat, ratioTo)
	if len(r.Floor) > 0 {
		fmt.Fprintln(w, "The floor: each new content once; a changed file as xdelta3 -9 -S lzma against the day before, a new one as xz -9, or uncompressed if that is less; without names, metadata and encryption.")
		if r.Series.Encrypt != encryptions[0] {
			fmt.Fprintln(w, "It was computed for the same series without encryption by the devices.")
		}
	}
	if len(r.Missing) > 0 {
		fmt.Fprintf(w, "Not installed here: %s.\n", strings.Join(r.Missing, ", "))
	}
	fmt.Fprintln(w)
	for _, t := range r.Tools {
		if t.Name == referenceName {
			continue
		}
		verdict := fmt.Sprintf("all %d restores identical", t.Restored)
		if len(t.Wrong) > 0 {
			verdict = fmt.Sprintf("WRONG: %d of %d restores differ, such as %s", len(t.Wrong), len(t.Wrong)+t.Restored, t.Wrong[0])
		}
		fmt.Fprintf(w, "- %s: %s; %s; %s.", t.Name, t.Version, t.Settings, verdict)
		for _, name := range []string{"create", "import", "restore", "check"} {
			if line := t.Commands[name]; line != "" {
				fmt.Fprintf(w, " `%s`", line)
			}
		}
		fmt.Fprintln(w)
	}
}
