package words

import "testing"

func TestPlural(t *testing.T) {
	for n, want := range map[int]string{0: "0 files", 1: "1 file", -1: "-1 files", 999: "999 files", 1000: "1,000 files", -123456: "-123,456 files", 1234567: "1,234,567 files"} {
		if got := Plural(n, "file"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
