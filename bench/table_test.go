package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		in   []float64
		want float64
	}{
		{nil, 0}, {[]float64{3}, 3}, {[]float64{5, 1}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 3, 2}, 2.5},
	} {
		before := append([]float64(nil), tt.in...)
		if got := median(tt.in); got != tt.want {
			t.Errorf("%v: %v, want %v", tt.in, got, tt.want)
		}
		for i := range before {
			if before[i] != tt.in[i] {
				t.Errorf("%v was reordered", before)
			}
		}
	}
}

func TestSamplePlus(t *testing.T) {
	got := sample{1, 2, 30}.plus(sample{10, 20, 3})
	if got != (sample{11, 22, 30}) {
		t.Errorf("%+v", got)
	}
}

// exampleReport returns a report whose expected table is in the tests.
func exampleReport() *report {
	s := func(seconds ...float64) []sample {
		var out []sample
		for _, v := range seconds {
			out = append(out, sample{time.Duration(v * 1e9), time.Duration(v * 2e9), int64(v * 100e6)})
		}
		return out
	}
	return &report{
		Command: "go run ./bench -floor", Date: "2026-01-02", Go: "go1.26", Repeat: 3,
		Machine: machine{"Linux 6 x86_64", "some CPU", 2, 8_000_000_000, "0.1 0.2 0.3"},
		Series:  seriesReport{"small", 2, 4, []uint64{1}, "none", false, [][]int64{{100e6, 110e6, 120e6, 130e6}}, [][]int{{10, 11, 12, 13}}, 0},
		Missing: []string{"kopia"},
		Floor:   [][]floorSize{{{20e6, 16e6}, {1e6, 1e6}, {1e6, 1e6}, {1e6, 1e6}}},
		Tools: []toolReport{
			{
				Name: "snap", Version: "snap 1", Settings: "defaults", Restored: 9,
				Sizes: [][]int64{{25e6, 24e6, 26e6}, {26e6}, {27e6}, {29e6, 28e6, 30e6}},
				Samples: map[step][]sample{
					stepFirst: s(2, 1, 3), stepNext: s(0.5, 0.25), stepRestore(3): s(0.6), stepCheck: s(1), stepSHA256: s(0.9), stepB3: s(0.4),
				},
				Commands: map[string]string{"import": "snap import UDID", "check": "snap check"},
			},
			{
				Name: "restic", Version: "restic 2", Settings: "defaults", Restored: 8, Wrong: []string{"day 1: f has other bytes"},
				Sizes:   [][]int64{{50e6, 50e6, 50e6}, {60e6}, {70e6}, {80e6, 80e6, 80e6}},
				Samples: map[step][]sample{stepFirst: s(4, 4, 5), stepNext: s(1.5), stepRestore(3): s(1.2)},
			},
			{Name: referenceName, Samples: map[step][]sample{stepCopy: s(0.3)}},
		},
	}
}

func TestMarkdown(t *testing.T) {
	var b bytes.Buffer
	if err := exampleReport().writeMarkdown(&b); err != nil {
		t.Fatal(err)
	}
	got := b.String()
	for _, line := range []string{
		"    go run ./bench -floor",
		"2 small backups over 4 days, encryption none, live databases, seed 1: 100.0 MB in 10 files on day 0, 130.0 MB in 13 on day 3.",
		"Linux 6 x86_64, some CPU, 2 cores, 8.0 GB of memory, load 0.1 0.2 0.3 when the run began; go1.26; 2026-01-02.",
		"| | snap | restic | reference |",
		"|---|--:|--:|--:|",
		"| repository after day 0, MB | 25.00 (0.50; 0.48–0.52) | 50.00 | 20.00 (0.40) |",
		"| repository after day 3, MB | 29.00 (0.36; 0.35–0.38) | 80.00 | 23.00 (0.29) |",
		"| growth between, MB | 4.00 (0.13) | 30.00 | 3.00 (0.10) |",
		"| after day 3, against the floor, file by file | 1.26x (1.22–1.30) | 3.48x |  |",
		"| after day 3, against the floor, small files together | 1.53x (1.47–1.58) | 4.21x |  |",
		"| first import, s | 2.00 (0.50; 0.25–0.60) | 4.00 |  |",
		"| first import, CPU s | 4.00 (0.50; 0.25–0.60) | 8.00 |  |",
		"| first import, peak MB | 200 (0.50; 0.25–0.60) | 400 |  |",
		"| next day, s | 0.38 (0.25) | 1.50 |  |",
		"| restore of day 3, s | 0.60 (0.50) | 1.20 |  |",
		"| cp -r, s |  |  | 0.30 |",
		"| time to restore day 3, against cp -r | 2.00x | 4.00x |  |",
		"| check of all data, s | 1.00 |  |  |",
		"| speed of the check, against the slower checksum program | 0.90x |  |  |",
		"Not installed here: kopia.",
		"- snap: snap 1; defaults; all 9 restores identical. `snap import UDID` `snap check`",
		"- restic: restic 2; defaults; WRONG: 1 of 9 restores differ, such as day 1: f has other bytes.",
	} {
		if !strings.Contains("\n"+got, "\n"+line+"\n") {
			t.Errorf("no line %q", line)
		}
	}
	if strings.Contains(got, "unchanged") || strings.Contains(got, "restore of day 1,") || strings.Contains(got, "NaN") || strings.Contains(got, "Inf") {
		t.Error("steps without samples are in the table")
	}
	if t.Failed() {
		t.Log(got)
	}
}

