package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/snap-backup/snap/config"
	"github.com/snap-backup/snap/device/ingest/receive"
	"github.com/snap-backup/snap/status"
	"github.com/spf13/cobra"
)

// errMistakes says that a configuration file has mistakes.
var errMistakes = errors.New("the configuration file has mistakes")

func (a *app) configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Write, show and check the configuration file",
		Long: `A configuration file says which repository to use, where its password comes
from, which snapshots "snap forget" keeps, which mirrors and copies there are,
and what you call your devices. It is snap/snap.toml in the folder that the
system has for such files, or the file that --config or SNAP_CONFIG names. Flags
take precedence over variables, and variables over the file.

Each repository has a profile in the file. If there is only one profile, or one
that is called default, nobody needs to name it. --profile or SNAP_PROFILE
chooses another one. docs/guide.md lists the keys.`,
		Args: suggest,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },

		SuggestionsMinimumDistance: 2,
	}
	cmd.AddCommand(a.configInitCommand(), a.configShowCommand(), a.configCheckCommand())
	return cmd
}

// source says where a value comes from.
type source string

const (
	fromFlag        source = "flag"
	fromEnvironment source = "environment"
	fromConfig      source = "file"
	fromKeyring     source = "keyring"
	fromDefault     source = "default"
)

// shownValue is a value that applies.
type shownValue struct {
	Key    string `json:"key"`
	Value  string `json:"value"`
	Source source `json:"source"`
	Name   string `json:"name,omitempty"` // of the flag or the variable
	Line   int    `json:"line,omitempty"` // in the file

	list []string
}

// shownConfig is the output of config show.
type shownConfig struct {
	File    string        `json:"file,omitempty"`
	Profile string        `json:"profile,omitempty"`
	Values  []shownValue  `json:"values"`
	Devices []shownDevice `json:"devices"`
	// Unused says why values of the profile are not in Values.
	Unused string `json:"unused,omitempty"`
}

type shownDevice struct {
	Alias   string `json:"alias"`
	UDID    string `json:"udid"`
	Retired bool   `json:"retired,omitempty"`
	Line    int    `json:"line"`
}

// givers are the flags and variables that take precedence over keys of the file. Those of
// other keys belong to single commands.
var givers = []struct{ key, flag, variable string }{
	{"repository", "repo", "SNAP_REPOSITORY"},
	{"key-hint", "key-hint", "SNAP_KEY_HINT"},
	{"no-fsync", "no-fsync", "SNAP_NO_FSYNC"},
	{"retry-lock", "retry-lock", ""},
	{"limit-upload", "limit-upload", ""},
	{"limit-download", "limit-download", ""},
	{"connections", "connections", ""},
}

// passwordGivers are the ways to give a password, in their order of precedence. A key
// without a flag and a variable is one of the file.
var passwordGivers = []struct{ key, flag, variable string }{
	{"key-file", "key-file", ""},
	{"password-file", "password-file", ""},
	{"password-command", "password-command", ""},
	{"password", "", "SNAP_PASSWORD"},
	{"password-file", "", "SNAP_PASSWORD_FILE"},
	{"password-command", "", "SNAP_PASSWORD_COMMAND"},
	{"password-file", "", ""},
	{"password-command", "", ""},
	{"key-file", "", ""},
	{"keyring", "", ""},
}

// defaults are the values of keys that are not given, if there are any.
var defaults = map[string]string{
	"max-age":     status.DefaultRules.MaxAge.String(),
	"no-fsync":    "false",
	"retry-lock":  "0s",
	"spool-limit": bytesFlag(receive.DefaultSpoolLimit),
}

