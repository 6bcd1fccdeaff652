package backup2

import (
	"fmt"
	"testing"
)

func TestNumbersInUnits(t *testing.T) {
	o := Options{Bytes: func(n int64) string { return fmt.Sprintf("<%d>", n) }}
	for text, want := range map[string]string{
		"Insufficient free disk space (9000000000000000 bytes needed, 334660976640 free)": "Insufficient free disk space (<9000000000000000> needed, <334660976640> free)",
		"12 bytes are missing":       "12 bytes are missing",
		"file 123456789 is missing":  "file 123456789 is missing",
		"99999999999999999999 bytes": "99999999999999999999 bytes",
		"bytes of a1234567890f":      "bytes of a1234567890f",
		"":                           "",
	} {
		if got := o.inUnits(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
	if got := (&Options{}).inUnits("1234567 bytes"); got != "1234567 bytes" {
		t.Errorf("without a format: %q", got)
	}
}
