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
	values map[string][]float64 // by tool, one for each sample; absent if a tool has none
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
	out = append(out, r.stepRows(stepList, figures)...)
	last := r.Series.Days - 1
	for day := range r.Series.Days {
		out = append(out, r.stepRows(stepRestore(day), figures)...)
	}
	for _, s := range []step{stepCopy, stepCopySync} {
		out = append(out, r.stepRows(s, times)...)
	}
	out = append(out, r.quotient(fmt.Sprintf("time to restore day %d, against cp -r", last), func(t *toolReport) ([]float64, []float64) {
		return wall(t, stepRestore(last)), wall(r.tool(referenceName), stepCopy)
	}))
	out = append(out, r.stepRows(stepCheck, figures)...)
	for _, s := range []step{stepSHA256, stepB3} {
		for _, line := range r.stepRows(s, times) {
			line.ratio = false // the repositories differ in size
			out = append(out, line)
		}
	}
	out = append(out, r.quotient("speed of the check, against the slower checksum program", func(t *toolReport) ([]float64, []float64) {
		return larger(wall(t, stepSHA256), wall(t, stepB3)), wall(t, stepCheck)
	}))
	return slices.DeleteFunc(out, func(r row) bool { return len(r.values) == 0 })
}

// sizeRows returns the rows of repository sizes.
func (r *report) sizeRows() []row {
	last := r.Series.Days - 1
	line := func(title string, of func(*toolReport) []float64) row {
		out := row{title: title + ", MB", values: map[string][]float64{}, prec: 2, ratio: true}
		for i := range r.Tools {
			if v := of(&r.Tools[i]); median(v) > 0 {
				out.values[r.Tools[i].Name] = mapped(v, func(bytes float64) float64 { return bytes / 1e6 })
			}
		}
		return out
	}
	after := func(day int) func(*toolReport) []float64 {
		return func(t *toolReport) []float64 { return r.sizes(t, day) }
	}
	out := []row{line("repository after day 0", after(0))}
	if last == 0 {
		return out
	}
	out = append(out,
		line(fmt.Sprintf("repository after day %d", last), after(last)),
		line("growth between", func(t *toolReport) []float64 {
			return combined(r.sizes(t, last), r.sizes(t, 0), func(a, b float64) float64 { return a - b })
		}))
	for _, f := range []struct {
		title string
		of    func(floorSize) int64
	}{
		{"the floor, file by file", func(f floorSize) int64 { return f.Each }},
		{"the floor, small files together", func(f floorSize) int64 { return f.Together }},
	} {
		out = append(out, r.quotient(fmt.Sprintf("after day %d, against %s", last, f.title), func(t *toolReport) ([]float64, []float64) {
			return r.sizes(t, last), r.floors(last, f.of)
		}))
	}
	return out
}

// sizes returns the sizes of a tool's repositories after a day, by seed and repetition.
// Those of the reference are the floors.
func (r *report) sizes(t *toolReport, day int) []float64 {
	switch {
	case t.Name == referenceName:
		return r.floors(day, func(f floorSize) int64 { return f.Each })
	case day >= len(t.Sizes):
		return nil
	}
	return mapped(t.Sizes[day], func(n int64) float64 { return float64(n) })
}

// floors returns the total floor from day 0 to a day, by seed and repetition. The
// repetitions of a seed have the same floor.
func (r *report) floors(day int, of func(floorSize) int64) []float64 {
	var out []float64
	for _, days := range r.Floor {
		var sum float64
		for _, f := range days[:min(day+1, len(days))] {
			sum += float64(of(f))
		}
		for range r.Repeat {
			out = append(out, sum)
		}
	}
	return out
}

// stepRows returns the rows of one step.
func (r *report) stepRows(s step, list []figure) []row {
	var out []row
	for _, f := range list {
		line := row{title: fmt.Sprintf("%s, %s", s, f.unit), values: map[string][]float64{}, prec: f.prec, ratio: true}
		for _, t := range r.Tools {
			if samples := t.Samples[s]; len(samples) > 0 {
				line.values[t.Name] = mapped(samples, f.of)
			}
		}
		out = append(out, line)
	}
	return out
}

// quotient returns a row of ratios, for the tools for which both values are known.
func (r *report) quotient(title string, of func(*toolReport) (values, bases []float64)) row {
	line := row{title: title, values: map[string][]float64{}, prec: 2, suffix: "x"}
	for i := range r.Tools {
		if t := &r.Tools[i]; t.Name != referenceName {
			if ratios := ratios(of(t)); len(ratios) > 0 {
				line.values[t.Name] = ratios
			}
		}
	}
	return line
}

