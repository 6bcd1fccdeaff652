package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/snap-backup/snap/config"
	"github.com/spf13/cobra"
)

// newConfig is what config init asks for.
type newConfig struct {
	repository string
	source     string // a key of the file, or "" to be asked for the password
	value      string // of that key, as TOML
	file       string // the value, if it is a file
	devices    []string
	yes        bool
	keyring    bool
}

func (a *app) configInitCommand() *cobra.Command {
	var n newConfig
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Write a configuration file",
		Long: `Writes a configuration file with comments. At a terminal it asks for what flags
do not say: where the repository is, and where its password comes from. With
--yes it asks nothing. It never replaces a file, and stores no password: "snap
key remember" does that.`,
		Example: "  snap config init\n  snap config init --yes -r /mnt/nas/phones --keyring",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.initConfig(cmd.Context(), &n) },
	}
	f := cmd.Flags()
	f.BoolVar(&n.yes, "yes", false, "ask nothing: use the flags, and the defaults for the rest")
	f.BoolVar(&n.keyring, "keyring", false, "take the password from the keyring of this computer")
	f.StringArrayVar(&n.devices, "device", nil, "a name for a device, as `name=UDID` (can be repeated)")
	return cmd
}

func (a *app) initConfig(ctx context.Context, n *newConfig) error {
	path, _, err := a.settings.configPath()
	if err != nil {
		return err
	}
	if _, err := os.Lstat(path); err == nil {
		return configExists(path)
	}
	if err := a.askConfig(ctx, n); err != nil {
		return orInterrupted(ctx, err, "nothing was written")
	}
	text, err := n.text(a.settings.name)
	if err != nil {
		return err
	}
	// What is written must be readable, whatever the answers were.
	abs, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	home, _ := os.UserHomeDir()
	if _, problems := config.Parse(text, filepath.Dir(abs), home); len(problems) > 0 {
		return usageError{fmt.Errorf("%s; nothing was written", problems[0].Text)}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := writeNew(path, text); err != nil {
		return err
	}
	res := struct {
		File       string `json:"file"`
		Repository string `json:"repository"`
	}{path, n.repository}
	return a.conclude(res, false, func(w io.Writer) {
		fmt.Fprintf(w, "wrote %s\n", clean(path))
		if n.source == "keyring" {
			a.remark("\"snap key remember\" stores the password in the keyring.")
		}
		if _, err := os.Stat(n.file); n.source == "password-file" && err != nil {
			a.remark("There is no file %s yet: write the password into its first line.", clean(n.file))
		}
		if !isThere(n.repository) {
			a.remark("There is no repository in %s yet: \"snap init\" makes one.", clean(n.repository))
		}
	})
}

func configExists(path string) error {
	return advised{usageError{fmt.Errorf("%s exists already", path)}, `nothing was changed; edit this file, or write another one with --config FILE`}
}

// writeNew writes a private file that must not exist yet.
func writeNew(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return configExists(path)
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// askConfig takes the answers from flags and, at a terminal, asks for the others.
func (a *app) askConfig(ctx context.Context, n *newConfig) error {
	ask := a.canAsk() && !n.yes
	n.repository = a.repoDir
	if n.repository == "" {
		n.repository = a.env("SNAP_REPOSITORY")
	}
	if a.repoDir == "" && ask {
		line, err := a.askDefault(ctx, "folder of the repository", n.repository)
		if err != nil {
			return err
		}
		n.repository = a.hideLogin(line)
	}
	if n.repository == "" {
		return usageError{errors.New("no repository is given: use -r FOLDER")}
	}
	if err := checkAddress(n.repository); err != nil {
		return err
	}
	var err error
	if !isAddress(n.repository) {
		if n.repository, err = typedPath(n.repository); err != nil {
			return err
		}
	}
	switch {
	case n.keyring && a.passwordFile+a.passwordCommand+a.keyFile != "":
		return usageError{errors.New("--keyring cannot be combined with --password-file, --password-command or --key-file; use only one")}
	case n.keyring:
		n.source, n.value = "keyring", "true"
	case a.passwordFile != "":
		return n.path("password-file", a.passwordFile)
	case a.keyFile != "":
		return n.path("key-file", a.keyFile)
	case a.passwordCommand != "":
		n.source, n.value = "password-command", quoted(a.passwordCommand)
	case ask:
		return a.askSource(ctx, n)
	}
	return nil
}

// path sets the source of the password to a file.
func (n *newConfig) path(key, name string) error {
	name, err := typedPath(name)
	n.source, n.value, n.file = key, quoted(name), name
	return err
}

// typedPath returns the absolute form of a path that was typed in the working directory.
func typedPath(name string) (string, error) {
	if rest, ok := strings.CutPrefix(name, "~/"); ok {
		if home, err := os.UserHomeDir(); err == nil {
			return filepath.Join(home, rest), nil
		}
	}
	return filepath.Abs(name)
}

func (a *app) askSource(ctx context.Context, n *newConfig) error {
	fmt.Fprint(a.stderr, `where does the password come from?
  1  snap asks for it each time
  2  the keyring of this computer
  3  the first line of a file
  4  the output of a command
`)
	line, err := a.askDefault(ctx, "1, 2, 3 or 4", "1")
	if err != nil {
		return err
	}
	switch line {
	case "1":
	case "2":
		n.source, n.value = "keyring", "true"
	case "3":
		if line, err = a.askDefault(ctx, "file", ""); err == nil {
			err = n.path("password-file", line)
		}
	case "4":
		line, err = a.askDefault(ctx, "command", "")
		n.source, n.value = "password-command", quoted(line)
	default:
		return advised{usageError{fmt.Errorf("%q is not 1, 2, 3 or 4", line)}, "nothing was written; run the same command again"}
	}
	return err
}

// askDefault asks for a line. An empty one means the default; without one it is an error.
func (a *app) askDefault(ctx context.Context, what, otherwise string) (string, error) {
	prompt := what + ": "
	if otherwise != "" {
		prompt = fmt.Sprintf("%s [%s]: ", what, otherwise)
	}
	line, err := a.askLine(ctx, prompt)
	if err != nil {
		return "", err
	}
	if line == "" {
		line = otherwise
	}
	if line == "" {
		return "", advised{usageError{errors.New("the answer is empty")}, "nothing was written; run the same command again"}
	}
	return line, nil
}

// quoted returns a text as TOML.
func quoted(s string) string {
	if !strings.ContainsAny(s, "'\n\r") {
		return "'" + s + "'"
	}
	return strconv.Quote(s)
}

// bareKey matches a key that needs no quotes.
var bareKey = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// bareOrQuoted returns a key as TOML.
func bareOrQuoted(key string) string {
	if bareKey.MatchString(key) {
		return key
	}
	return quoted(key)
}

// text returns the file.
func (n *newConfig) text(profile string) (string, error) {
	if profile == "" {
		profile = config.DefaultProfile
	}
	var b strings.Builder
	fmt.Fprintf(&b, `# Configuration of snap. "snap config show" shows what applies, and
# "snap config check" looks for mistakes. The section "Configuration file" of
# docs/guide.md lists the keys. Relative paths begin at the folder of this file.

[profile.%s]
repository = %s

# Where the password comes from: one of these, or none to be asked for it.
`, bareOrQuoted(profile), quoted(n.repository))
	for _, s := range []struct{ key, example string }{
		{"keyring", `true           # after "snap key remember"`},
		{"password-file", `"~/.snap-password"`},
		{"password-command", `"secret-tool lookup app snap"`},
		{"key-file", `"~/.snap-key"`},
	} {
		if s.key == n.source {
			fmt.Fprintf(&b, "%s = %s\n", s.key, n.value)
		} else {
			fmt.Fprintf(&b, "# %s = %s\n", s.key, s.example)
		}
	}
	b.WriteString(`
# What "snap forget" keeps, if it has no keep flags.
# keep-daily = 7
# keep-weekly = 5
# keep-monthly = 12
# keep-yearly = "unlimited"

# The age of a newest backup from which "snap status" warns.
# max-age = "7d"

# Exact copies ("snap mirror"), and repositories with copies of snapshots
# ("snap copy").
# mirrors = ["/Volumes/Drive/phones"]
# copies = ["/Volumes/Away/phones"]

# Names for devices. "snap status" also warns if one of them has no backup. A
# retired one needs no more backups.
`)
	if len(n.devices) == 0 {
		b.WriteString("# [devices]\n# kitchen-ipad = \"00008110-000A1234567890AB\"\n" +
			"# old-phone = { udid = \"00008120-001122334455667A\", retired = true }\n")
		return b.String(), nil
	}
	b.WriteString("[devices]\n")
	for _, d := range n.devices {
		alias, udid, ok := strings.Cut(d, "=")
		if !ok || alias == "" || !config.IsUDID(udid) {
			return "", usageError{fmt.Errorf("--device %q is not a name and a UDID, such as kitchen-ipad=00008110-000A1234567890AB", d)}
		}
		fmt.Fprintf(&b, "%s = %s\n", bareOrQuoted(alias), quoted(udid))
	}
	return b.String(), nil
}
