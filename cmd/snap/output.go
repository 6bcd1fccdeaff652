package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// print writes a command's result: with --json as JSON, otherwise with the function
// human.
func (a *app) print(result any, human func(w io.Writer)) error {
	if a.json {
		return printJSON(a.stdout, result)
	}
	human(a.stdout)
	return nil
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// table prints rows in columns. Tabs separate cells. A heading that begins with ">"
// aligns its column to the right.
func table(w io.Writer, header string, rows []string) {
	lines := [][]string{strings.Split(header, "\t")}
	for _, r := range rows {
		lines = append(lines, strings.Split(r, "\t"))
	}
	right := make([]bool, len(lines[0]))
	for i := range lines[0] {
		lines[0][i], right[i] = strings.CutPrefix(lines[0][i], ">")
	}
	widths := make([]int, len(right))
	for _, cells := range lines {
		for i, c := range cells {
			widths[i] = max(widths[i], width(c))
		}
	}
	for _, cells := range lines {
		line := ""
		for i, c := range cells {
			pad := strings.Repeat(" ", widths[i]-width(c))
			if right[i] {
				c = pad + c
			} else {
				c += pad
			}
			if i > 0 {
				line += "  "
			}
			line += c
		}
		fmt.Fprintln(w, strings.TrimRight(line, " "))
	}
}

// plural returns a number with its noun.
func plural[N int | int64](n N, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return count(int64(n)) + " " + one + "s"
}

// bytesText returns a size for people, in units of 1024, as restic does.
func bytesText(n int64) string {
	const units = "KMGTPE"
	if n < 1024 && n > -1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/1024, 0
	for (v >= 1000 || v <= -1000) && i < len(units)-1 {
		v /= 1024
		i++
	}
	return fmt.Sprintf("%.1f %ciB", v, units[i])
}

// count returns a number with commas, as in 1,000.
func count(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func timeText(t time.Time) string {
	if t.IsZero() {
		return "unknown"
	}
	return t.Local().Format("2006-01-02 15:04")
}

// clean makes text from a device or repository safe for a terminal and a table by
// replacing control characters and tabs.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == utf8.RuneError || unicode.Is(unicode.Bidi_Control, r) {
			return '\uFFFD'
		}
		return r
	}, s)
}
