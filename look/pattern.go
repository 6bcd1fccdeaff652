package look

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/snap-backup/snap/repo/tree"
	"golang.org/x/text/unicode/norm"
)

// ErrPattern says that a text is not a pattern.
var ErrPattern = errors.New("not a pattern")

// Patterns choose files by their names. A pattern has *, ?, [...], {a,b} and, between
// slashes, **, which stands for any number of folders. A pattern without a slash fits a
// file, a folder or a domain of that name, wherever it is; a pattern with a slash begins
// with the domain. What fits a folder or a domain chooses all that is in it.
type Patterns struct {
	list []pattern
	fold bool
}

// pattern is one pattern.
type pattern struct {
	text string
	deep bool // without a slash: for an element of any depth
	// exact patterns stand for themselves. Those of paths are for files of any domain.
	exact, path  bool
	top          bool // only files without a domain
	domain, name string
	// literal is the beginning of the text that has no signs. Names that match begin with
	// it.
	literal string
}

// maxPattern bounds the length of a pattern, in bytes.
const maxPattern = 4096

// ParsePatterns parses patterns. If fold is true, case does not matter.
func ParsePatterns(texts []string, fold bool) (*Patterns, error) {
	p := &Patterns{fold: fold}
	for _, text := range texts {
		clean := strings.Trim(text, "/")
		switch {
		case clean == "":
			return nil, fmt.Errorf("%q: %w: it is empty", text, ErrPattern)
		case len(clean) > maxPattern:
			return nil, fmt.Errorf("%.40q...: %w: it is longer than %d bytes", text, ErrPattern, maxPattern)
		case !doublestar.ValidatePattern(clean):
			return nil, fmt.Errorf("%q: %w: a bracket or brace is not closed, or a backslash is at the end", text, ErrPattern)
		}
		if folder, all := strings.CutSuffix(clean, "/**"); all {
			clean = folder + "/*" // the same, except that the folder itself does not match
		}
		one := pattern{text: p.plain(clean), deep: !strings.Contains(clean, "/")}
		if !one.deep && !fold {
			one.literal = clean
			if i := strings.IndexAny(clean, `*?[{\`); i >= 0 {
				one.literal = clean[:i]
			}
			// A name in another form of Unicode would be in another place.
			if strings.ContainsFunc(one.literal, func(r rune) bool { return r >= 0x80 }) {
				one.literal = ""
			}
		}
		p.list = append(p.list, one)
	}
	return p, nil
}

// Named returns the pattern of the file that a text names; see Reader.File.
func Named(text string) *Patterns {
	if ids := paths(text); len(ids) > 1 || isBlobPath(text) {
		return onPaths(ids)
	}
	domain, name, _ := strings.Cut(text, "/")
	p := Exactly(domain, name)
	p.list = append(p.list, pattern{exact: true, path: true, top: true, text: text})
	return p
}

// Exactly returns the pattern of one file.
func Exactly(domain, name string) *Patterns {
	return &Patterns{list: []pattern{{exact: true, domain: domain, name: name, literal: domain + "/" + name}}}
}

// onPaths returns the pattern of the files with these paths in the backup folder.
func onPaths(paths []string) *Patterns {
	p := &Patterns{}
	for _, path := range paths {
		p.list = append(p.list, pattern{exact: true, path: true, text: path})
	}
	return p
}

// Match reports whether a file matches. path is that in the backup folder, which stands
// for the name of a file without a domain.
func (p *Patterns) Match(domain, name, path string) bool {
	if p == nil {
		return true
	}
	full := ""
	for i := range p.list {
		one := &p.list[i]
		if one.exact {
			if one.path && one.text == path && !(one.top && domain != "") || !one.path && one.domain == domain && one.name == name {
				return true
			}
			continue
		}
		if full == "" {
			full = p.plain(fullName(domain, name, path))
		}
		if one.matches(full) {
			return true
		}
	}
	return false
}

// plain returns a text in the form in which texts are compared.
func (p *Patterns) plain(text string) string {
	if p.fold {
		text = strings.ToLower(text)
	}
	return norm.NFC.String(text)
}

// matches reports whether a name, or a folder above it, matches.
func (one *pattern) matches(full string) bool {
	if one.deep {
		for element := range strings.SplitSeq(full, "/") {
			if doublestar.MatchUnvalidated(one.text, element) {
				return true
			}
		}
		return false
	}
	if !strings.HasPrefix(full, one.literal) {
		return false
	}
	for end := 0; end < len(full); {
		i := strings.IndexByte(full[end:], '/')
		if i < 0 {
			break
		}
		end += i
		if end >= len(one.literal) && doublestar.MatchUnvalidated(one.text, full[:end]) {
			return true
		}
		end++
	}
	return doublestar.MatchUnvalidated(one.text, full)
}

// within reports whether a key from first on and before next can match; next is nil if
// there is no bound.
func (p *Patterns) within(first, next *tree.Key) bool {
	// Files without a domain come first, and are named by their path.
	return p == nil || first.Domain == "" || slices.ContainsFunc(p.list, func(one pattern) bool { return one.within(first, next) })
}

func (one *pattern) within(first, next *tree.Key) bool {
	if one.literal == "" {
		return !one.top || first.Domain == ""
	}
	domain, name, inside := strings.Cut(one.literal, "/")
	if !inside {
		// The literal is the beginning of a domain.
		return !(first.Domain > domain && !strings.HasPrefix(first.Domain, domain)) && !(next != nil && next.Domain < domain)
	}
	// All that matches has this domain, and a name that begins with name or, if a pattern
	// ends there, is name.
	switch {
	case first.Domain > domain || first.Domain == domain && first.Name > name && !strings.HasPrefix(first.Name, name):
		return false
	case next != nil && (next.Domain < domain || next.Domain == domain && next.Name < name):
		return false
	}
	return true
}
