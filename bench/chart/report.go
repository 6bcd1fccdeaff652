package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
)

// report is the part of bench's report that the charts show.
type report struct {
	Series struct {
		Days int `json:"days"`
	} `json:"series"`
	Tools []tool `json:"tools"`
}

type tool struct {
	Name    string              `json:"name"`
	Sizes   [][]int64           `json:"repository_bytes"` // by day, then by repository
	Samples map[string][]sample `json:"samples"`          // by step
}

type sample struct {
	CPU int64 `json:"cpu_ns"`
}

// base is the tool whose CPU times are 1.
const base = "restic"

func readReport(name string) (*report, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	r, err := parseReport(b)
	if err != nil {
		return nil, fmt.Errorf("%s is not a report of bench -json: %w", name, err)
	}
	return r, nil
}

func parseReport(b []byte) (*report, error) {
	r := new(report)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, err
	}
	if r.Series.Days < 1 || r.Series.Days > 10_000 {
		return nil, fmt.Errorf("%d days", r.Series.Days)
	}
	for _, t := range r.Tools {
		if len(t.Sizes) > r.Series.Days {
			return nil, fmt.Errorf("%s has sizes of %d days", t.Name, len(t.Sizes))
		}
	}
	return r, nil
}

// days returns the numbers of all days.
func (r *report) days() []string {
	out := make([]string, r.Series.Days)
	for i := range out {
		out[i] = strconv.Itoa(i)
	}
	return out
}

// sizes returns the median sizes in MB by tool and day.
func (r *report) sizes() (names []string, values [][]float64) {
	for _, t := range r.Tools {
		if len(t.Sizes) < r.Series.Days {
			continue
		}
		var line []float64
		for _, sizes := range t.Sizes {
			var list []float64
			for _, n := range sizes {
				list = append(list, float64(n)/1e6)
			}
			line = append(line, median(list))
		}
		names, values = append(names, t.Name), append(values, line)
	}
	return names, values
}

// ratio is a median, with the smallest and the largest value.
type ratio struct {
	median, low, high float64
	known             bool
}

func (r ratio) String() string {
	switch {
	case !r.known:
		return ""
	case fmt.Sprintf("%.2f", r.low) == fmt.Sprintf("%.2f", r.high):
		return fmt.Sprintf("%.2f", r.median)
	}
	return fmt.Sprintf("%.2f (%.2f–%.2f)", r.median, r.low, r.high)
}

// bar has the ratios of a step, by tool.
type bar struct {
	step   string
	ratios []ratio
}

// ratios returns the CPU times divided by those of restic in the same round.
func (r *report) ratios() (names []string, bars []bar) {
	i := slices.IndexFunc(r.Tools, func(t tool) bool { return t.Name == base })
	if i < 0 {
		return nil, nil
	}
	var others []tool
	for _, t := range r.Tools {
		if t.Name != base && len(t.Sizes) > 0 {
			others, names = append(others, t), append(names, t.Name)
		}
	}
	steps := []string{"first import", "next day", "unchanged import", fmt.Sprintf("restore of day %d", r.Series.Days-1)}
	for _, step := range steps {
		one := bar{step: step}
		for _, t := range others {
			one.ratios = append(one.ratios, ratioOf(t.Samples[step], r.Tools[i].Samples[step]))
		}
		if slices.ContainsFunc(one.ratios, func(r ratio) bool { return r.known }) {
			bars = append(bars, one)
		}
	}
	if len(bars) == 0 {
		return nil, nil
	}
	return names, bars
}

// ratioOf returns the ratios of two lists of samples, which took turns.
func ratioOf(values, bases []sample) ratio {
	if len(values) == 0 || len(values) != len(bases) {
		return ratio{}
	}
	var list []float64
	for i := range values {
		if values[i].CPU <= 0 || bases[i].CPU <= 0 {
			return ratio{}
		}
		list = append(list, float64(values[i].CPU)/float64(bases[i].CPU))
	}
	return ratio{median(list), slices.Min(list), slices.Max(list), true}
}

// median returns the median, 0 without values.
func median(list []float64) float64 {
	if len(list) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(list))
	m := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[m]
	}
	return (sorted[m-1] + sorted[m]) / 2
}
