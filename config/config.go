// Package config reads snap's configuration file: what its keys are, what their values
// may be, and which profile applies.
//
// A file has profiles. A profile belongs to one repository, and has values for flags of
// commands under the names of these flags. The package never guesses: a key that it does
// not know, a value of another type and a key that is given twice are errors with a line.
// All errors of a file are reported together. The package runs nothing and opens no
// repository; whether a value holds against flags and variables is decided by its users.
package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// MaxSize is the largest size of a configuration file, in bytes.
const MaxSize = 1 << 20

// DefaultProfile is the name of the profile that applies if none is named.
const DefaultProfile = "default"

// File is a configuration file.
type File struct {
	Path     string
	Profiles []*Profile // sorted by name
}

// Profile is what a file says about one repository.
type Profile struct {
	Name    string
	Line    int // of its header
	Values  map[string]Value
	Devices []Device // sorted by alias; those of all profiles and its own
}

// Value is the value of a key.
type Value struct {
	Text string   // as a flag takes it; of a list, all items with commas between them
	List []string // if the key takes a list
	Line int
}

// Device is a device with a name that the user has chosen.
type Device struct {
	Alias   string
	UDID    string
	Retired bool // no backups of it are expected any more
	Line    int
}

// Problem is a mistake in a file.
type Problem struct {
	Line int // 0 if the whole file is meant
	Text string
}

// Error has the mistakes of a file.
type Error struct {
	Path     string
	Problems []Problem // never empty
}

func (e *Error) Error() string {
	var lines []string
	for _, p := range e.Problems {
		lines = append(lines, p.At(e.Path)+": "+p.Text)
	}
	return strings.Join(lines, "\n")
}

// At returns the place of the problem in a file: its path and, if it is known, the line.
func (p Problem) At(path string) string { return At(path, p.Line) }

// At returns a place in a file.
func At(path string, line int) string {
	if line == 0 {
		return path
	}
	return fmt.Sprintf("%s:%d", path, line)
}

// Path returns the path of the file that is read if no other one is named.
func Path() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "snap", "snap.toml"), nil
}

// Load reads a file. The error is an *Error if the file was read and has mistakes; the
// File then has everything that is right.
func Load(path string) (*File, error) {
	text, err := read(path)
	if err != nil {
		return nil, err
	}
	home, _ := os.UserHomeDir() // without a home, a path that begins with ~ is an error
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	file, problems := Parse(text, filepath.Dir(abs), home)
	file.Path = path
	if why := untrusted(path); why != "" {
		for _, p := range file.Profiles {
			if v, ok := p.Values["password-command"]; ok {
				problems = append(problems, Problem{v.Line, "password-command is refused: " + why + ", and could have snap run any command"})
				delete(p.Values, "password-command")
			}
		}
	}
	if len(problems) == 0 {
		return file, nil
	}
	slices.SortStableFunc(problems, func(a, b Problem) int { return a.Line - b.Line })
	return file, &Error{path, problems}
}

func read(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if info.Size() > MaxSize {
		return "", &Error{path, []Problem{{0, fmt.Sprintf("it has more than %d bytes", MaxSize)}}}
	}
	b, err := os.ReadFile(path)
	return string(b), err
}

// Profile returns the profile that applies: the one with this name or, if the name is
// empty, the only one or the one that is called default. It returns nil if the file has no
// profiles and none is named.
func (f *File) Profile(name string) (*Profile, error) {
	var names []string
	for _, p := range f.Profiles {
		if p.Name == name {
			return p, nil
		}
		names = append(names, p.Name)
	}
	switch {
	case name != "" && len(names) == 0:
		return nil, fmt.Errorf("%s has no profile %q, and no other one", f.Path, name)
	case name != "":
		return nil, fmt.Errorf("%s has no profile %q%s; it has %s", f.Path, name, suggest(name, names), strings.Join(names, ", "))
	case len(names) == 0:
		return nil, nil
	case len(names) == 1:
		return f.Profiles[0], nil
	}
	return f.Profile(DefaultProfile)
}

// UDID returns the UDID of the device with this alias. Case does not matter.
func (p *Profile) UDID(alias string) (string, bool) {
	if p == nil {
		return "", false
	}
	for _, d := range p.Devices {
		if strings.EqualFold(d.Alias, alias) {
			return d.UDID, true
		}
	}
	return "", false
}

