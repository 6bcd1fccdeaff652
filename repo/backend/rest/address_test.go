package rest_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/snap-backup/snap/repo/backend/rest"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		address, host, path, shown string
		user, password             rest.Secret
	}{
		{"rest:https://nas:8000/phones", "nas:8000", "/phones/", "rest:https://nas:8000/phones", "", ""},
		{"rest:https://NAS/", "nas", "/", "rest:https://nas", "", ""},
		{"rest:https://nas", "nas", "/", "rest:https://nas", "", ""},
		{"rest:HTTP://[::1]:8000/a/b//", "[::1]:8000", "/a/b/", "rest:http://[::1]:8000/a/b", "", ""},
		{"rest:https://anna:hunter2@nas/a%20b/%C3%A4%40", "nas", "/a b/ä@/", "rest:https://nas/a%20b/%C3%A4%40", "anna", "hunter2"},
		{"rest:https://anna@nas/", "nas", "/", "rest:https://nas", "anna", ""},
		{"rest:https://a%40b:p%3Aq%2Fr@x@nas/", "nas", "/", "rest:https://nas", "a@b", "p:q/r@x"},
	} {
		c, err := rest.Parse(tt.address)
		if err != nil || c.Host != tt.host || c.Path != tt.path || c.String() != tt.shown || c.User != tt.user || c.Password != tt.password {
			t.Errorf("Parse(%q) = %+v %q %q, %v", tt.address, c, c.Host, c.Path, err)
		}
		if s := fmt.Sprintf("%v %+v %#v %q", c, c, c, c); strings.Contains(s, "hunter2") {
			t.Errorf("%s shows the password", s)
		}
	}
	for address, why := range map[string]string{
		"":                                 "begins with rest:",
		"rest:nas/phones":                  "neither https:// nor http://",
		"rest:ftp://nas/":                  "neither https:// nor http://",
		"rest://nas/phones":                "neither https:// nor http://",
		"rest:https:///phones":             "no host",
		"rest:https://nas:0/":              "port",
		"rest:https://-nas/":               "name of a computer",
		"rest:https://nas//a":              "two slashes",
		"rest:https://nas/a/../b":          "..",
		"rest:https://nas/%2e%2e/b":        "..",
		"rest:https://nas/%zz":             "two hex digits",
		"rest:https://nas/a\\b":            `\`,
		"rest:https://nas/a%00":            "control",
		"rest:https://nas/%ff":             "UTF-8",
		"rest:https://nas/" + long:         "longer than",
		"rest:https://u:hunt/er2@nas/":     "%40 for @",
		"rest:https://nas/a?p=hunter2":     "%3F",
		"rest:https://u:h#hunter2@nas/":    "%23",
		"rest:https://u:%hunter2@nas/":     "%25",
		"rest:https://:hunter2@nas/":       "SNAP_REST_USER",
		"rest:https://u:hunter2%0a@nas/":   "control character",
		"rest:https://u:hunter2@nas:x/":    "port",
		"rest:https://u:hunter2@/path":     "no host",
		"rest:https://u:hunter2@nas/../":   "..",
		"rest:u:hunter2@nas/phones":        "neither",
		"rest:httpss://u:hunter2@nas/path": "neither",
	} {
		_, err := rest.Parse(address)
		if err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("Parse(%.50q) = %v, want %q", address, err, why)
		}
		if err != nil && (strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "er2")) {
			t.Errorf("%v shows a secret", err)
		}
	}
}

var long = strings.Repeat("a", 801)

func TestRedact(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"rest:https://u:p@nas/a":   "rest:https://nas/a",
		"rest:https://u:p/q@nas/a": "rest:https://nas/a",
		"rest:https://nas/a":       "rest:https://nas/a",
		"/folder/a@b":              "/folder/a@b",
		"sftp://a@b//c":            "sftp://a@b//c",
	} {
		if got := rest.Redact(address); got != want {
			t.Errorf("Redact(%q) = %q, want %q", address, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, address := range []string{
		"rest:https://nas:8000/phones", "rest:http://[::1]/a%20b/", "rest:https://anna:hunter2@nas/", "rest:https://u:p/q@nas/", "rest:https://a@b@c/%40",
	} {
		f.Add(address)
	}
	f.Fuzz(func(t *testing.T, address string) {
		c, err := rest.Parse(address)
		shown := c.String()
		if err != nil {
			shown = err.Error()
		}
		if _, login, ok := strings.Cut(address, "://"); ok {
			if at := strings.LastIndex(login, "@"); at > 20 && strings.Contains(shown, login[:at]) {
				t.Errorf("%q shows what may be a password", shown)
			}
		}
		if err != nil {
			return
		}
		again, err := rest.Parse(shown)
		if err != nil || again.Host != c.Host || again.Path != c.Path || again.HTTP != c.HTTP || again.User != "" || again.String() != shown {
			t.Errorf("Parse(%q) = %+v, but Parse(%q) = %+v, %v", address, c, shown, again, err)
		}
	})
}
