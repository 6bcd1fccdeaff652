package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
)

const (
	maxDays   = 10_000 // of a series
	maxRepeat = 1000

	maxHistory = 1_000_000 // snapshots
)

// referenceName is the name of the column with the floor and cp.
const referenceName = "reference"

// report is the result of a run, in the form that -json prints.
type report struct {
	Command string       `json:"command"`
	Date    string       `json:"date"`
	Go      string       `json:"go"`
	Machine machine      `json:"machine"`
	Series  seriesReport `json:"series"`
	Repeat  int          `json:"repeat"`
	Tools   []toolReport `json:"tools"` // the last is the reference
	Missing []string     `json:"not_installed,omitempty"`
	// Floor is by seed, then by day.
	Floor [][]floorSize `json:"floor,omitempty"`
}

type seriesReport struct {
	Scale   string    `json:"scale"`
	Devices int       `json:"devices"`
	Days    int       `json:"days"`
	Seeds   []uint64  `json:"seeds"`
	Encrypt string    `json:"encrypt"`
	Compact bool      `json:"compacted_databases"`
	Bytes   [][]int64 `json:"bytes"` // of all folders, by seed, then by day
	Files   [][]int   `json:"files"`
	History int       `json:"more_snapshots,omitempty"` // added after day 0
}

type toolReport struct {
	Name     string            `json:"name"`
	Version  string            `json:"version,omitempty"`
	Settings string            `json:"settings,omitempty"`
	Commands map[string]string `json:"commands,omitempty"`
	// Sizes is by day, then by seed and repetition.
	Sizes [][]int64 `json:"repository_bytes,omitempty"`
	// Samples of one step are in the order in which they were measured, so those with
	// the same index come from the same round.
	Samples  map[step][]sample `json:"samples"`
	Restored int               `json:"identical_restores"`
	Wrong    []string          `json:"wrong_restores,omitempty"`
}

func newReport(ctx context.Context, c config, tools []*tool) *report {
	r := &report{
		Date: c.date, Go: runtime.Version(), Machine: thisMachine(ctx), Repeat: c.repeat,
		Series: seriesReport{
			Scale: c.series.Scale.String(), Devices: c.series.Devices, Days: c.days, Seeds: []uint64{c.series.Seed},
			Encrypt: encryptions[c.series.Encryption], Compact: c.series.CompactDBs,
			Bytes: [][]int64{nil}, Files: [][]int{nil}, History: c.history,
		},
	}
	for _, t := range tools {
		r.Tools = append(r.Tools, toolReport{
			Name: t.name, Version: t.versionText, Settings: t.about, Commands: t.describe(), Samples: map[step][]sample{},
		})
	}
	r.Tools = append(r.Tools, toolReport{Name: referenceName, Samples: map[step][]sample{}})
	return r
}

func (r *report) tool(name string) *toolReport {
	i := slices.IndexFunc(r.Tools, func(t toolReport) bool { return t.Name == name })
	if i < 0 {
		return nil
	}
	return &r.Tools[i]
}

func (r *report) addDay(now contents) {
	bytes, files := now.bytes()
	last := len(r.Series.Seeds) - 1
	r.Series.Bytes[last], r.Series.Files[last] = append(r.Series.Bytes[last], bytes), append(r.Series.Files[last], files)
}

// addFloor records the floor of a day.
func (r *report) addFloor(size floorSize) {
	if len(r.Floor) < len(r.Series.Seeds) {
		r.Floor = append(r.Floor, nil)
	}
	last := len(r.Floor) - 1
	r.Floor[last] = append(r.Floor[last], size)
}

// add adds the report of another seed. Both must have the same tools in the same order.
func (r *report) add(other *report) {
	s, o := &r.Series, &other.Series
	s.Seeds = append(s.Seeds, o.Seeds...)
	s.Bytes, s.Files = append(s.Bytes, o.Bytes...), append(s.Files, o.Files...)
	r.Floor = append(r.Floor, other.Floor...)
	for i := range r.Tools {
		t, from := &r.Tools[i], &other.Tools[i]
		for day, sizes := range from.Sizes {
			t.Sizes[day] = append(t.Sizes[day], sizes...)
		}
		for kind, samples := range from.Samples {
			t.Samples[kind] = append(t.Samples[kind], samples...)
		}
		t.Restored += from.Restored
		t.Wrong = append(t.Wrong, from.Wrong...)
	}
}

func (r *report) addSize(t *tool, day int, size int64) {
	tr := r.tool(t.name)
	for len(tr.Sizes) <= day {
		tr.Sizes = append(tr.Sizes, nil)
	}
	tr.Sizes[day] = append(tr.Sizes[day], size)
}

func (r *report) addSample(tool string, kind step, s sample) {
	t := r.tool(tool)
	t.Samples[kind] = append(t.Samples[kind], s)
}

// addVerdict records whether a restore was identical.
func (r *report) addVerdict(tool string, day int, err error) {
	t := r.tool(tool)
	if err != nil {
		t.Wrong = append(t.Wrong, fmt.Sprintf("day %d: %v", day, err))
		return
	}
	t.Restored++
}

// write prints the report as JSON or as a table.
func (r *report) write(w io.Writer, asJSON bool) error {
	if asJSON {
		return r.writeJSON(w)
	}
	return r.writeMarkdown(w)
}

// readReport reads a report that writeJSON has written.
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
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	r := new(report)
	if err := dec.Decode(r); err != nil {
		return nil, err
	}
	n := len(r.Series.Seeds)
	switch {
	case n == 0 || r.Series.Days < 1 || r.Series.Days > maxDays:
		return nil, errors.New("no seeds or days")
	case r.Repeat < 1 || r.Repeat > maxRepeat:
		return nil, errors.New("no repetitions")
	case len(r.Series.Bytes) != n || len(r.Series.Files) != n:
		return nil, errors.New("sizes are not those of the seeds")
	case len(r.Floor) > 0 && len(r.Floor) != n:
		return nil, errors.New("floors are not those of the seeds")
	case len(r.Tools) == 0 || r.Tools[len(r.Tools)-1].Name != referenceName:
		return nil, errors.New("the last tool is not the reference")
	}
	for i := range n {
		if len(r.Series.Bytes[i]) != len(r.Series.Files[i]) {
			return nil, errors.New("a day lacks a size or a number of files")
		}
	}
	return r, nil
}

func (r *report) writeJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(r)
}