// A report of one tool and one day has a complete table.
func TestMarkdownOfLittle(t *testing.T) {
	r := exampleReport()
	r.Floor, r.Series.Days = nil, 1
	r.Tools = []toolReport{{Name: "snap", Sizes: [][]int64{{25e6}}, Samples: map[step][]sample{stepFirst: {{1e9, 1e9, 1e6}}}}, {Name: referenceName}}
	var b bytes.Buffer
	if err := r.writeMarkdown(&b); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"| | snap |", "|---|--:|", "| repository after day 0, MB | 25.00 |", "| first import, s | 1.00 |"} {
		if !strings.Contains("\n"+b.String(), "\n"+line+"\n") {
			t.Errorf("no line %q in\n%s", line, b.String())
		}
	}
}

// Two reports of different seeds make one table with twice the samples.
func TestSeedsInOneTable(t *testing.T) {
	a, b := exampleReport(), exampleReport()
	b.Series.Seeds = []uint64{7}
	for kind, samples := range b.Tools[0].Samples {
		b.Tools[0].Samples[kind] = mapped(samples, func(s sample) sample { return s.plus(s) })
	}
	a.add(b)
	var md bytes.Buffer
	if err := a.writeMarkdown(&md); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		"live databases, seeds 1, 7: 100.0 MB",
		"13 on day 3 (seed 1).",
		"| first import, s | 2.50 (0.55; 0.25–1.20) | 4.00 |",
		"| repository after day 0, MB | 25.00 (0.50; 0.48–0.52) | 50.00 | 20.00 (0.40) |",
		"Medians of 6 repositories per program",
		"all 18 restores identical",
		"WRONG: 2 of 18 restores differ",
	} {
		if !strings.Contains(md.String(), text) {
			t.Errorf("no %q in\n%s", text, &md)
		}
	}
}

func TestRatios(t *testing.T) {
	for _, tt := range []struct{ values, bases, want []float64 }{
		{nil, nil, nil},
		{[]float64{1}, nil, nil},
		{[]float64{1}, []float64{0}, nil},
		{[]float64{1, 2}, []float64{0, 4}, nil},
		{[]float64{1, 6}, []float64{2, 4}, []float64{0.5, 1.5}},
		{[]float64{1, 6, 8}, []float64{2, 4}, []float64{2}}, // 6 of 3
	} {
		if got := ratios(tt.values, tt.bases); !slices.Equal(got, tt.want) {
			t.Errorf("%v to %v: %v, want %v", tt.values, tt.bases, got, tt.want)
		}
	}
}

// A report that was printed as JSON prints the same table.
func TestFrom(t *testing.T) {
	var printed, table, again bytes.Buffer
	if err := exampleReport().write(&printed, true); err != nil {
		t.Fatal(err)
	}
	if err := exampleReport().write(&table, false); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "report.json")
	if err := os.WriteFile(file, printed.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), []string{"-from", file}, &again, t.Output()); err != nil {
		t.Fatal(err)
	}
	if again.String() != table.String() {
		t.Errorf("printed\n%s\nwant\n%s", &again, &table)
	}
	if err := os.WriteFile(file, []byte(`{"days": 3}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), []string{"-from", file}, &again, t.Output()); err == nil || !strings.Contains(err.Error(), "not a report of bench -json") {
		t.Errorf("another file: %v", err)
	}
}

// Any report that can be read can be printed.
func FuzzParseReport(f *testing.F) {
	var printed bytes.Buffer
	if err := exampleReport().writeJSON(&printed); err != nil {
		f.Fatal(err)
	}
	f.Add(printed.Bytes())
	f.Add([]byte(`{"repeat":1,"series":{"days":1,"seeds":[1],"bytes":[[]],"files":[[]]},"tools":[{"name":"reference"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseReport(b)
		if err != nil {
			return
		}
		if err := r.writeMarkdown(io.Discard); err != nil {
			t.Error(err)
		}
	})
}
