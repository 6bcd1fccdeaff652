package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"slices"
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
	Floor   []floorSize  `json:"floor,omitempty"` // by day
}

type seriesReport struct {
	Scale   string  `json:"scale"`
	Devices int     `json:"devices"`
	Days    int     `json:"days"`
	Seed    uint64  `json:"seed"`
	Encrypt string  `json:"encrypt"`
	Compact bool    `json:"compacted_databases"`
	Bytes   []int64 `json:"bytes"` // of all folders, by day
	Files   []int   `json:"files"`
}

type toolReport struct {
	Name     string            `json:"name"`
	Version  string            `json:"version,omitempty"`
	Settings string            `json:"settings,omitempty"`
	Commands map[string]string `json:"commands,omitempty"`
	Sizes    [][]int64         `json:"repository_bytes,omitempty"` // by day, then by repetition
	Samples  map[step][]sample `json:"samples"`
	Restored int               `json:"identical_restores"`
	Wrong    []string          `json:"wrong_restores,omitempty"`
}

func newReport(ctx context.Context, c config, tools []*tool) *report {
	r := &report{
		Date: c.date, Go: runtime.Version(), Machine: thisMachine(ctx), Repeat: c.repeat,
		Series: seriesReport{
			Scale: c.series.Scale.String(), Devices: c.series.Devices, Days: c.days, Seed: c.series.Seed,
			Encrypt: encryptions[c.series.Encryption], Compact: c.series.CompactDBs,
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
	r.Series.Bytes, r.Series.Files = append(r.Series.Bytes, bytes), append(r.Series.Files, files)
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

func (r *report) writeJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(r)
}
