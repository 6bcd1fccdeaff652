package main

import (
	"regexp"
	"strings"

	"github.com/rivo/uniseg"
)

// escape begins a sequence of characters that a terminal obeys.
const escape = "\x1b["

// width returns how many columns a text takes in a terminal. Colours take none.
func width(s string) int { return uniseg.StringWidth(plain(s)) }

// plain returns a text without colours.
func plain(s string) string {
	if !strings.Contains(s, escape) {
		return s
	}
	var out strings.Builder
	for {
		before, after, found := strings.Cut(s, escape)
		out.WriteString(before)
		if !found {
			return out.String()
		}
		_, s, _ = strings.Cut(after, "m")
	}
}

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

// shorten is fit with an ellipsis for what it cuts.
func shorten(s string, columns int) string {
	if width(s) <= columns {
		return s
	}
	return fit(s, columns-1) + "…"
}

// wrap breaks a line at words so that it fits a number of columns. It indents the lines
// that follow the first. It does not break a word, nor a command in quotes that fits a
// line: both can then be copied.
func wrap(line string, columns int) []string {
	if width(line) <= columns {
		return []string{line}
	}
	indent := hanging(line, columns)
	var out []string
	at := line[:len(line)-len(strings.TrimLeft(line, " "))]
	for i, word := range pieces(line, columns-indent) {
		// Widths do not add up: a mark at the end of a word can join the space after it.
		if i > 0 && width(at+word) > columns && width(at) > indent {
			out = append(out, strings.TrimRight(at, " "))
			at, word = strings.Repeat(" ", indent), strings.TrimLeft(word, " ")
		}
		at += word
	}
	return append(out, at)
}

// hanging returns by how much to indent what follows the first line of a text: as much as
// the text after its label or mark.
func hanging(line string, columns int) int {
	line = plain(line)
	indent := len(line) - len(strings.TrimLeft(line, " "))
	rest := line[indent:]
	switch {
	case strings.HasPrefix(rest, "snap: "):
		return indent + len("snap: ")
	case strings.HasPrefix(rest, "- "), strings.HasPrefix(rest, "! "), strings.HasPrefix(rest, "!! "):
		mark := strings.IndexByte(rest, ' ')
		return indent + mark + len(rest[mark:]) - len(strings.TrimLeft(rest[mark:], " "))
	}
	const widest = 28 // of labels
	if gap := strings.Index(rest, "  "); gap > 0 && indent+width(rest[:gap]) < min(widest, columns/2) {
		text := strings.TrimLeft(rest[gap:], " ")
		if n := indent + width(rest[:len(rest)-len(text)]); n < columns/2 {
			return n
		}
	}
	return max(2, indent)
}

// sizeUnit matches the unit of a size, which stays with its number.
var sizeUnit = regexp.MustCompile(`^ ([KMGTPE]i)?B\b[^ ]*`)

// pieces splits a line where it can be broken. Each piece but the first begins with
// spaces. What is in double quotes is one piece if it takes at most so many columns.
func pieces(line string, columns int) []string {
	var out []string
	line = strings.TrimLeft(line, " ")
	for line != "" {
		spaces := len(line) - len(strings.TrimLeft(line, " "))
		end := spaces + strings.IndexByte(line[spaces:]+" ", ' ')
		if quote := strings.IndexByte(line[:end], '"'); quote >= 0 && strings.Count(line[:end], `"`) == 1 {
			if closing := strings.IndexByte(line[end:], '"'); closing >= 0 {
				whole := end + closing + strings.IndexByte(line[end+closing:]+" ", ' ')
				if width(line[spaces:whole]) <= columns {
					end = whole
				}
			}
		}
		if unit := sizeUnit.FindString(line[end:]); unit != "" {
			end += len(unit)
		}
		out, line = append(out, line[:end]), line[end:]
	}
	return out
}
