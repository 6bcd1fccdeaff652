package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/snap-backup/snap/internal/keyring"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/spf13/cobra"
)

// passwordKeyring keeps passwords under names.
type passwordKeyring interface {
	Get(ctx context.Context, name string) (string, error)
	Set(ctx context.Context, name, password string) error
	Delete(ctx context.Context, name string) error
}

// How long a keyring may take. It may ask a person to unlock it.
const (
	keyringLimit      = 5 * time.Second
	keyringLimitAsked = 2 * time.Minute
)

// ring returns the keyring.
func (a *app) ring() passwordKeyring {
	switch {
	case a.keyring != nil:
		return a.keyring
	case a.canAsk():
		return keyring.System{Limit: keyringLimitAsked}
	}
	return keyring.System{Limit: keyringLimit}
}

// hintRemembered says how to replace a remembered password.
const hintRemembered = `nothing was changed; "snap key remember" replaces the remembered password, and "snap key forget-here" removes it`

// note is the file that says that a password of a repository was remembered. Its name is
// known before the repository is open, and it has the repository's ID, under which the
// keyring has the password. So a keyring is asked only if it has the password.
type note struct{ file string }

func noteOf(ctx context.Context, be backend.Backend) (note, error) {
	print, err := repo.Fingerprint(ctx, be)
	if err != nil {
		return note{}, err
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return note{}, fmt.Errorf("there is no folder for what snap remembers: %w", err)
	}
	return note{filepath.Join(dir, "snap", "remembered", path.Base(print))}, nil
}

// id returns the ID of the repository, or "" if no password was remembered.
func (n note) id() (string, error) {
	b, err := os.ReadFile(n.file)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(b)), err
}

func (n note) write(id string) error {
	if err := os.MkdirAll(filepath.Dir(n.file), 0o700); err != nil {
		return err
	}
	return os.WriteFile(n.file, []byte(id+"\n"), 0o600)
}

// rememberedSecret returns the password that the keyring has for a repository. There is
// none if none was remembered. An error says why the keyring was not used.
func (a *app) rememberedSecret(ctx context.Context, be backend.Backend) (secrets, error) {
	if a.forgetful {
		return secrets{}, nil
	}
	demanded := false
	if v, ok := a.fromFile("keyring"); ok {
		demanded = v.Text == "true"
		if !demanded { // the file says not to use it
			return secrets{}, nil
		}
	}
	id := ""
	n, err := noteOf(ctx, be)
	if err == nil {
		id, err = n.id()
	}
	switch {
	case id == "" && !demanded:
		return secrets{}, nil // also if nothing is known: a person without keyring need not know
	case err != nil:
		return secrets{}, fmt.Errorf("the keyring is not used: %w", err)
	case id == "":
		return secrets{}, fmt.Errorf("%s says keyring = true, but no password was remembered on this computer; \"snap key remember\" does that", a.settings.profileFile())
	}
	pw, err := a.ring().Get(ctx, id)
	if errors.Is(err, keyring.ErrNotFound) {
		return secrets{}, errors.New(`the keyring no longer has the password of this repository; "snap key remember" stores it again`)
	}
	if err != nil {
		return secrets{}, fmt.Errorf("the remembered password is not used: %w", err)
	}
	t, err := typedText([]byte(pw), "the password in the keyring")
	if err != nil {
		return secrets{}, err
	}
	defer t.clear()
	t.from = "the keyring of this computer"
	s, err := t.secrets()
	s.hint = hintRemembered
	return s, err
}

// openRemembered opens a repository with the password that the keyring has. It returns nil
// if there is none, or if a person can be asked instead.
func (a *app) openRemembered(ctx context.Context, be backend.Backend, o opening) (*repo.Repo, error) {
	s, err := a.rememberedSecret(ctx, be)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		if !a.neverAsk {
			a.warn("%v", err)
		}
		return nil, nil
	}
	if !s.given() {
		return nil, nil
	}
	r, err := a.openRepo(ctx, be, s, o)
	if errors.Is(err, repo.ErrWrongPassword) && a.keyboard() != nil && !a.neverAsk {
		a.warn("the password in the keyring of this computer does not open the repository; \"snap key remember\" replaces it")
		return nil, nil
	}
	return r, err
}

// profileFile returns the place of the profile in use.
func (s *settings) profileFile() string {
	return fmt.Sprintf("profile %q of %s", s.profile.Name, s.file.Path)
}