func (a *app) configShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show",
		Short: "Show which values apply, and where they come from",
		Long: `Shows the values that apply to a command with the same flags and variables, and
whether each comes from a flag, a variable or the configuration file (with its
line), or is the default. Passwords are not shown.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.loadProfile(); err != nil {
				return configError(err)
			}
			if err := a.useProfile(cmd); err != nil {
				return err
			}
			res := a.showConfig(cmd)
			return a.print(res, func(w io.Writer) { printConfig(w, res) })
		},
	}
}

// configError adds to the mistakes of a file what to do.
func configError(err error) error {
	if isA[*config.Error](err) {
		return advised{usageError{err}, `correct the file; "snap config check" looks for more mistakes`}
	}
	return err
}

func (a *app) showConfig(cmd *cobra.Command) *shownConfig {
	s := &a.settings
	res := &shownConfig{Values: []shownValue{}, Devices: []shownDevice{}}
	if s.file != nil {
		res.File = s.file.Path
	}
	if s.profile != nil {
		res.Profile = s.profile.Name
		for _, d := range s.profile.Devices {
			res.Devices = append(res.Devices, shownDevice(d))
		}
		switch s.scope {
		case scopeNone:
			res.Unused = "another repository than that of the profile is given, so only the names of devices apply"
		case scopeMirror:
			res.Unused = "the repository is a mirror of that of the profile, so only the password and the names of devices apply"
		}
	}
	known := map[string]bool{"password-file": true, "password-command": true, "key-file": true, "keyring": true}
	for _, g := range givers {
		if v := a.shown(cmd, g.key, g.flag, g.variable); v != nil {
			res.Values = append(res.Values, *v)
		}
		known[g.key] = true
		if g.key == "repository" {
			res.Values = append(res.Values, a.shownPassword(cmd))
		}
	}
	for _, key := range config.Keys() {
		if v := a.shown(cmd, key, "", ""); v != nil && !known[key] {
			res.Values = append(res.Values, *v)
		}
	}
	return res
}

// shown returns the value of a key that applies, or nil if there is none. A flag that was
// filled from the file does not count as given.
func (a *app) shown(cmd *cobra.Command, key, flag, variable string) *shownValue {
	if f := cmd.Flags().Lookup(flag); flag != "" && f != nil && f.Changed {
		return &shownValue{Key: key, Value: f.Value.String(), Source: fromFlag, Name: "--" + flag}
	}
	if v := a.env(variable); variable != "" && v != "" {
		if variable == "SNAP_PASSWORD" {
			v = "(not shown)"
		}
		return &shownValue{Key: key, Value: v, Source: fromEnvironment, Name: variable}
	}
	if v, ok := a.fromFile(key); ok {
		return &shownValue{Key: key, Value: v.Text, Source: fromConfig, Line: v.Line, list: v.List}
	}
	if v, ok := defaults[key]; ok {
		return &shownValue{Key: key, Value: v, Source: fromDefault}
	}
	return nil
}

// shownPassword says where the password of the repository comes from.
func (a *app) shownPassword(cmd *cobra.Command) shownValue {
	for i, g := range passwordGivers {
		v := a.shown(cmd, g.key, g.flag, g.variable)
		given := g.flag != "" || g.variable != ""
		// A key of the file counts only in its own place of the order.
		if v == nil || given != (v.Source != fromConfig) || passwordGivers[i].key == "keyring" && v.Value == "false" {
			continue
		}
		return *v
	}
	if a.isRemembered(cmd.Context()) {
		return shownValue{Key: "keyring", Value: "remembered", Source: fromKeyring}
	}
	return shownValue{Key: "password", Value: "(asked for)", Source: fromDefault}
}

// isRemembered reports whether a password of the repository was remembered.
func (a *app) isRemembered(ctx context.Context) bool {
	dir, err := a.location()
	if err != nil {
		return false
	}
	be, err := a.openFolder(ctx, dir)
	if err != nil {
		return false
	}
	defer be.Close()
	n, err := noteOf(ctx, be)
	if err != nil {
		return false
	}
	id, err := n.id()
	v, ok := a.fromFile("keyring")
	return err == nil && id != "" && (!ok || v.Text != "false")
}

func printConfig(w io.Writer, c *shownConfig) {
	switch {
	case c.File == "":
		fmt.Fprintln(w, "no configuration file")
	case c.Profile == "":
		fmt.Fprintf(w, "%s: no profile applies\n", clean(c.File))
	default:
		fmt.Fprintf(w, "%s, profile %s\n", clean(c.File), clean(c.Profile))
	}
	if c.Unused != "" {
		fmt.Fprintln(w, c.Unused)
	}
	var rows []string
	for _, v := range c.Values {
		from := string(v.Source)
		switch {
		case v.Name != "":
			from += " " + v.Name
		case v.Line > 0:
			from += fmt.Sprintf(", line %d", v.Line)
		}
		items := v.list
		if items == nil {
			items = []string{v.Value}
		}
		for _, item := range items {
			rows = append(rows, fmt.Sprintf("%s\t%s\t%s", v.Key, clean(item), from))
		}
	}
	for _, d := range c.Devices {
		value := d.UDID
		if d.Retired {
			value += ", retired"
		}
		rows = append(rows, fmt.Sprintf("device %s\t%s\tfile, line %d", clean(d.Alias), value, d.Line))
	}
	fmt.Fprintln(w)
	table(w, "KEY\tVALUE\tFROM", rows)
}
