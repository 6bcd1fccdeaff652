package look

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/snap-backup/snap/repo/tree"
	"golang.org/x/text/unicode/norm"
)

func TestMatch(t *testing.T) {
	for _, tt := range []struct {
		pattern, domain, name string
		want                  bool
	}{
		{"sms.db", "HomeDomain", "Library/SMS/sms.db", true},
		{"*.db", "HomeDomain", "Library/SMS/sms.db", true},
		{"*.{db,sqlite}", "HomeDomain", "Library/SMS/sms.db", true},
		{"sms", "HomeDomain", "Library/SMS/sms.db", false},
		{"SMS", "HomeDomain", "Library/SMS/sms.db", true},
		{"HomeDomain", "HomeDomain", "Library/SMS/sms.db", true},
		{"HomeDomain/", "HomeDomain", "Library/SMS/sms.db", true},
		{"HomeDomain/**", "HomeDomain", "Library/SMS/sms.db", true},
		{"HomeDomain/*.db", "HomeDomain", "Library/SMS/sms.db", false},
		{"HomeDomain/**/*.db", "HomeDomain", "Library/SMS/sms.db", true},
		{"**/SMS/*", "HomeDomain", "Library/SMS/sms.db", true},
		{"HomeDomain/Library", "HomeDomain", "Library/SMS/sms.db", true},
		{"HomeDomain/Lib", "HomeDomain", "Library/SMS/sms.db", false},
		{"HomeDomain/L*/S?S", "HomeDomain", "Library/SMS/sms.db", true},
		{"HomeDomain/Library/SMS/sms.db/**", "HomeDomain", "Library/SMS/sms.db", false},
		{"AppDomain*-com.example.*", "AppDomainGroup-group.com.example.x", "a", false},
		{"AppDomain*com.example.*", "AppDomainGroup-group.com.example.x", "a", true},
		{"IMG_000[1-3].*", "CameraRollDomain", "Media/DCIM/100APPLE/IMG_0002.HEIC", true},
		{"IMG_000[1-3].*", "CameraRollDomain", "Media/DCIM/100APPLE/IMG_0004.HEIC", false},
		{`a\*b`, "D", "a*b", true},
		{`a\*b`, "D", "axb", false},
		{"Büro.txt", "D", "Bu\u0308ro.txt", true},
	} {
		p, err := ParsePatterns([]string{"nothing", tt.pattern}, false)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Match(tt.domain, tt.name, "x"); got != tt.want {
			t.Errorf("%q fits %s/%s: %v", tt.pattern, tt.domain, tt.name, got)
		}
		fold, err := ParsePatterns([]string{strings.ToUpper(tt.pattern)}, true)
		if err == nil && tt.want && !fold.Match(tt.domain, tt.name, "x") {
			t.Errorf("%q does not fit %s/%s without case", tt.pattern, tt.domain, tt.name)
		}
	}
	for _, bad := range []string{"", "/", "[", "{a", `a\`, strings.Repeat("x", maxPattern+1)} {
		if _, err := ParsePatterns([]string{bad}, false); !errors.Is(err, ErrPattern) {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
	p, err := ParsePatterns([]string{"Manifest.*"}, false)
	if err != nil || !p.Match("", "", "Manifest.db") || p.Match("", "", "Info.plist") {
		t.Errorf("files without a domain: %v", err)
	}
}

// FuzzPattern checks that no pattern makes a panic, and that a range without matches has
// none.
func FuzzPattern(f *testing.F) {
	f.Add("HomeDomain/Library/**/*.db", "HomeDomain", "Library/SMS/sms.db", "AppDomain", "x", false)
	f.Add("Home*", "HomeDomain", "Library/SMS/sms.db", "RootDomain", "", true)
	f.Add("CameraRollDomain/Media/{DCIM,PhotoData}/**", "CameraRollDomain", "Media/DCIM/1", "CameraRollDomain", "Media/E", false)
	f.Fuzz(func(t *testing.T, text, domain, name, nextDomain, nextName string, fold bool) {
		if len(text) > 64 || strings.Count(text, "*")+strings.Count(text, "{") > 8 {
			return
		}
		p, err := ParsePatterns([]string{text}, fold)
		if err != nil {
			return
		}
		matches := p.Match(domain, name, "")
		if !utf8.ValidString(domain+name) || norm.NFC.String(domain+name) != domain+name || domain == "" || strings.Contains(domain, "/") {
			return
		}
		at, next := tree.Key{Domain: domain, Name: name}, tree.Key{Domain: nextDomain, Name: nextName}
		if matches && (!p.within(&at, nil) || at.Compare(next) < 0 && !p.within(&at, &next)) {
			t.Errorf("%q fits %q, but is not looked for there", text, domain+"/"+name)
		}
		// A range that begins earlier has it, too.
		if earlier := (tree.Key{Domain: domain[:len(domain)/2], Name: nextName}); matches && earlier.Compare(at) <= 0 && !p.within(&earlier, nil) {
			t.Errorf("%q fits %q, but is not looked for from %q on", text, domain+"/"+name, earlier)
		}
	})
}

// FuzzNamed checks that the pattern of a file's name fits that file, and no other.
func FuzzNamed(f *testing.F) {
	f.Add("HomeDomain/Library/SMS/sms.db", "HomeDomain", "Library/SMS/sms.db")
	f.Add("3d0d7e5fb2ce288813306e4d4636395e047a3d28", "D", "[x]")
	f.Add("Manifest.db", "", "")
	f.Fuzz(func(t *testing.T, text, domain, name string) {
		p := Named(text)
		if fits := p.Match(domain, name, "ff/x"); fits && domain+"/"+name != text && !(name == "" && domain == text) {
			t.Errorf("%q fits %q", text, domain+"/"+name)
		}
		if strings.Contains(domain, "/") || domain == "" || isBlobPath(domain+"/"+name) {
			return
		}
		at := tree.Key{Domain: domain, Name: name}
		if own := Named(domain + "/" + name); !own.Match(domain, name, "ff/x") || !own.within(&at, nil) {
			t.Errorf("%q does not fit itself", domain+"/"+name)
		}
	})
}
