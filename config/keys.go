package config

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/snap-backup/snap/internal/words"
	"github.com/snap-backup/snap/repo/backend/limit"
	"github.com/snap-backup/snap/repo/keep"
)

// key is a key of a profile.
type key struct {
	parse func(p *parser, v any) (Value, error)
}

// keys are the keys of a profile. Those that are also flags have the names of the flags.
var keys = map[string]*key{
	"repository":       {pathValue},
	"password-file":    {pathValue},
	"password-command": {textValue},
	"key-file":         {pathValue},
	"key-hint":         {textValue},
	"keyring":          {boolValue},
	"no-fsync":         {boolValue},
	"retry-lock":       {waitValue},
	"limit-upload":     {rateValue},
	"limit-download":   {rateValue},
	"connections":      {connectionsValue},
	"max-age":          {durationValue},
	"spool-dir":        {pathValue},
	"spool-limit":      {textValue},
	"mirrors":          {listOf(pathValue)},
	"copies":           {listOf(pathValue)},

	"arrival":       {boolValue},
	"keep-last":     {countValue},
	"keep-hourly":   {countValue},
	"keep-daily":    {countValue},
	"keep-weekly":   {countValue},
	"keep-monthly":  {countValue},
	"keep-yearly":   {countValue},
	"keep-verified": {countValue},
	"keep-tag":      {listOf(textValue)},

	"keep-within":         {durationValue},
	"keep-within-hourly":  {durationValue},
	"keep-within-daily":   {durationValue},
	"keep-within-weekly":  {durationValue},
	"keep-within-monthly": {durationValue},
	"keep-within-yearly":  {durationValue},
}

// Keys returns the names of the keys of a profile, sorted.
func Keys() []string { return slices.Sorted(maps.Keys(keys)) }

func textValue(_ *parser, v any) (Value, error) {
	s, ok := v.(string)
	switch {
	case !ok:
		return Value{}, errors.New("its value is not a text in quotes")
	case strings.TrimSpace(s) == "":
		return Value{}, errors.New("its value is empty")
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
		return Value{}, errors.New("its value has a line break or a control character")
	}
	return Value{Text: s}, nil
}

func pathValue(p *parser, v any) (Value, error) {
	out, err := textValue(p, v)
	if err == nil {
		out.Text, err = resolve(out.Text, p.base, p.home)
	}
	return out, err
}

// address fits what is not a path, but an address such as s3:https://HOST/BUCKET. A letter
// before the colon is a drive of Windows.
var address = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.@-]+:`)

// resolve returns an absolute path. A relative one begins at the folder of the file, not
// at the working directory, which is another one in a scheduled job.
func resolve(path, base, home string) (string, error) {
	rest, tilde := strings.CutPrefix(path, "~")
	switch {
	case tilde && rest != "" && rest[0] != '/' && rest[0] != '\\':
		return "", fmt.Errorf("%q begins with the home folder of another user; write the path in full", path)
	case tilde && home == "":
		return "", fmt.Errorf("%q needs a home folder, and HOME is not set; write the path in full", path)
	case tilde:
		return filepath.Join(home, filepath.FromSlash(rest)), nil
	case filepath.IsAbs(path) || address.MatchString(path):
		return path, nil
	}
	return filepath.Join(base, filepath.FromSlash(path)), nil
}

func boolValue(_ *parser, v any) (Value, error) {
	b, ok := v.(bool)
	if !ok {
		return Value{}, errors.New("its value is neither true nor false")
	}
	return Value{Text: strconv.FormatBool(b)}, nil
}

func countValue(_ *parser, v any) (Value, error) {
	n, ok := v.(int64)
	switch {
	case v == "unlimited":
		return Value{Text: "unlimited"}, nil
	case !ok || n < 1 || n > 1<<30:
		return Value{}, errors.New(`its value is neither a number of at least 1 nor "unlimited"`)
	}
	return Value{Text: strconv.FormatInt(n, 10)}, nil
}

func durationValue(p *parser, v any) (Value, error) {
	out, err := textValue(p, v)
	if err == nil {
		_, err = keep.ParseDuration(out.Text)
	}
	return out, err
}

func waitValue(p *parser, v any) (Value, error) {
	out, err := textValue(p, v)
	if err != nil {
		return out, err
	}
	if d, err := time.ParseDuration(out.Text); err != nil || d < 0 {
		return out, fmt.Errorf("%q is not a duration such as 5m or 90s", out.Text)
	}
	return out, nil
}

// rateValue is a text such as "2MiB", or a number of KiB per second.
func rateValue(p *parser, v any) (Value, error) {
	if n, ok := v.(int64); ok {
		v = strconv.FormatInt(n, 10)
	}
	out, err := textValue(p, v)
	if err == nil {
		_, err = limit.ParseRate(out.Text)
	}
	return out, err
}

func connectionsValue(_ *parser, v any) (Value, error) {
	n, ok := v.(int64)
	if !ok {
		return Value{}, errors.New("its value is not a number")
	}
	text := strconv.FormatInt(n, 10)
	_, err := limit.ParseConnections(text)
	return Value{Text: text}, err
}

func listOf(one func(*parser, any) (Value, error)) func(*parser, any) (Value, error) {
	return func(p *parser, v any) (Value, error) {
		items, ok := v.([]any)
		if !ok {
			return Value{}, errors.New(`its value is not a list such as ["one", "two"]`)
		}
		out := Value{List: []string{}}
		for _, item := range items {
			x, err := one(p, item)
			if err != nil {
				return Value{}, err
			}
			if slices.Contains(out.List, x.Text) {
				return Value{}, fmt.Errorf("%q is in the list twice", x.Text)
			}
			out.List = append(out.List, x.Text)
		}
		out.Text = strings.Join(out.List, ", ")
		return out, nil
	}
}

// suggest returns "; did you mean …?" if a name is close to one of others.
func suggest(name string, others []string) string {
	best, least := "", 3 // more than two wrong letters are no typing error
	for _, o := range others {
		if d := words.Distance(strings.ToLower(strings.ReplaceAll(name, "_", "-")), o); d < least {
			best, least = o, d
		}
	}
	for _, o := range others {
		if best == "" && len(name) >= 3 && (strings.HasPrefix(o, name) || strings.HasPrefix(name, o)) {
			best = o
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}
