package main

import (
	"cmp"
	"errors"
	"io"
	"os"

	"golang.org/x/term"
)

// colour is what a terminal does to show a text in a colour.
type colour string

// The colours, and what they mean.
const (
	bad     colour = escape + "31m" // red: a failure, damage, danger
	caution colour = escape + "33m" // yellow: it needs attention
	good    colour = escape + "32m" // green: all is well
	faint   colour = escape + "2m"  // dim: a hint

	noColour = escape + "0m"
)

// paint returns a text in a colour if w shows colours.
func paint(w io.Writer, c colour, text string) string {
	s, ok := w.(*screen)
	if !ok || text == "" || !s.colours(s.file) {
		return text
	}
	return string(c) + text + noColour
}

// colourMode is the value of --color. It says when to use colours: always, never, or, if
// empty, on a terminal.
type colourMode string

const (
	colourAuto   = "auto"
	colourAlways = "always"
	colourNever  = "never"
)

func (m *colourMode) String() string { return cmp.Or(string(*m), colourAuto) }
func (m *colourMode) Type() string   { return "when" }
func (m *colourMode) Set(s string) error {
	switch s {
	case colourAuto, colourAlways, colourNever:
		*m = colourMode(s)
		return nil
	}
	return errors.New("it takes auto, always or never")
}

// coloured reports whether to use colours in a file. NO_COLOR is a convention of many
// programs (no-color.org).
func (a *app) coloured(f *os.File) bool {
	switch a.colour.String() {
	case colourAlways:
		return true
	case colourNever:
		return false
	}
	return os.Getenv("NO_COLOR") == "" && obeys(f)
}

// obeys reports whether f is a terminal that obeys escape sequences.
func obeys(f *os.File) bool {
	return f != nil && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(f.Fd())) && enableEscapes(f)
}
