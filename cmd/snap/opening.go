package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/internal/password"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
)

// maxTries is how often a person may type the password of a repository.
const maxTries = 3

// nothingDone is the hint if Ctrl-C ends a question that comes before anything is done.
const nothingDone = "nothing was done"

// opening says how to open a repository.
type opening struct {
	dir  string
	hint string // the beginning of the ID of the key to try first
	ways passwordWays
	// given returns the secrets of flags or variables. If there are none, a person is
	// asked.
	given func(context.Context) (secrets, error)
	// keyring says that the keyring of the system may have the password.
	keyring bool
	// rescue, if not nil, is called if no key slot opens and some are missing or damaged.
	// It reports whether another attempt may succeed.
	rescue func(ctx context.Context, be backend.Backend, secret []byte) (bool, error)
}

// unlock opens a repository. A person at a terminal has some tries.
func (a *app) unlock(ctx context.Context, be backend.Backend, o opening) (*repo.Repo, error) {
	s, err := o.given(ctx)
	if err != nil {
		return nil, err
	}
	if s.given() {
		return a.openRepo(ctx, be, s, o)
	}
	if o.keyring {
		r, err := a.openRemembered(ctx, be, o)
		if r != nil || err != nil {
			return r, err
		}
	}
	if a.neverAsk {
		return nil, errNotAsked
	}
	for try := 1; ; try++ {
		r, err := a.askAndOpen(ctx, be, o)
		wrong := errors.Is(err, repo.ErrWrongPassword) || errors.Is(err, crypto.ErrRecoveryTypo)
		if !wrong || try == maxTries || a.keyboard() == nil {
			return r, orInterrupted(ctx, err, nothingDone)
		}
		if errors.Is(err, crypto.ErrRecoveryTypo) {
			a.warn("%v; compare it with the written one, group by group, and try again", crypto.ErrRecoveryTypo)
			continue
		}
		a.warn("this password does not open the repository; try again")
	}
}

// askAndOpen asks for the password of a repository and opens it.
func (a *app) askAndOpen(ctx context.Context, be backend.Backend, o opening) (*repo.Repo, error) {
	t, err := a.ask(ctx, fmt.Sprintf("password for repository %s: ", o.dir), o.ways)
	if err != nil {
		return nil, err
	}
	defer t.clear()
	s, err := t.secrets()
	if err != nil {
		return nil, err
	}
	return a.openRepo(ctx, be, s, o)
}

// openRepo opens a repository with the first secret that fits, and clears the secrets.
func (a *app) openRepo(ctx context.Context, be backend.Backend, s secrets, o opening) (*repo.Repo, error) {
	defer s.clear()
	var first error
	opts := a.options
	opts.KeyHint = o.hint
	opts.Distant = isDistant(be)
	opts.Survey = a.noLock || a.listing
	opts.OnCorrected = func(name string) {
		a.warn("a few wrong bytes of %s were corrected while reading; run \"snap repair packs\" to correct the file, and check the disk, the memory and the cable that they come from", name)
	}
	for _, secret := range s.list {
		r, err := repo.Open(ctx, be, secret, opts)
		if err != nil && o.rescue != nil && (errors.Is(err, repo.ErrWrongPassword) || isDamaged("keys/")(err)) {
			rescued, failed := o.rescue(ctx, be, secret)
			switch {
			case errors.Is(failed, repo.ErrWrongPassword):
				err = errors.Join(err, failed)
			case failed != nil:
				err = fmt.Errorf("%w; %v", err, failed)
			case rescued:
				r, err = repo.Open(ctx, be, secret, opts)
			}
		}
		if err == nil && !s.isFile && !password.IsTypable(secret) {
			a.warn("the password of this repository has bytes that no keyboard can type, such as a byte order mark; change it with \"snap key passwd\"")
		}
		if err == nil {
			if a.opener != nil {
				*a.opener = opener{bytes.Clone(secret), s.isFile}
			}
			return r, nil
		}
		if !errors.Is(err, repo.ErrWrongPassword) {
			return nil, openError(o.dir, err)
		}
		if first == nil {
			first = err
		}
	}
	if s.bad != nil {
		return nil, s.bad
	}
	if s.resembles && errors.Is(first, repo.ErrWrongPassword) {
		first = fmt.Errorf("%w; %w", first, crypto.ErrRecoveryTypo)
	}
	err := openError(o.dir, s.named(first))
	if s.hint != "" && errors.Is(err, repo.ErrWrongPassword) {
		err = advised{err, s.hint}
	}
	return nil, err
}

// opener is the secret that has opened a repository.
type opener struct {
	secret []byte
	isFile bool // the content of a key file
}

// errNotAsked says that a password is needed that only a person could give.
var errNotAsked = usageError{errors.New("the repository cannot be opened without a question for its password")}

// givenKeyHint returns the beginning of the ID of the key to try first.
func (a *app) givenKeyHint() string {
	v, _ := a.fromFile("key-hint")
	return cmp.Or(a.keyHint, os.Getenv("SNAP_KEY_HINT"), v.Text)
}

// givenSecret returns the secrets from the flags, the environment or the configuration
// file. There are none if none of these has a password.
func (a *app) givenSecret(ctx context.Context) (secrets, error) {
	if a.keyFile != "" {
		return a.keyFileSecret(a.keyFile)
	}
	t, err := a.given(ctx, a.passwordFile, a.passwordCommand)
	if v, ok := a.fromFile("key-file"); ok && err == nil && t == nil {
		s, err := a.keyFileSecret(v.Text)
		s.source += " (" + a.settings.place(v) + ")"
		return s, err
	}
	if err != nil || t == nil {
		return secrets{}, err
	}
	defer t.clear()
	return t.secrets()
}

func (a *app) keyFileSecret(name string) (secrets, error) {
	b, err := a.readKeyFile(name)
	if err != nil {
		return secrets{}, err
	}
	return secrets{list: [][]byte{b}, source: "key file " + name, isFile: true}, nil
}
