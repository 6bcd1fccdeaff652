package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/snap-backup/snap/config"
	"github.com/spf13/cobra"
)

// settings is what the configuration file says about a run.
type settings struct {
	path    string // --config
	name    string // --profile
	file    *config.File
	profile *config.Profile // nil if none applies
	scope   scope
}

// scope says how far a profile applies to the repository of a run.
type scope int

const (
	scopeNone   scope = iota // another repository: only the names of devices
	scopeMirror              // a mirror of the profile's repository: also its password
	scopeAll
)

// register adds the flags that choose a file and a profile.
func (s *settings) register(cmd *cobra.Command) {
	f := cmd.PersistentFlags()
	f.StringVar(&s.path, "config", "", "configuration `file` (or $SNAP_CONFIG)")
	f.StringVar(&s.name, "profile", "", "use the profile with this `name` of the configuration file (or $SNAP_PROFILE)")
}

// configPath returns the path of the configuration file. named is false if nobody has
// named it, so that it need not exist.
func (s *settings) configPath() (path string, named bool, err error) {
	if path = cmp.Or(s.path, os.Getenv("SNAP_CONFIG")); path != "" {
		return path, true, nil
	}
	path, err = config.Path()
	return path, false, err
}

// unconfigured are the commands that use no configuration file, or report its mistakes
// themselves.
var unconfigured = []string{"", "version", "help", "completion", "__complete", "__completeNoDesc", "demo", "simulate", "generate", "config"}

// configure reads the configuration file for a command.
func (a *app) configure(cmd *cobra.Command) error {
	if first, _, _ := strings.Cut(a.command, " "); slices.Contains(unconfigured, first) {
		return nil
	}
	err := a.loadProfile()
	if err != nil {
		var bad *config.Error
		if errors.As(err, &bad) {
			return advised{usageError{err}, `nothing was done; correct the file; "snap config check" looks for more mistakes`}
		}
		return err
	}
	if err := a.useProfile(cmd); err != nil {
		return err
	}
	for _, name := range []string{"device", "unfinished"} {
		if f := cmd.Flags().Lookup(name); f != nil && f.Changed {
			if err := f.Value.Set(a.deviceName(f.Value.String())); err != nil {
				return usageError{err}
			}
		}
	}
	return nil
}

// loadProfile reads the configuration file, if there is one, and chooses the profile.
func (a *app) loadProfile() error {
	s := &a.settings
	path, named, err := s.configPath()
	chosen := cmp.Or(s.name, os.Getenv("SNAP_PROFILE"))
	if err == nil {
		s.file, err = a.loadConfig(path)
	}
	var bad *config.Error
	switch missing := errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR); {
	case err == nil:
	case errors.As(err, &bad):
		return err
	case named && missing:
		return advised{usageError{fmt.Errorf("the configuration file %s does not exist", path)}, `nothing was done; "snap config init" writes one`}
	case named:
		return usageError{fmt.Errorf("the configuration file %s cannot be read: %w", path, reason(err))}
	case chosen != "":
		return advised{usageError{fmt.Errorf("profile %q is given, but there is no configuration file (%w)", chosen, err)}, `nothing was done; "snap config init" writes one`}
	case !missing && path != "":
		a.warn("the configuration file is not used: %v", err)
	}
	if s.file == nil {
		return nil
	}
	if s.profile, err = s.file.Profile(chosen); err != nil {
		if chosen == "" {
			// Several profiles, and none is the default: commands that need none go on.
			return nil
		}
		return advised{usageError{err}, `nothing was done; "snap config show" shows what applies`}
	}
	return nil
}

// loadConfig reads a configuration file. What it says about repositories shows no password of a
// server.
func (a *app) loadConfig(path string) (*config.File, error) {
	file, err := config.Load(path)
	if err != nil {
		return nil, err
	}
	for _, p := range file.Profiles {
		for _, key := range []string{"repository", "mirrors", "copies"} {
			if v, ok := p.Values[key]; ok {
				v.Text = a.hideLogin(v.Text)
				for i := range v.List {
					v.List[i] = a.hideLogin(v.List[i])
				}
				p.Values[key] = v
			}
		}
	}
	return file, nil
}

// useProfile finds out whether the profile is about the repository of this run, and takes
// what all commands need from it.
func (a *app) useProfile(cmd *cobra.Command) error {
	s := &a.settings
	if s.profile == nil {
		return nil
	}
	s.scope = a.scopeOf(s.profile)
	if s.scope == scopeNone && s.name != "" && a.repoDir == "" {
		a.warn("SNAP_REPOSITORY names another repository than profile %q, and takes precedence over it", s.profile.Name)
	}
	for _, key := range []string{"retry-lock", "no-fsync", "limit-upload", "limit-download", "connections"} {
		if _, err := a.fill(cmd, key); err != nil {
			return err
		}
	}
	return nil
}

