package main

import (
	"strings"

	"github.com/rivo/uniseg"
)

// width returns how many columns a text takes in a terminal.
func width(s string) int { return uniseg.StringWidth(s) }

// fit cuts a text to a number of columns. It never cuts a character in two.
func fit(s string, columns int) string {
	var out strings.Builder
	for g := uniseg.NewGraphemes(s); g.Next(); {
		if columns -= g.Width(); columns < 0 {
			break
		}
		out.WriteString(g.Str())
	}
	return out.String()
}
