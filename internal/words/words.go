// Package words writes numbers with their nouns, and sizes, for people. It also puts names
// in the order that people expect, and finds out how similar they are.
package words

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/maruel/natural"
)

// Compare orders names as Finder does: "iPhone 2" comes before "iphone 10".
func Compare(a, b string) int {
	return cmp.Or(natural.Compare(strings.ToLower(a), strings.ToLower(b)), strings.Compare(a, b))
}

// Number returns a number with commas, as in 1,000.
func Number[N int | int64](n N) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Plural returns a number with its noun, as in 1 file or 1,000 files. The noun must form
// its plural with an s.
func Plural[N int | int64](n N, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return Number(n) + " " + one + "s"
}

// Bytes returns a size in units of 1024, as restic does.
func Bytes(n int64) string {
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

// Ago returns an age in words, rounded down, such as "2 days ago".
func Ago(d time.Duration) string {
	switch {
	case d < 0:
		return "in the future"
	case d < time.Minute:
		return "just now"
	}
	return Span(d) + " ago"
}

// Span returns a duration in words, rounded down, such as "2 days".
func Span(d time.Duration) string {
	switch {
	case d < time.Hour:
		return Plural(int64(d/time.Minute), "minute")
	case d < 48*time.Hour:
		return Plural(int64(d/time.Hour), "hour")
	}
	return Plural(int64(d/(24*time.Hour)), "day")
}

// Distance returns how many letters must be changed, added or removed to make one text of
// another.
func Distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		above := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := above
			if a[i] != b[j] {
				cost = 1 + min(above, row[j], row[j+1])
			}
			above, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
