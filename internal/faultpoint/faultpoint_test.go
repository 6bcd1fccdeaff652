package faultpoint

import (
	"slices"
	"testing"
)

func TestChoose(t *testing.T) {
	t.Setenv("SNAP_TEST_ALL", "")
	want := 8
	if testing.Short() {
		want = shortLeast
	}
	a := Choose(t, 100, 8)
	if len(a) != want || !slices.IsSorted(a) || a[len(a)-1] != 99 {
		t.Errorf("Choose(100, 8) = %v; want %d sorted points, 99 among them", a, want)
	}
	if len(slices.Compact(slices.Clone(a))) != len(a) {
		t.Errorf("Choose(100, 8) = %v has a point twice", a)
	}
	if b := Choose(t, 100, 8); !slices.Equal(a, b) {
		t.Errorf("the same seed and test chose %v and %v", a, b)
	}
	if b := Sample(t, 100, 8); len(b) != want || !slices.IsSorted(b) || !slices.Equal(b, Sample(t, 100, 8)) {
		t.Errorf("Sample(100, 8) = %v; want %d sorted points, the same for the same seed", b, want)
	}
	if got := Choose(t, 1, 8); !slices.Equal(got, []int{0}) {
		t.Errorf("Choose(1, 8) = %v", got)
	}
	if got := Choose(t, 0, 8); len(got) != 0 {
		t.Errorf("Choose(0, 8) = %v", got)
	}
	t.Setenv("SNAP_TEST_ALL", "1")
	if got := Choose(t, 100, 1); len(got) != 100 {
		t.Errorf("with SNAP_TEST_ALL, Choose returned %d points of 100", len(got))
	}
	if got := Sample(t, 100, 1); len(got) != 100 {
		t.Errorf("with SNAP_TEST_ALL, Sample returned %d points of 100", len(got))
	}
}
