package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// exampleLimits returns limits that exampleGuard keeps.
func exampleLimits() *guardFile {
	return &guardFile{
		CPU:       map[step]float64{stepFirst: 4, stepNext: 3, stepUnchanged: 2, stepRestore(1): 3},
		CPUFactor: 2, Bytes: map[string]int64{sizeAfter(0): 1000, sizeAfter(1): 2000}, BytesTolerance: 0.01,
	}
}

func exampleGuard() *guard {
	return &guard{
		units: map[step][]float64{stepFirst: {4, 5, 90}, stepNext: {3, 3, 3}, stepUnchanged: {2, 2, 2}, stepRestore(1): {6, 6, 6}},
		sizes: map[string][]int64{sizeAfter(0): {1010, 1010, 1500}, sizeAfter(1): {1980}},
		unit:  []time.Duration{100 * time.Millisecond, 200 * time.Millisecond},
	}
}

func TestGuardJudges(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*guard)
		want   string // text of the error; empty if there is no error
	}{
		{"one slow sample of three, and all at their limits", func(*guard) {}, ""},
		{"slow", func(g *guard) { g.units[stepNext] = []float64{6, 6.1, 7} }, "next day takes 6.10 units of CPU time, more than 6.00"},
		{"larger", func(g *guard) { g.sizes[sizeAfter(0)] = []int64{1011} }, "after day 0 has 1011 bytes, which differs from 1000 by +1.1 %"},
		{"smaller", func(g *guard) { g.sizes[sizeAfter(1)] = []int64{1900} }, "after day 1 has 1900 bytes, which differs from 2000 by -5.0 %"},
	} {
		g := exampleGuard()
		tt.change(g)
		var out bytes.Buffer
		err := exampleLimits().judge(g, &out)
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "-guard-update")):
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
		if !strings.Contains(out.String(), "first import, CPU  5.00 (4.00–90.00)") || !strings.Contains(out.String(), "here 150 ms") {
			t.Errorf("%s: printed\n%s", tt.name, &out)
		}
	}
}

// What an update writes are limits that the same figures keep.
func TestGuardUpdate(t *testing.T) {
	name := filepath.Join(t.TempDir(), "guard.json")
	limits := &guardFile{CPUFactor: guardFactor, BytesTolerance: guardTolerance}
	limits.set(exampleGuard())
	if err := limits.write(name); err != nil {
		t.Fatal(err)
	}
	read, err := readGuardFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if read.CPU[stepFirst] != 5 || read.Bytes[sizeAfter(1)] != 1980 {
		t.Errorf("%+v", read)
	}
	if err := read.judge(exampleGuard(), t.Output()); err != nil {
		t.Error(err)
	}
}

func TestGuardFile(t *testing.T) {
	if _, err := readGuardFile("guard.json"); err != nil {
		t.Error(err)
	}
	for _, tt := range []struct {
		change func(*guardFile)
		want   string
	}{
		{func(f *guardFile) { delete(f.CPU, stepNext) }, `no CPU time of "next day"`},
		{func(f *guardFile) { delete(f.Bytes, sizeAfter(1)) }, `no size of "repository after day 1"`},
		{func(f *guardFile) { f.CPUFactor = 0 }, "cpu_factor"},
		{func(f *guardFile) { f.BytesTolerance = 1 }, "bytes_tolerance"},
	} {
		f := exampleLimits()
		tt.change(f)
		name := filepath.Join(t.TempDir(), "guard.json")
		if err := f.write(name); err != nil {
			t.Fatal(err)
		}
		if _, err := readGuardFile(name); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v, want %q", err, tt.want)
		}
	}
}

func FuzzParseGuardFile(f *testing.F) {
	f.Add([]byte(`{"cpu":{"first import":1,"next day":1,"unchanged import":1,"restore of day 1":1},"cpu_factor":2,` +
		`"bytes":{"repository after day 0":1,"repository after day 1":2},"bytes_tolerance":0.01}`))
	f.Add([]byte(`{"cpu":{"first":1}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		limits, err := parseGuardFile(b)
		if err == nil && (limits.CPUFactor < 1 || limits.Bytes[sizeAfter(0)] <= 0) {
			t.Errorf("accepted %+v", limits)
		}
	})
}

// Calibrations agree, and their work cannot be skipped.
func TestCalibration(t *testing.T) {
	needMeasuring(t)
	calibrate := newCalibration()
	a, b := calibrate(), calibrate()
	if a < 5*time.Millisecond || b > 4*a || a > 4*b {
		t.Errorf("calibrations took %v and %v of CPU time", a, b)
	}
	if !bytes.Equal(calibrationData(), calibrationData()) || len(calibrationData()) != calibrationSize {
		t.Error("the buffer is not always the same")
	}
}
