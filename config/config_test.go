package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

const sound = `# a comment with repository = "no"
[devices]
kitchen-ipad = "00008110-000A1234567890AB"

[profile.default]
repository = "phones" # relative
password-command = """
repository = "also no"
"""

[profile."the other"]
repository = '~/phones'
keyring = true
keep-daily = 7
limit-upload = 500
limit-download = "2MiB"
connections = 3
keep-yearly = "unlimited"
keep-tag = [
  "a = b", # a list of lines
  'c',
]
mirrors = ["/mnt/one"]
devices = { fridge = "000081100000000000000002" }
`

func TestParse(t *testing.T) {
	base, home := filepath.FromSlash("/etc/snap"), filepath.FromSlash("/home/anna")
	if runtime.GOOS == "windows" {
		base, home = `C:\snap`, `C:\anna`
	}
	// A command is one line.
	text := strings.Replace(sound, "\"\"\"\nrepository = \"also no\"\n\"\"\"", `"cat x"`, 1)
	f, problems := Parse(text, base, home)
	if problems != nil {
		t.Fatal(problems)
	}
	if len(f.Profiles) != 2 {
		t.Fatalf("%d profiles", len(f.Profiles))
	}
	first, second := f.Profiles[0], f.Profiles[1]
	if first.Name != "default" || second.Name != "the other" || first.Line != 5 || second.Line != 9 {
		t.Errorf("profiles %q in line %d, %q in line %d", first.Name, first.Line, second.Name, second.Line)
	}
	for _, want := range []struct {
		p    *Profile
		key  string
		want Value
	}{
		{first, "repository", Value{Text: filepath.Join(base, "phones"), Line: 6}},
		{first, "password-command", Value{Text: "cat x", Line: 7}},
		{second, "repository", Value{Text: filepath.Join(home, "phones"), Line: 10}},
		{second, "keyring", Value{Text: "true", Line: 11}},
		{second, "keep-daily", Value{Text: "7", Line: 12}},
		{second, "keep-yearly", Value{Text: "unlimited", Line: 16}},
		{second, "limit-upload", Value{Text: "500", Line: 13}},
		{second, "limit-download", Value{Text: "2MiB", Line: 14}},
		{second, "connections", Value{Text: "3", Line: 15}},
		{second, "keep-tag", Value{Text: "a = b, c", List: []string{"a = b", "c"}, Line: 17}},
	} {
		if got := want.p.Values[want.key]; !reflect.DeepEqual(got, want.want) {
			t.Errorf("%s is %+v, want %+v", want.key, got, want.want)
		}
	}
	if len(first.Devices) != 1 || len(second.Devices) != 2 || second.Devices[0].Line != 22 {
		t.Errorf("devices %v, %v", first.Devices, second.Devices)
	}
	if udid, ok := second.UDID("Kitchen-iPad"); !ok || udid != "00008110-000A1234567890AB" {
		t.Errorf("got %q", udid)
	}
	if _, ok := first.UDID("fridge"); ok {
		t.Error("a device of another profile is known")
	}
	if _, ok := (*Profile)(nil).UDID("fridge"); ok {
		t.Error("no profile knows a device")
	}
}

// A key in a text of several lines is none, and moves no line.
func TestLines(t *testing.T) {
	lines := linesOf(sound)
	for key, want := range map[string]int{
		"devices": 2, "devices kitchen-ipad": 3, "profile default": 5, "profile default repository": 6,
		"profile the_other": 11, "profile the_other keep-tag": 19, "profile the_other mirrors": 23,
	} {
		path := strings.Fields(key)
		for i := range path {
			path[i] = strings.ReplaceAll(path[i], "_", " ")
		}
		if got := lines[strings.Join(path, "\x00")]; got != want {
			t.Errorf("%s is in line %d, want %d", key, got, want)
		}
	}
}

