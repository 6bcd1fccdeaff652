package config

import (
	"strings"

	"github.com/BurntSushi/toml"
)

// linesOf returns the lines on which the keys and tables of a text are defined. The names
// of a key and the tables above it are joined with NUL. The library reports the line of an
// error of syntax only. A key in an inline table is not found: its line is that of the
// table.
func linesOf(text string) map[string]int {
	lines := map[string]int{}
	var table []string
	within := "" // the quotes of a text of several lines, if one is open
	n := 0
	for line := range strings.Lines(text) {
		n++
		open := within
		within = stillOpen(line, within)
		if open != "" {
			continue
		}
		trimmed := strings.TrimSpace(line)
		if strings.HasPrefix(trimmed, "[") {
			if path := keysOf(trimmed); path != nil {
				table = path
				note(lines, path, n)
			}
			continue
		}
		for at, c := range trimmed {
			if c != '=' {
				continue
			}
			if path := keysOf(trimmed[:at] + "= 0"); path != nil {
				note(lines, append(append([]string{}, table...), path...), n)
				break
			}
		}
	}
	return lines
}

func note(lines map[string]int, path []string, n int) {
	if name := strings.Join(path, "\x00"); lines[name] == 0 {
		lines[name] = n
	}
}

// keysOf returns the names in a line that is a table or an assignment, or nil.
func keysOf(line string) []string {
	var v map[string]any
	md, err := toml.Decode(line, &v)
	if err != nil {
		return nil
	}
	var longest []string
	for _, k := range md.Keys() {
		if len(k) > len(longest) {
			longest = k
		}
	}
	return longest
}

// stillOpen returns the quotes of a text of several lines that is open after a line.
func stillOpen(line, within string) string {
	for line != "" {
		if within != "" {
			at := strings.Index(line, within)
			if at < 0 {
				return within
			}
			line, within = line[at+3:], ""
			continue
		}
		at := strings.IndexAny(line, "#\"'")
		if at < 0 || line[at] == '#' {
			return ""
		}
		quote := line[at : at+1]
		if strings.HasPrefix(line[at:], strings.Repeat(quote, 3)) {
			line, within = line[at+3:], strings.Repeat(quote, 3)
			continue
		}
		line = line[at+1:]
		for line != "" && line[:1] != quote {
			if quote == `"` && line[0] == '\\' && len(line) > 1 {
				line = line[1:]
			}
			line = line[1:]
		}
		line = strings.TrimPrefix(line, quote)
	}
	return within
}
