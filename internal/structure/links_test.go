package structure

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	link    = regexp.MustCompile(`\]\(([^)#]*)(?:#([^)]*))?\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	noise   = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
	mention = regexp.MustCompile(`\bdocs/[a-z0-9/-]+\.md\b`)
)

// anchors are the names that GitHub gives to the headings of a document.
func anchors(text string) map[string]bool {
	found := map[string]bool{}
	for _, h := range heading.FindAllStringSubmatch(text, -1) {
		found[strings.ReplaceAll(noise.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-")] = true
	}
	return found
}

// TestLinks follows links between documents, and names of documents in code.
func TestLinks(t *testing.T) {
	documents := 0
	err := filepath.WalkDir(root, func(file string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			if err == nil && e.Name() == ".git" {
				return filepath.SkipDir
			}
			return err
		}
		isDocument := filepath.Ext(file) == ".md"
		if !isDocument && filepath.Ext(file) != ".go" {
			return nil
		}
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for _, name := range mention.FindAllString(string(b), -1) {
			if _, err := os.Stat(filepath.Join(root, name)); err != nil {
				t.Errorf("%s names %s, which does not exist", file, name)
			}
		}
		if isDocument {
			documents++
			checkLinks(t, file, string(b))
		}
		return nil
	})
	if err != nil || documents < 20 {
		t.Fatalf("read %d documents: %v", documents, err)
	}
}

func checkLinks(t *testing.T, file, text string) {
	t.Helper()
	for _, l := range link.FindAllStringSubmatch(text, -1) {
		to, anchor := l[1], l[2]
		if strings.Contains(to, "://") {
			continue
		}
		target := file
		if to != "" {
			target = filepath.Join(filepath.Dir(file), filepath.FromSlash(to))
		}
		b, err := os.ReadFile(target)
		if err != nil {
			t.Errorf("%s links to %s: %v", file, to, err)
		} else if anchor != "" && !anchors(string(b))[anchor] {
			t.Errorf("%s links to heading %q of %s, which does not exist", file, anchor, target)
		}
	}
}

// TestDecisionsAreListed expects every decision on the page that lists them.
func TestDecisionsAreListed(t *testing.T) {
	list, err := os.ReadFile(filepath.Join(root, "docs/decisions/README.md"))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob(filepath.Join(root, "docs/decisions/[0-9]*.md"))
	if err != nil || len(pages) < 20 {
		t.Fatalf("found %d decisions: %v", len(pages), err)
	}
	for _, page := range pages {
		if !strings.Contains(string(list), "]("+filepath.Base(page)+")") {
			t.Errorf("docs/decisions/README.md does not list %s", filepath.Base(page))
		}
	}
}
