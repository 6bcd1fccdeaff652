package ramtemp

import (
	"os"
	"strings"
	"testing"
)

func TestUse(t *testing.T) {
	t.Setenv(variable, "")
	before := os.TempDir()
	remove := Use()
	dir := os.TempDir()
	if parent := memory(); parent != "" && !strings.HasPrefix(dir, parent) {
		t.Errorf("temporary files are in %s, want %s", dir, parent)
	}
	remove()
	if after := os.TempDir(); after != before {
		t.Errorf("temporary files are in %s afterwards, want %s", after, before)
	}
	if dir != before {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s was not removed", dir)
		}
	}

	t.Setenv(variable, before)
	defer Use()()
	if os.TempDir() != before {
		t.Errorf("%s was not respected", variable)
	}
}
