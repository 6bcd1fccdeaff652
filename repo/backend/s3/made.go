package s3

import (
	"strings"
	"time"
)

// crockford are the digits of a ULID.
const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// madeAt returns when a version was made. Of an old version, versitygw shows the time at which
// it was hidden, and of a note that hides an object, the time of the object. Its version IDs
// are ULIDs, which begin with the right time in milliseconds. IDs of other stores are longer.
func madeAt(id string, modified, now time.Time) time.Time {
	if len(id) != 26 || id[0] > '7' {
		return modified
	}
	var ms int64
	for i, c := range id {
		digit := strings.IndexRune(crockford, c)
		if digit < 0 {
			return modified
		}
		if i < 10 {
			ms = ms<<5 | int64(digit)
		}
	}
	at := time.UnixMilli(ms).UTC()
	if at.Year() < 2015 || at.After(now.AddDate(0, 0, 1)) {
		return modified
	}
	return at
}
