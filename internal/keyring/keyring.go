// Package keyring keeps passwords in the keyring of the system: Keychain on macOS,
// Credential Manager on Windows, and the Secret Service (GNOME Keyring, KWallet, KeePassXC)
// elsewhere.
//
// Every call ends within a time limit, also if the keyring or the session bus does not
// answer. A computer without a keyring is recognised at once. The package never starts a
// session bus.
package keyring

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/zalando/go-keyring"
)

// service is the name under which the keyring shows the passwords.
const service = "snap"

// probeLimit is how long the session bus may take to answer.
const probeLimit = 3 * time.Second

var (
	// ErrNotFound says that the keyring has no password of this name.
	ErrNotFound = errors.New("the keyring has no such password")
	// ErrUnavailable says that there is no keyring, or that it cannot be used now.
	ErrUnavailable = errors.New("the keyring of this computer cannot be used")
)

// System is the keyring of the system.
type System struct {
	// Limit is how long a call may take. A keyring may ask the user to unlock it.
	Limit time.Duration

	probe func() error // nil means busProbe
}

// Get returns the password of this name.
func (s System) Get(ctx context.Context, name string) (string, error) {
	var password string
	err := s.within(ctx, func() (err error) { password, err = keyring.Get(service, name); return err })
	if err != nil {
		return "", err // the call may still be running, and write the variable
	}
	return password, nil
}

// Set stores a password under a name, in place of an earlier one.
func (s System) Set(ctx context.Context, name, password string) error {
	return s.within(ctx, func() error { return keyring.Set(service, name, password) })
}

// Delete removes the password of this name.
func (s System) Delete(ctx context.Context, name string) error {
	return s.within(ctx, func() error { return keyring.Delete(service, name) })
}

// within calls do after the keyring has proven that it answers, and waits for do until the
// limit. The calls of the library cannot be stopped: one that hangs ends with the program.
func (s System) within(ctx context.Context, do func() error) error {
	probe := s.probe
	if probe == nil {
		probe = busProbe
	}
	if err := wait(ctx, probeLimit, "the session bus", probe); err != nil {
		return err
	}
	err := wait(ctx, s.Limit, "the keyring", do)
	switch {
	case err == nil, errors.Is(err, ErrUnavailable), errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, keyring.ErrNotFound):
		return ErrNotFound
	case errors.Is(err, keyring.ErrSetDataTooBig):
		return errors.New("the password is too long for the keyring")
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

func wait(ctx context.Context, limit time.Duration, what string, do func() error) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return fmt.Errorf("%w: %s has not answered within %v", ErrUnavailable, what, limit)
	case <-ctx.Done():
		return ctx.Err()
	}
}