// ratios returns the ratio of each value to the base that was measured in the same
// round. If there are more values than bases or fewer, it returns the ratio of the
// medians. It returns nothing if a base is missing or 0.
func ratios(values, bases []float64) []float64 {
	if median(values) <= 0 || median(bases) <= 0 || slices.Min(bases) <= 0 {
		return nil
	}
	return combined(values, bases, func(v, base float64) float64 { return v / base })
}

// combined calls f for each pair of values, or once for the medians if the lists differ
// in length.
func combined(a, b []float64, f func(a, b float64) float64) []float64 {
	if len(a) == 0 || len(b) == 0 {
		return nil
	}
	if len(a) != len(b) {
		return []float64{f(median(a), median(b))}
	}
	out := make([]float64, len(a))
	for i := range a {
		out[i] = f(a[i], b[i])
	}
	return out
}

// larger returns the larger value of each pair, or one list if the other is empty.
func larger(a, b []float64) []float64 {
	if len(a) == 0 || len(b) == 0 {
		return append(a, b...)
	}
	return combined(a, b, func(a, b float64) float64 { return max(a, b) })
}

// wall returns the wall times of a step in seconds.
func wall(t *toolReport, s step) []float64 {
	return mapped(t.Samples[s], figures[0].of)
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

// cell returns the median of a tool's values, and in brackets its ratios to restic's
// values: their median, and the smallest and the largest. If the values are ratios
// themselves, it returns their smallest and largest in brackets.
func (l row) cell(name string) string {
	values := l.values[name]
	if len(values) == 0 {
		return ""
	}
	text := fmt.Sprintf("%.*f%s", l.prec, median(values), l.suffix)
	switch {
	case l.ratio && name != ratioTo:
		if list := ratios(values, l.values[ratioTo]); len(list) > 0 {
			text += fmt.Sprintf(" (%.2f%s)", median(list), spread(list, "; "))
		}
	case l.suffix != "":
		if s := spread(values, ""); s != "" {
			text += " (" + s + ")"
		}
	}
	return text
}

// spread returns the smallest and the largest ratio after a prefix. It returns "" if
// both look like the median.
func spread(list []float64, prefix string) string {
	low, high := fmt.Sprintf("%.2f", slices.Min(list)), fmt.Sprintf("%.2f", slices.Max(list))
	if low == high {
		return ""
	}
	return prefix + low + "–" + high
}

// conditions prints what was measured and where.
func (r *report) conditions(w io.Writer) {
	s, m := r.Series, r.Machine
	fmt.Fprintf(w, "    %s\n\n", r.Command)
	databases := "live databases"
	if s.Compact {
		databases = "databases as compacted copies"
	}
	fmt.Fprintf(w, "%d %s backups over %d days, encryption %s, %s, %s: ", s.Devices, s.Scale, s.Days, s.Encrypt, databases, s.seeds())
	if n := len(s.Bytes[0]); n > 0 {
		fmt.Fprintf(w, "%.1f MB in %d files on day 0, %.1f MB in %d on day %d", float64(s.Bytes[0][0])/1e6, s.Files[0][0], float64(s.Bytes[0][n-1])/1e6, s.Files[0][n-1], n-1)
		if len(s.Seeds) > 1 {
			fmt.Fprintf(w, " (seed %d)", s.Seeds[0])
		}
	}
	fmt.Fprintf(w, ".\n%s, %s, %d cores, %.1f GB of memory, load %s when the run began; %s; %s.\n\n", m.System, m.CPU, m.Cores, float64(m.Memory)/1e9, m.Load, r.Go, r.Date)
}

// seeds returns the seeds in words.
func (s *seriesReport) seeds() string {
	list := strings.Join(mapped(s.Seeds, func(n uint64) string { return fmt.Sprint(n) }), ", ")
	if len(s.Seeds) == 1 {
		return "seed " + list
	}
	return "seeds " + list
}

// notes prints how to read the table and which programs were measured.
func (r *report) notes(w io.Writer) {
	fmt.Fprintf(w, "Medians of %d repositories per program (next day: of all days in all of them). In brackets: the ratio to %s's figure of the same round; the median, and if there are several, the smallest and the largest. MB are millions of bytes. A step runs one command per device; times are sums, peaks the largest. Files are in the page cache. Peaks of 8 MB or less are those of the measuring process.\n", r.Repeat*len(r.Series.Seeds), ratioTo)
	if s := r.Series.History; s > 0 {
		fmt.Fprintf(w, "After day 0, each repository got %d more snapshots of the same content, which were not measured.\n", s)
	}
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
