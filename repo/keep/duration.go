package keep

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Duration is a length of time in units of the calendar.
type Duration struct{ Years, Months, Days, Hours int }

// maxNumber is the maximum number of each unit, so that no time overflows.
const maxNumber = 9999

// ParseDuration reads a duration such as 1y6m, 30d or 12h: numbers of years, months,
// days and hours, each unit at most once.
func ParseDuration(s string) (Duration, error) {
	var d Duration
	wrong := func() (Duration, error) {
		return Duration{}, fmt.Errorf("%.40q is not a duration such as 1y6m, 30d or 12h (years, months, days, hours)", s)
	}
	seen := ""
	for rest := s; rest != ""; {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		n, err := strconv.Atoi(rest[:digits])
		if err != nil || n > maxNumber || digits == len(rest) || strings.IndexByte(seen, rest[digits]) >= 0 {
			return wrong()
		}
		switch rest[digits] {
		case 'y':
			d.Years = n
		case 'm':
			d.Months = n
		case 'd':
			d.Days = n
		case 'h':
			d.Hours = n
		default:
			return wrong()
		}
		seen += rest[digits : digits+1]
		rest = rest[digits+1:]
	}
	if s == "" {
		return wrong()
	}
	return d, nil
}

// String returns the form that ParseDuration reads.
func (d Duration) String() string {
	s := ""
	for _, u := range []struct {
		n    int
		unit string
	}{{d.Years, "y"}, {d.Months, "m"}, {d.Days, "d"}, {d.Hours, "h"}} {
		if u.n != 0 {
			s += fmt.Sprint(u.n, u.unit)
		}
	}
	if s == "" {
		return "0h"
	}
	return s
}

// Before returns the time d before t.
func (d Duration) Before(t time.Time) time.Time {
	return t.AddDate(-d.Years, -d.Months, -d.Days).Add(-time.Duration(d.Hours) * time.Hour)
}