func TestRetired(t *testing.T) {
	f, problems := Parse("[devices]\na = { udid = '000081100000000000000001', retired = true }\nb = '000081100000000000000002'\n"+
		"[profile.x]\n[profile.x.devices.c]\nudid = '000081100000000000000003'\nretired = false", "/base", "/home")
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	want := []Device{{"a", "000081100000000000000001", true, 2}, {"b", "000081100000000000000002", false, 3}, {"c", "000081100000000000000003", false, 5}}
	if got := f.Profiles[0].Devices; !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestProblems(t *testing.T) {
	for text, want := range map[string]string{
		"profile = 1":                                                           "1: profile is not a table",
		"[profile]\nrepository = 'x'":                                           `2: "repository" is not in a profile`,
		"profiles = 1":                                                          `1: unknown key "profiles"; did you mean "profile"?`,
		"[profile.' a']":                                                        "1: the name of a profile must not be empty",
		"[profile.'a:b']":                                                       "1: the name of a profile must not have a colon",
		"[profile.a]\nmax_age = '1d'":                                           `2: unknown key "max_age"; did you mean "max-age"?`,
		"[profile.a]\nrepo = 'x'":                                               `2: unknown key "repo"; did you mean "repository"?`,
		"[profile.a]\nbandwidth = 'x'":                                          `2: unknown key "bandwidth"`,
		"[profile.a]\nbackup-password = 'x'":                                    "2: a password does not belong into this file",
		"password = 'x'":                                                        "1: a password does not belong into this file",
		"[profile.a]\nrepository = ' '":                                         "2: repository: its value is empty",
		"[profile.a]\nrepository = \"a\\nb\"":                                   "2: repository: its value has a line break",
		"[profile.a]\nrepository = 3":                                           "2: repository: its value is not a text",
		"[profile.a]\nmirrors = ['x', 'x']":                                     "2: mirrors: ",
		"[profile.a]\ncopies = [1]":                                             "2: copies: its value is not a text",
		"[profile.a]\nkeep-within = '1w'":                                       `2: keep-within: "1w" is not a duration`,
		"[profile.a]\nkeep-last = 'all'":                                        "2: keep-last: its value is neither",
		"[profile.a]\nkeep-last = 1.5":                                          "2: keep-last: its value is neither",
		"[profile.a]\nkeyring = true\nkey-file = 'x'":                           "3: keyring and key-file cannot be combined",
		"[profile.a]\nlimit-upload = '2MB'":                                     `2: limit-upload: "2MB" is not a rate such as`,
		"[profile.a]\nlimit-download = true":                                    "2: limit-download: its value is not a text",
		"[profile.a]\nlimit-download = -5":                                      `2: limit-download: "-5" is not a rate`,
		"[profile.a]\nconnections = 0":                                          "2: connections: want a number from 1 to 100",
		"[profile.a]\nconnections = '3'":                                        "2: connections: its value is not a number",
		"[profile.a]\ndevices = 3":                                              "2: devices is not a table",
		"[devices]\nlatest = '000081100000000000000002'":                        "2: a device cannot be called latest",
		"[devices]\n'a,b' = '000081100000000000000002'":                         "2: the name of a device must not have a colon, a comma",
		"[profile.a]\nrepository = 'x'\nrepository = 'y'":                       "3: ",
		"[profile.a]\n[profile.a]":                                              "2: ",
		"[profile.a]\nkeyring = false\npassword-file = '~x/y'":                  "3: password-file: \"~x/y\" begins with the home folder",
		"[devices]\na = { udid = '000081100000000000000002', retired = 'yes' }": "2: retired: must be true or false",
		"[devices.a]\nudid = '000081100000000000000002'\nretierd = true":        `3: unknown key "retierd"; did you mean "retired"?`,
		"[devices]\na = { retired = true }":                                     "2: device a: its value is not a UDID",
	} {
		f, problems := Parse(text, "/base", "/home")
		err := &Error{"f", problems}
		if len(problems) != 1 || !strings.Contains(err.Error(), "f:"+want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
		if f == nil {
			t.Errorf("%q: no file", text)
		}
	}
	if _, problems := Parse("[profile.a]\nkey-file = '~/x'", "/base", ""); len(problems) != 1 || !strings.Contains(problems[0].Text, "HOME") {
		t.Errorf("without a home: %v", problems)
	}
}

func TestProfile(t *testing.T) {
	parse := func(text string) *File { f, _ := Parse(text, "/", "/"); f.Path = "f"; return f }
	none, one := parse(""), parse("[profile.a]")
	several, def := parse("[profile.a]\n[profile.b]"), parse("[profile.a]\n[profile.default]")
	for i, c := range []struct {
		f          *File
		name, want string
		fails      bool
	}{
		{none, "", "", false}, {none, "a", "", true}, {one, "", "a", false}, {one, "a", "a", false}, {one, "b", "", true},
		{several, "", "", true}, {several, "b", "b", false}, {def, "", "default", false}, {def, "a", "a", false},
	} {
		p, err := c.f.Profile(c.name)
		if (err != nil) != c.fails || p == nil && c.want != "" || p != nil && p.Name != c.want {
			t.Errorf("case %d: %v, %v", i, p, err)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "snap.toml")
	if _, err := Load(name); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	write := func(text string, mode os.FileMode) {
		t.Helper()
		if err := errors.Join(os.WriteFile(name, []byte(text), mode), os.Chmod(name, mode)); err != nil {
			t.Fatal(err)
		}
	}
	write("\ufeff[profile.a]\nrepository = 'x'\n", 0o666)
	f, err := Load(name)
	if err != nil || f.Profiles[0].Values["repository"].Text != filepath.Join(dir, "x") {
		t.Errorf("with a byte order mark: %v", err)
	}
	var bad *Error
	write(strings.Repeat("#", MaxSize+1), 0o600)
	if _, err = Load(name); !errors.As(err, &bad) || !strings.Contains(err.Error(), "more than") {
		t.Errorf("a large file: %v", err)
	}
	write("[profile.a]\npassword-command = 'x'\n", 0o600)
	if _, err = Load(name); err != nil {
		t.Error(err)
	}
	if runtime.GOOS == "windows" {
		return
	}
	write("[profile.a]\npassword-command = 'x'\n", 0o620)
	f, err = Load(name)
	if !errors.As(err, &bad) || bad.Problems[0].Line != 2 || len(f.Profiles[0].Values) != 0 {
		t.Errorf("a file that others can write: %v", err)
	}
}

// Any text gives a file and problems with lines of the text.
func FuzzParse(f *testing.F) {
	f.Add(sound)
	f.Add("[devices]\nb = { udid = '000081100000000000000002', retired = true }\n")
	f.Add("[devices]\na = 'x'\n[profile.a]\nx = '''\n'''")
	f.Add("[[profile]]\n[profile.a.b]\n")
	f.Add("profile.a.repository = 'x'\nprofile.a.devices.b = \"00008110-000A1234567890AB\"")
	f.Fuzz(func(t *testing.T, text string) {
		file, problems := Parse(text, "/base", "/home")
		lines := strings.Count(text, "\n") + 1
		for _, p := range problems {
			if p.Line < 0 || p.Line > lines || p.Text == "" {
				t.Errorf("problem %+v in a text of %d lines", p, lines)
			}
		}
		for _, p := range file.Profiles {
			for key, v := range p.Values {
				if keys[key] == nil || v.Line < 0 || v.Line > lines {
					t.Errorf("%s is %+v", key, v)
				}
			}
		}
	})
}