// rememberResult is the output of key remember and key forget-here.
type rememberResult struct {
	Repository string `json:"repository"`
	ID         string `json:"id,omitempty"`
	Remembered bool   `json:"remembered"` // the keyring has a password of the repository now
	Changed    bool   `json:"changed"`
}

func (a *app) keyRememberCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "remember",
		Short: "Keep the password in this computer's keyring",
		Long: `Keeps the password of the repository in the keyring of this computer: Keychain
on macOS, Credential Manager on Windows, and elsewhere the Secret Service, such
as GNOME Keyring, KWallet or KeePassXC. The password comes from a prompt, or
from the flags and variables for passwords. It must open the repository. From
then on snap asks the keyring before it asks you. A password from a flag, a
variable or the configuration file still takes precedence.

Mirrors of the repository open with the same password, and need no command of
their own.

Other programs of the same user may be able to read the keyring while it is
unlocked. A scheduled job on Linux often has no session bus, and then no
keyring: give it a password file.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.remember(cmd.Context()) },
	}
}

func (a *app) remember(ctx context.Context) error {
	dir, err := a.location()
	if err != nil {
		return err
	}
	var opened opener
	a.opener, a.forgetful = &opened, true
	r, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer clear(opened.secret)
	switch {
	case opened.isFile:
		return advised{usageError{errors.New("a key file is no password, and is not kept in the keyring")},
			"nothing was changed; name the key file in the configuration file: key-file = \"/path/to/file\""}
	case !utf8.Valid(opened.secret):
		return advised{usageError{errors.New("the password is no text, so the keyring cannot keep it")}, `nothing was changed; change the password with "snap key passwd"`}
	}
	id := r.Config().ID
	ring, password := a.ring(), string(opened.secret)
	if err = ring.Set(ctx, id, password); err == nil {
		var got string
		if got, err = ring.Get(ctx, id); err == nil && got != password {
			err = errors.New("the keyring gave back another password than the one that it was given")
		}
	}
	if err != nil {
		return advised{fmt.Errorf("the password was not remembered: %w", err), "the repository was not changed; use --password-file, --password-command or a configuration file with one of these instead"}
	}
	n, err := noteOf(ctx, a.store)
	if err == nil {
		err = n.write(id)
	}
	if err != nil {
		return fmt.Errorf("the keyring has the password, but snap could not note that: %w", err)
	}
	return a.conclude(rememberResult{dir, id, true, true}, false, func(w io.Writer) {
		fmt.Fprintf(w, "the keyring of this computer keeps the password of repository %.8s in %s\n", id, clean(dir))
		if v, ok := a.fromFile("keyring"); ok && v.Text == "false" {
			a.remark("%s says keyring = false, so it is not used", a.settings.profileFile())
		}
	})
}

func (a *app) keyForgetHereCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "forget-here",
		Short: "Remove the password from this computer's keyring",
		Long: `Removes the password of the repository from the keyring of this computer. The
repository is not changed: the password still opens it, on this computer too.
"snap key remove" removes a key from the repository.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.forgetHere(cmd.Context()) },
	}
}

func (a *app) forgetHere(ctx context.Context) error {
	dir, err := a.location()
	if err != nil {
		return err
	}
	be, err := a.openFolder(ctx, dir)
	if err != nil {
		return openError(dir, err)
	}
	defer be.Close()
	if err := checkUsable(ctx, be); err != nil {
		return openError(dir, err)
	}
	n, err := noteOf(ctx, be)
	if err != nil {
		return err
	}
	id, err := n.id()
	if err != nil {
		return err
	}
	res := rememberResult{Repository: dir, ID: id}
	if id != "" {
		if err := a.ring().Delete(ctx, id); err != nil && !errors.Is(err, keyring.ErrNotFound) {
			return advised{fmt.Errorf("the password was not removed: %w", err), "the keyring still has it; unlock the keyring and run the same command again"}
		}
		if err := os.Remove(n.file); err != nil {
			return err
		}
		res.Changed = true
	}
	return a.conclude(res, false, func(w io.Writer) {
		if !res.Changed {
			fmt.Fprintf(w, "no password of %s was remembered on this computer\n", clean(dir))
			return
		}
		fmt.Fprintf(w, "the keyring of this computer no longer has the password of repository %.8s in %s\n", id, clean(dir))
	})
}
