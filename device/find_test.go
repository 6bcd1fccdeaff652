package device

import (
	"strings"
	"testing"
)

// Several devices that fit are named in the order in which people expect names.
func TestChoicesAreInNaturalOrder(t *testing.T) {
	t.Parallel()
	list := []Entry{{UDID: "1"}, {UDID: "2"}, {UDID: "3"}}
	_, err := choose(list, []string{"iPhone 10", "iPad", "iphone 9"}, "")
	if err == nil || !strings.HasSuffix(err.Error(), "choose one of: 2 iPad, 3 iphone 9, 1 iPhone 10") {
		t.Errorf("got %v", err)
	}
}
