package structure

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var testName = regexp.MustCompile("`([a-z0-9/]+)\\.((?:Test|Fuzz)[A-Za-z0-9_]+)`")

// TestThreatModel checks that each promise of docs/threat-model.md names tests, and that
// these exist.
func TestThreatModel(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(root, "docs", "threat-model.md"))
	if err != nil {
		t.Fatal(err)
	}
	above, below, ok := strings.Cut(string(b), "## What holds these promises")
	if !ok {
		t.Fatal("it does not say what holds its promises")
	}
	held := map[string]bool{}
	for _, row := range rows(below)[1:] {
		tests := testName.FindAllStringSubmatch(row[1], -1)
		if len(tests) == 0 {
			t.Errorf("no test holds %q", row[0])
		}
		for _, test := range tests {
			if !hasTest(t, test[1], test[2]) {
				t.Errorf("%q: package %s has no %s", row[0], test[1], test[2])
			}
		}
		held[row[0]] = true
	}
	if len(held) < 20 {
		t.Errorf("only %d promises", len(held))
	}
	for _, row := range rows(above) {
		if row[0] != "" && !strings.HasPrefix(row[1], "yes") && !held[row[0]] {
			t.Errorf("no test holds %q: add a line to the last table", row[0])
		}
	}
}

// rows returns the cells of all tables, without the lines below their headings.
func rows(text string) (all [][2]string) {
	for line := range strings.Lines(text) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) >= 4 && !strings.HasPrefix(cells[1], "-") {
			all = append(all, [2]string{strings.TrimSpace(cells[1]), strings.TrimSpace(cells[2])})
		}
	}
	return all
}

// hasTest reports whether a package has a test.
func hasTest(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(dir), "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), "\nfunc "+name+"(") {
			return true
		}
	}
	return false
}
