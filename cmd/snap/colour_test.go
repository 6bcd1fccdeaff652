package main

import (
	"bytes"
	"os"
	"testing"
)

// TestColours checks when colours are used without a terminal; TestColoursOnTerminal has
// the rest.
func TestColours(t *testing.T) {
	for mode, want := range map[string]bool{colourAuto: false, colourNever: false, colourAlways: true} {
		var out bytes.Buffer
		a := &app{}
		if err := a.colour.Set(mode); err != nil {
			t.Fatal(err)
		}
		s := newScreen(&out, &out, a.coloured)
		if got := paint(s, bad, "x") != "x"; got != want {
			t.Errorf("%s: colours: %v", mode, got)
		}
		if got := paint(&out, bad, "x"); got != "x" {
			t.Errorf("%s: a buffer gets %q", mode, got)
		}
		if f, err := os.Open(os.DevNull); err != nil || a.coloured(f) != want {
			t.Errorf("%s: null device: colours: %v", mode, !want)
		}
	}
	if err := new(colourMode).Set("green"); err == nil {
		t.Error("--color green is accepted")
	}
}