// scopeOf says how far a profile applies to the repository that flags and variables name.
func (a *app) scopeOf(p *config.Profile) scope {
	own, ok := p.Values["repository"]
	given := cmp.Or(a.repoDir, a.env("SNAP_REPOSITORY"))
	switch {
	case given == "" || !ok || samePath(given, own.Text):
		return scopeAll
	case slices.ContainsFunc(p.Values["mirrors"].List, func(m string) bool { return samePath(given, m) }):
		return scopeMirror
	}
	return scopeNone
}

// samePath reports whether two paths lead to the same folder.
func samePath(a, b string) bool {
	if isAddress(a) || isAddress(b) {
		return isAddress(a) && isAddress(b) && placeOf(a) == placeOf(b)
	}
	absA, errA := filepath.Abs(a)
	absB, errB := filepath.Abs(b)
	if errA == nil && errB == nil && absA == absB {
		return true
	}
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}

// mirrorKeys are the keys that also apply to mirrors of the profile's repository, which
// have the same keys and passwords. The line of this computer is the same, too.
var mirrorKeys = []string{
	"password-file", "password-command", "key-file", "key-hint", "keyring", "no-fsync", "retry-lock",
	"limit-upload", "limit-download", "connections",
}

// fromFile returns the value of a key of the profile, if the profile is about the
// repository of this run. Flags and variables take precedence; the caller asks them first.
func (a *app) fromFile(key string) (config.Value, bool) {
	s := &a.settings
	if s.profile == nil || s.scope == scopeNone || s.scope == scopeMirror && !slices.Contains(mirrorKeys, key) {
		return config.Value{}, false
	}
	v, ok := s.profile.Values[key]
	return v, ok
}

// place returns where a value is in the configuration file.
func (s *settings) place(v config.Value) string { return config.At(s.file.Path, v.Line) }

// fill sets a flag to the value of the key of the same name, unless it was given. It
// reports whether it did.
func (a *app) fill(cmd *cobra.Command, key string) (bool, error) {
	f := cmd.Flags().Lookup(key)
	v, ok := a.fromFile(key)
	if !ok || f == nil || f.Changed || key == "no-fsync" && os.Getenv("SNAP_NO_FSYNC") != "" {
		return false, nil
	}
	items := []string{v.Text}
	if v.List != nil {
		items = v.List
	}
	for _, item := range items {
		if err := f.Value.Set(item); err != nil {
			return false, usageError{fmt.Errorf("%s: %s: %w", a.settings.place(v), key, err)}
		}
	}
	return true, nil
}

// deviceName returns the UDID of a device that the configuration file gives this name;
// other names are returned unchanged.
func (a *app) deviceName(name string) string {
	if udid, ok := a.settings.profile.UDID(strings.TrimSpace(name)); ok {
		return udid
	}
	return name
}

// deviceNames is deviceName for several names.
func (a *app) deviceNames(names []string) []string {
	out := slices.Clone(names)
	for i, n := range out {
		out[i] = a.deviceName(n)
	}
	return out
}

// spec returns a name of a snapshot in which the name of a device from the configuration
// file is replaced by its UDID.
func (a *app) spec(spec string) string {
	if name, ok := strings.CutPrefix(spec, "latest:"); ok {
		return "latest:" + a.deviceName(name)
	}
	return spec
}

// specs is spec for several names.
func (a *app) specs(specs []string) []string {
	out := slices.Clone(specs)
	for i, s := range out {
		out[i] = a.spec(s)
	}
	return out
}

// eachTarget calls do for the folders in a list of the configuration file, each if it is
// mounted. ways says how to name one instead. If do fails for one of several, the others
// follow, and the first failure decides the exit code.
func (a *app) eachTarget(key, ways string, do func(folder string) error) error {
	v, ok := a.fromFile(key)
	if !ok || len(v.List) == 0 {
		return usageError{fmt.Errorf("no target is given: use %s, or list %s in the configuration file", ways, key)}
	}
	var first error
	there := 0
	for _, folder := range v.List {
		if !isThere(folder) {
			if len(v.List) > 1 {
				a.remark("%s is not mounted, or was not made yet: left out", clean(folder))
			}
			continue
		}
		there++
		if !a.json && !a.quiet && len(v.List) > 1 {
			a.remark("%s:", clean(folder))
		}
		err := do(folder)
		if err == nil || len(v.List) == 1 {
			if first == nil {
				first = err
			}
			continue
		}
		if !isA[silentError](err) {
			code, hint := classify(a.command, err)
			a.printError(err, code, hint)
		}
		if first == nil {
			first = silentError{err}
		}
	}
	if there == 0 {
		return advised{fmt.Errorf("none of the %s in %s is mounted (%s)", key, a.settings.place(v), strings.Join(v.List, ", ")),
			"nothing was done; connect the disk or the share; if a folder is new, name it the first time"}
	}
	return first
}
