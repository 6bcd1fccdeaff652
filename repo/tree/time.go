package tree

import (
	"cmp"
	"math"
	"time"
)

// Time is a time of a file, to the nanosecond, in any year that a file system can hold.
// Equal times are equal with ==. The zero value is the start of 1970.
type Time struct {
	sec  int64
	nsec uint32 // below 1e9, forwards from sec
}

const nanoseconds = 1_000_000_000 // in a second

// At returns t as a Time.
func At(t time.Time) Time { return Time{t.Unix(), uint32(t.Nanosecond())} }

// AtSecond returns the Time of a number of seconds since 1970.
func AtSecond(sec int64) Time { return Time{sec: sec} }

// AtNanosecond returns the Time of a number of nanoseconds since 1970.
func AtNanosecond(n int64) Time {
	sec, nsec := n/nanoseconds, n%nanoseconds
	if nsec < 0 {
		sec, nsec = sec-1, nsec+nanoseconds
	}
	return Time{sec, uint32(nsec)}
}

// Time returns t as a time.Time in local time.
func (t Time) Time() time.Time { return time.Unix(t.sec, int64(t.nsec)) }

// Compare returns -1, 0 or +1 if t is before, equal to or after u.
func (t Time) Compare(u Time) int {
	return cmp.Or(cmp.Compare(t.sec, u.sec), cmp.Compare(t.nsec, u.nsec))
}

// String returns t for people.
func (t Time) String() string { return t.Time().UTC().Format(time.RFC3339Nano) }

// The first and the last time that an int64 of nanoseconds can hold, in 1677 and 2262.
var earliest, latest = AtNanosecond(math.MinInt64), AtNanosecond(math.MaxInt64)

// Nanosecond returns the number of nanoseconds since 1970. wide is true if an int64
// cannot hold it; the number is then the nearest that it can hold.
func (t Time) Nanosecond() (n int64, wide bool) {
	switch {
	case t.Compare(earliest) < 0:
		return math.MinInt64, true
	case t.Compare(latest) > 0:
		return math.MaxInt64, true
	case t.sec < 0: // sec × 1e9 may be too small for an int64
		return (t.sec+1)*nanoseconds + int64(t.nsec) - nanoseconds, false
	}
	return t.sec*nanoseconds + int64(t.nsec), false
}
