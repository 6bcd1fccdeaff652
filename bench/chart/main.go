// Command chart draws a report of bench -json as SVG: the sizes of the repositories by
// day, and CPU times as ratios to those of restic.
//
//	go -C bench/chart run . size ../results/thirty-days.json ../../docs/img/size.svg
//	go -C bench/chart run . cpu ../results/ratios.json ../../docs/img/cpu.svg
//
// Equal reports make equal files.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/go-analyze/charts"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "chart:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 3 {
		return errors.New("usage: chart size|cpu REPORT FILE.svg")
	}
	r, err := readReport(args[1])
	if err != nil {
		return err
	}
	svg, err := draw(r, args[0])
	if err != nil {
		return err
	}
	return os.WriteFile(args[2], svg, 0o644)
}

const width = 720 // as wide as GitHub shows text

// colors of the tools: the same in all charts, and different to people who do not see red
// and green as different.
var colors = map[string]charts.Color{
	"snap":   {R: 0, G: 114, B: 178, A: 255},
	"restic": {R: 213, G: 94, B: 0, A: 255},
	"borg":   {R: 0, G: 158, B: 115, A: 255},
	"kopia":  {R: 204, G: 121, B: 167, A: 255},
	"rsync":  {R: 120, G: 120, B: 120, A: 255},
}

func theme(tools []string) charts.ColorPalette {
	var list []charts.Color
	for _, name := range tools {
		list = append(list, colors[name])
	}
	return charts.GetTheme(charts.ThemeLight).WithSeriesColors(list)
}

// draw returns a chart as SVG.
func draw(r *report, kind string) ([]byte, error) {
	switch kind {
	case "size":
		return drawSizes(r)
	case "cpu":
		return drawRatios(r)
	}
	return nil, fmt.Errorf("no chart %q: want size or cpu", kind)
}

// drawSizes draws a line for each tool: the size of its repository after each day.
func drawSizes(r *report) ([]byte, error) {
	names, values := r.sizes()
	if len(names) == 0 {
		return nil, errors.New("the report has no sizes")
	}
	opt := charts.NewLineChartOptionWithData(values)
	opt.Theme = theme(names)
	opt.Title.Text = "Size of the repository after each day, MB"
	opt.Title.FontStyle.FontSize = 13
	opt.Legend.SeriesNames = names
	opt.Legend.Offset = charts.OffsetStr{Top: "24", Left: "left"}
	opt.XAxis.Title = "day"
	opt.XAxis.Labels = r.days()
	opt.XAxis.LabelCount = 6
	opt.XAxis.BoundaryGap = charts.Ptr(false)
	opt.YAxis = []charts.YAxisOption{{Min: charts.Ptr(0.0), PreferNiceIntervals: charts.Ptr(true)}}
	opt.ValueFormatter = func(v float64) string { return fmt.Sprintf("%.0f", v) }
	opt.Symbol.Shape = charts.SymbolNone
	opt.LineStrokeWidth = 2
	p := painter(360)
	if err := p.LineChart(opt); err != nil {
		return nil, err
	}
	return p.Bytes()
}

// drawRatios draws a bar for each tool and step: its CPU time divided by that of restic.
func drawRatios(r *report) ([]byte, error) {
	names, bars := r.ratios()
	if len(names) == 0 {
		return nil, errors.New("the report has no CPU times of restic and another program")
	}
	// The library draws from the bottom to the top.
	var labels []string
	values := make([][]float64, len(names))
	for step := len(bars) - 1; step >= 0; step-- {
		labels = append(labels, bars[step].step)
		for i := range names {
			values[i] = append(values[i], bars[step].ratios[i].median)
		}
	}
	opt := charts.NewBarChartOptionWithData(values)
	opt.Horizontal = true
	opt.Theme = theme(names)
	opt.Title.Text = "CPU time, divided by restic's: median (smallest–largest)"
	opt.Title.FontStyle.FontSize = 13
	opt.Legend.SeriesNames = names
	opt.Legend.Offset = charts.OffsetStr{Top: "24", Left: "left"}
	opt.CategoryAxis.Labels = labels
	opt.ValueAxis = []charts.ValueAxisOption{{Min: charts.Ptr(0.0)}}
	opt.ValueFormatter = func(v float64) string { return fmt.Sprintf("%.2f", v) }
	opt.Padding = charts.NewBox(15, 10, 90, 10)
	for i := range opt.SeriesList {
		opt.SeriesList[i].Label.Show = charts.Ptr(true)
		opt.SeriesList[i].Label.LabelFormatter = func(_ int, _ string, v float64) (string, *charts.LabelStyle) {
			return labelOf(bars, i, v), nil
		}
	}
	p := painter(80 + 24*len(bars)*(len(names)+1))
	if err := p.BarChart(opt); err != nil {
		return nil, err
	}
	return p.Bytes()
}

// labelOf returns the label of the bar of a tool with a median. The library says only the
// value of a bar, not which bar it is.
func labelOf(bars []bar, tool int, median float64) string {
	for _, b := range bars {
		if r := b.ratios[tool]; r.known && r.median == median {
			return r.String()
		}
	}
	return ""
}

func painter(height int) *charts.Painter {
	return charts.NewPainter(charts.PainterOptions{OutputFormat: charts.ChartOutputSVG, Width: width, Height: height})
}
