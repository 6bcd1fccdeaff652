package words

import (
	"slices"
	"testing"
)

func TestPlural(t *testing.T) {
	for n, want := range map[int]string{0: "0 files", 1: "1 file", -1: "-1 files", 999: "999 files", 1000: "1,000 files", -123456: "-123,456 files", 1234567: "1,234,567 files"} {
		if got := Plural(n, "file"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestCompare(t *testing.T) {
	names := []string{"iPhone 10", "iPhone 2", "iphone 3", "iPad", "", "Anna’s iPhone", "iPhone", "iPhone 2"}
	want := []string{"", "Anna’s iPhone", "iPad", "iPhone", "iPhone 2", "iPhone 2", "iphone 3", "iPhone 10"}
	slices.SortFunc(names, Compare)
	if !slices.Equal(names, want) {
		t.Errorf("got %q", names)
	}
	if Compare("iPad 01", "iPad 1") == 0 || Compare("Pad", "pad") == 0 {
		t.Error("different names are equal")
	}
}