// parser collects what a file says, and its mistakes.
type parser struct {
	base, home string
	lines      map[string]int
	problems   []Problem
}

// Parse reads the text of a file. Relative paths in it begin at the folder base, and ~ is
// the folder home.
func Parse(text, base, home string) (*File, []Problem) {
	p := &parser{base: base, home: home}
	file := &File{}
	text = strings.TrimPrefix(text, "\ufeff")
	var root map[string]any
	if _, err := toml.Decode(text, &root); err != nil {
		var bad toml.ParseError
		if errors.As(err, &bad) {
			return file, []Problem{{bad.Position.Line, bad.Message}}
		}
		return file, []Problem{{0, err.Error()}}
	}
	p.lines = linesOf(text)
	var shared []Device
	for _, key := range slices.Sorted(maps.Keys(root)) {
		switch key {
		case "profile":
			for name, table := range p.tables(root[key], key) {
				file.Profiles = append(file.Profiles, p.profile(name, table))
			}
		case "devices":
			shared = p.devices(root[key], key)
		default:
			p.unknownAtTop(key)
		}
	}
	slices.SortFunc(file.Profiles, func(a, b *Profile) int { return strings.Compare(a.Name, b.Name) })
	for _, own := range file.Profiles {
		own.Devices = p.join(shared, own.Devices)
	}
	return file, p.problems
}

// line returns the line of a key, or that of the nearest table above it.
func (p *parser) line(path ...string) int {
	for n := len(path); n > 0; n-- {
		if line := p.lines[strings.Join(path[:n], "\x00")]; line > 0 {
			return line
		}
	}
	return 0
}

func (p *parser) wrong(line int, format string, args ...any) {
	p.problems = append(p.problems, Problem{line, fmt.Sprintf(format, args...)})
}

func (p *parser) unknownAtTop(key string) {
	line := p.line(key)
	switch {
	case key == "password":
		p.wrong(line, "%s", noPassword)
	case keys[key] != nil:
		p.wrong(line, "%s belongs into a profile: write [profile.%s] above it", key, DefaultProfile)
	default:
		p.wrong(line, "unknown key %q%s; a file has [profile.NAME] and [devices]", key, suggest(key, []string{"profile", "devices"}))
	}
}

// tables returns the tables in a table.
func (p *parser) tables(v any, path ...string) map[string]map[string]any {
	out := map[string]map[string]any{}
	all, ok := v.(map[string]any)
	if !ok {
		p.wrong(p.line(path...), "%s is not a table; write [%s.%s]", strings.Join(path, "."), strings.Join(path, "."), DefaultProfile)
		return nil
	}
	for name, item := range all {
		table, ok := item.(map[string]any)
		if !ok {
			p.wrong(p.line(append(path, name)...), "%q is not in a profile; write [profile.%s] instead of [profile]", name, DefaultProfile)
			continue
		}
		out[name] = table
	}
	return out
}

// sources are the keys that say where the password comes from. A profile has at most one.
var sources = []string{"password-file", "password-command", "key-file", "keyring"}

// noPassword is the error for a password in a file.
const noPassword = "a password does not belong into this file, which other programs read and back up; use keyring = true and \"snap key remember\", or password-file, or password-command"

func (p *parser) profile(name string, table map[string]any) *Profile {
	out := &Profile{Name: name, Line: p.line("profile", name), Values: map[string]Value{}}
	if bad := badName(name); bad != "" {
		p.wrong(out.Line, "the name of a profile %s", bad)
	}
	for _, key := range slices.Sorted(maps.Keys(table)) {
		line := p.line("profile", name, key)
		k := keys[key]
		switch {
		case key == "devices":
			out.Devices = p.devices(table[key], "profile", name, key)
		case key == "password" || strings.HasSuffix(key, "-password"):
			p.wrong(line, "%s", noPassword)
		case k == nil:
			p.wrong(line, "unknown key %q%s", key, suggest(key, Keys()))
		default:
			v, err := k.parse(p, table[key])
			if err != nil {
				p.wrong(line, "%s: %v", key, err)
				continue
			}
			v.Line = line
			out.Values[key] = v
		}
	}
	given := slices.DeleteFunc(slices.Clone(sources), func(key string) bool {
		v, ok := out.Values[key]
		return !ok || v.Text == "false"
	})
	slices.SortStableFunc(given, func(a, b string) int { return out.Values[a].Line - out.Values[b].Line })
	for i := 1; i < len(given); i++ {
		p.wrong(out.Values[given[i]].Line, "%s and %s cannot be combined; use only one", given[0], given[i])
	}
	return out
}

