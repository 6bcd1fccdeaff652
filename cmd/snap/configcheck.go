package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/snap-backup/snap/config"
	"github.com/snap-backup/snap/repo"
	"github.com/spf13/cobra"
)

// checkedConfig is the output of config check.
type checkedConfig struct {
	File     string          `json:"file"`
	Profiles []string        `json:"profiles"`
	Mistakes []configMistake `json:"mistakes"`
	Notes    []configMistake `json:"notes"` // what could not be checked, or is no mistake
}

type configMistake struct {
	Line int    `json:"line,omitempty"`
	Text string `json:"text"`
}

func (c *checkedConfig) wrong(line int, format string, args ...any) {
	c.Mistakes = append(c.Mistakes, configMistake{line, fmt.Sprintf(format, args...)})
}

func (c *checkedConfig) note(line int, format string, args ...any) {
	c.Notes = append(c.Notes, configMistake{line, fmt.Sprintf(format, args...)})
}

func (a *app) configCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Look for mistakes in the configuration file",
		Long: `Looks for unknown keys and wrong values, for folders and files that do not
exist, and for a password-command in a file that others can write. If the
repository can be opened without a question for its password, it also looks for
devices that have no snapshot there. Exits with 1 if it finds a mistake.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			res, err := a.checkConfig(cmd)
			if err != nil {
				return err
			}
			err = a.conclude(res, len(res.Mistakes) > 0, func(w io.Writer) {
				for _, m := range res.Mistakes {
					fmt.Fprintf(w, "MISTAKE  %s: %s\n", clean(config.At(res.File, m.Line)), clean(m.Text))
				}
				for _, m := range res.Notes {
					fmt.Fprintf(w, "NOTE     %s: %s\n", clean(config.At(res.File, m.Line)), clean(m.Text))
				}
				if len(res.Mistakes) == 0 {
					fmt.Fprintf(w, "no mistakes in %s (%s)\n", clean(res.File), plural(len(res.Profiles), "profile"))
				}
			})
			if err == nil && len(res.Mistakes) > 0 {
				err = silentError{errMistakes}
			}
			return err
		},
	}
}

func (a *app) checkConfig(cmd *cobra.Command) (*checkedConfig, error) {
	path, _, err := a.settings.configPath()
	if err != nil {
		return nil, err
	}
	res := &checkedConfig{File: path, Profiles: []string{}, Mistakes: []configMistake{}, Notes: []configMistake{}}
	file, err := a.loadConfig(path)
	var bad *config.Error
	switch {
	case errors.As(err, &bad):
		for _, p := range bad.Problems {
			res.wrong(p.Line, "%s", p.Text)
		}
	case errors.Is(err, fs.ErrNotExist):
		return nil, advised{usageError{fmt.Errorf("the configuration file %s does not exist", path)}, `"snap config init" writes one`}
	case err != nil:
		return nil, fmt.Errorf("the configuration file %s cannot be read: %w", path, reason(err))
	}
	if file == nil { // too large
		return res, nil
	}
	for _, p := range file.Profiles {
		res.Profiles = append(res.Profiles, p.Name)
		a.checkProfile(res, p)
	}
	if len(file.Profiles) == 0 && len(res.Mistakes) == 0 {
		res.note(0, "it has no profile, so it says nothing about repositories")
	}
	if len(file.Profiles) > 1 && !slices.Contains(res.Profiles, config.DefaultProfile) {
		res.note(0, "none of its profiles is called %s, so every command needs --profile NAME or SNAP_PROFILE", config.DefaultProfile)
	}
	if err := a.loadProfile(); err != nil && bad == nil {
		res.wrong(0, "%v", err) // a profile of another name was chosen
	}
	if a.settings.profile != nil && bad == nil {
		if err := a.useProfile(cmd); err != nil {
			return nil, err
		}
		a.checkDevices(cmd.Context(), res)
	}
	return res, cmd.Context().Err()
}

// checkProfile looks for folders and files that do not exist.
func (a *app) checkProfile(res *checkedConfig, p *config.Profile) {
	own, ok := p.Values["repository"]
	if !ok {
		res.note(p.Line, "profile %s has no repository, so -r or SNAP_REPOSITORY must name it", p.Name)
	} else if err := checkAddress(own.Text); err != nil {
		res.wrong(own.Line, "repository: %v", err)
	} else if _, err := os.Stat(own.Text); err != nil && !isAddress(own.Text) {
		res.wrong(own.Line, "repository: %s: %v; connect the disk or the share, or correct the path", own.Text, reason(err))
	}
	for _, key := range []string{"password-file", "key-file"} {
		v, ok := p.Values[key]
		if !ok {
			continue
		}
		info, err := os.Stat(v.Text)
		switch {
		case err != nil:
			res.wrong(v.Line, "%s: %s: %v", key, v.Text, reason(err))
		case readableByAll(v.Text, info):
			res.wrong(v.Line, "%s: every user of this computer can read %s; to keep it to yourself: chmod 600 '%s'", key, v.Text, v.Text)
		}
	}
	if v, ok := p.Values["spool-limit"]; ok {
		if _, err := parseSize(v.Text); err != nil {
			res.wrong(v.Line, "spool-limit: %v", err)
		}
	}
	for _, key := range []string{"mirrors", "copies"} {
		v := p.Values[key]
		for _, folder := range v.List {
			switch {
			case ok && checkApart(own.Text, folder) != nil:
				res.wrong(v.Line, "%s: %s and the repository %s overlap", key, folder, own.Text)
			case !isThere(folder):
				res.note(v.Line, "%s: %s is not mounted, or was not made yet", key, folder)
			}
		}
	}
	if v, ok := p.Values["spool-dir"]; ok {
		if _, err := os.Stat(filepath.Dir(v.Text)); err != nil {
			res.wrong(v.Line, "spool-dir: %s: %v", filepath.Dir(v.Text), reason(err))
		}
	}
}

// checkDevices looks for devices of the profile that the repository does not know, if it
// can be opened without a question.
func (a *app) checkDevices(ctx context.Context, res *checkedConfig) {
	p := a.settings.profile
	dir, err := a.location()
	if err != nil || !isThere(dir) {
		return
	}
	a.neverAsk = true
	r, err := a.open(ctx)
	if errors.Is(err, errNotAsked) {
		if v, ok := a.fromFile("keyring"); ok && v.Text == "true" {
			res.wrong(v.Line, `keyring: the keyring does not give a password for this repository; "snap key remember" stores it`)
		} else if len(p.Devices) > 0 {
			res.note(p.Line, "the devices were not looked up, since the repository cannot be opened without a question")
		}
		return
	}
	if err != nil {
		res.wrong(p.Line, "the repository %s cannot be opened: %v", dir, err)
		return
	}
	list, damaged, err := r.Snapshots(ctx)
	if err != nil {
		res.note(p.Line, "the devices were not looked up: %v", err)
		return
	}
	a.warnOfRecords(damaged)
	for _, d := range p.Devices {
		known := slices.ContainsFunc(list, func(s *repo.Snapshot) bool { return repo.SameDevice(s.Device.UDID, d.UDID) })
		switch {
		case known:
		case d.Retired:
			res.note(d.Line, "device %s is retired, and the repository has no snapshot of %s", d.Alias, d.UDID)
		default:
			res.wrong(d.Line, "device %s: the repository has no snapshot of %s", d.Alias, d.UDID)
		}
	}
}

// isThere reports whether a folder has a repository. A folder that is empty or missing may
// be the place where a disk is mounted at other times.
func isThere(dir string) bool {
	if isAddress(dir) {
		return true
	}
	for _, name := range []string{"config", "packs"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return true
		}
	}
	return false
}
