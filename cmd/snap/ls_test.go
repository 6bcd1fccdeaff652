package main

import (
	"slices"
	"testing"
)

// Names are listed as people expect them, and a folder's content behind the folder.
func TestListIsInNaturalOrder(t *testing.T) {
	t.Parallel()
	l := lister{items: []lsItem{
		{Domain: "CameraRollDomain", Name: "DCIM/IMG_10.JPG"}, {Domain: "CameraRollDomain", Name: "DCIM/IMG_9.JPG"},
		{Domain: "CameraRollDomain", Name: "DCIM 2/a"}, {Domain: "CameraRollDomain", Name: "DCIM"},
		{Domain: "AppDomain-b"}, {Domain: noDomain, Name: "Manifest.db"},
	}}
	l.sort()
	var got []string
	for i := range l.items {
		got = append(got, l.displayName(&l.items[i]))
	}
	want := []string{"Manifest.db", "AppDomain-b/", "CameraRollDomain/DCIM", "CameraRollDomain/DCIM/IMG_9.JPG", "CameraRollDomain/DCIM/IMG_10.JPG", "CameraRollDomain/DCIM 2/a"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