// devices reads a table of aliases.
func (p *parser) devices(v any, path ...string) []Device {
	table, ok := v.(map[string]any)
	if !ok {
		p.wrong(p.line(path...), "devices is not a table; write [%s] and, below it, lines such as kitchen-ipad = \"UDID\"", strings.Join(path, "."))
		return nil
	}
	var out []Device
	for _, alias := range slices.Sorted(maps.Keys(table)) {
		line := p.line(append(slices.Clone(path), alias)...)
		udid, retired, ok := p.device(table[alias], append(slices.Clone(path), alias)...)
		switch bad := badName(alias); {
		case bad != "":
			p.wrong(line, "the name of a device %s", bad)
		case !ok || !IsUDID(udid):
			p.wrong(line, "device %s: its value is not a UDID such as \"00008110-000A1234567890AB\"; \"snap devices\" and \"snap snapshots\" show the UDIDs", alias)
		case alias == "latest":
			p.wrong(line, "a device cannot be called latest, since this word names the newest snapshot")
		default:
			out = append(out, Device{alias, udid, retired, line})
		}
	}
	return out
}

// device reads the value of an alias: a UDID, or a table with it.
func (p *parser) device(v any, path ...string) (udid string, retired, ok bool) {
	table, isTable := v.(map[string]any)
	if !isTable {
		udid, ok = v.(string)
		return udid, false, ok
	}
	known := []string{"udid", "retired"}
	for _, key := range slices.Sorted(maps.Keys(table)) {
		line := p.line(append(slices.Clone(path), key)...)
		switch key {
		case "udid":
			udid, ok = table[key].(string)
		case "retired":
			var isBool bool
			if retired, isBool = table[key].(bool); !isBool {
				p.wrong(line, "retired: must be true or false, without quotes")
			}
		default:
			p.wrong(line, "unknown key %q%s; a device has udid and retired", key, suggest(key, known))
		}
	}
	return udid, retired, ok
}

// join returns the devices of all profiles and those of one. Two names for a device, and
// two devices with a name, are mistakes.
func (p *parser) join(shared, own []Device) []Device {
	all := slices.Concat(shared, own)
	var out []Device
	for _, d := range all {
		i := slices.IndexFunc(out, func(o Device) bool { return strings.EqualFold(o.Alias, d.Alias) || sameUDID(o.UDID, d.UDID) })
		if i < 0 {
			out = append(out, d)
			continue
		}
		if text := fmt.Sprintf("device %s is given twice: line %d has this name or this UDID, too", d.Alias, out[i].Line); !slices.Contains(p.problems, Problem{d.Line, text}) {
			p.wrong(d.Line, "%s", text)
		}
	}
	slices.SortFunc(out, func(a, b Device) int { return strings.Compare(a.Alias, b.Alias) })
	return out
}

func sameUDID(a, b string) bool {
	plain := func(s string) string { return strings.ToLower(strings.ReplaceAll(s, "-", "")) }
	return plain(a) == plain(b)
}

// IsUDID reports whether s has as many hexadecimal digits as a UDID: 40, or 24 (8, a
// hyphen and 16).
func IsUDID(s string) bool {
	digits := 0
	for _, c := range s {
		switch {
		case '0' <= c && c <= '9', 'a' <= c && c <= 'f', 'A' <= c && c <= 'F':
			digits++
		case c != '-':
			return false
		}
	}
	return digits == 24 || digits == 40
}

// badName says why a text cannot be the name of a profile or a device.
func badName(s string) string {
	switch {
	case strings.TrimSpace(s) != s || s == "":
		return fmt.Sprintf("must not be empty or begin or end with a space: %q", s)
	case utf8.RuneCountInString(s) > 64:
		return "is longer than 64 characters"
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == ':' || r == ',' }):
		return fmt.Sprintf("must not have a colon, a comma or a control character: %q", s)
	}
	return ""
}
