package main

import (
	"bytes"
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
		Series:  seriesReport{"small", 2, 4, 1, "none", false, []int64{100e6, 110e6, 120e6, 130e6}, []int{10, 11, 12, 13}},
		Missing: []string{"kopia"},
		Floor:   []floorSize{{20e6, 16e6}, {1e6, 1e6}, {1e6, 1e6}, {1e6, 1e6}},
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
				Sizes:   [][]int64{{50e6}, {60e6}, {70e6}, {80e6}},
				Samples: map[step][]sample{stepFirst: s(4), stepNext: s(1.5), stepRestore(3): s(1.2)},
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
		"| repository after day 0, MB | 25.00 (0.50) | 50.00 | 20.00 (0.40) |",
		"| repository after day 3, MB | 29.00 (0.36) | 80.00 | 23.00 (0.29) |",
		"| growth between, MB | 4.00 (0.13) | 30.00 | 3.00 (0.10) |",
		"| after day 3, against the floor, file by file | 1.26x | 3.48x |  |",
		"| after day 3, against the floor, small files together | 1.53x | 4.21x |  |",
		"| first import, s | 2.00 (0.50) | 4.00 |  |",
		"| first import, CPU s | 4.00 (0.50) | 8.00 |  |",
		"| first import, peak MB | 200 (0.50) | 400 |  |",
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
