// Package configs finds out, without a key, whether the config of a repository is good,
// and puts a good one in place of a damaged one.
//
// The name of config says nothing about its bytes. So a repository has a copy of it
// under configs/, which is named by the hash of its bytes like every other file. A
// config whose hash names such a copy is good. Another one is damaged, or the copies
// belong to another config.
//
// Whoever can write to the store can add copies. So the package never chooses between
// two configs that both could be the right one: only a key can tell which one belongs to
// the repository.
package configs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/snap-backup/snap/crypto/blake"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/replace"
)

// State is what can be said about config without a key.
type State string

// The states of config.
const (
	Good    State = "good"    // it is the same as its copy
	Damaged State = "damaged" // it is missing or no config, and there is one good copy
	Unknown State = "unknown" // there is no copy, or two configs could be the right one
)

// Judgement says whether config is good.
type Judgement struct {
	State State
	// Copy is the name of the good copy, and Bytes is its content. They are empty if
	// the state is Unknown.
	Copy  string
	Bytes []byte
	// Contested says that config differs from every copy in configs/, and that nothing
	// tells which of them is right.
	Contested bool
	// Why says what is wrong with config, or why its state is unknown.
	Why error
}

// File is the JSON form of config. Format and Features are not encrypted, since a program
// needs them before it has a key. Sealed authenticates them.
type File struct {
	Format   int      `json:"format"`
	Features []string `json:"features"`
	Sealed   []byte   `json:"sealed"`
}

// Bytes returns the bytes of the file.
func (f *File) Bytes() []byte {
	b, err := json.Marshal(f)
	if err != nil {
		panic("config: " + err.Error()) // numbers, texts and bytes can always be encoded
	}
	return append(b, '\n')
}

var errNoFile = errors.New("a folder, a link or something else that is not a file has its name")

// inForm reports whether bytes have the form of a config: anybody can write such a file,
// but a file that is cut off or overwritten does not have this form.
func inForm(b []byte) bool {
	var f File
	return json.Unmarshal(b, &f) == nil && f.Format > 0 && len(f.Sealed) > 0 && bytes.Equal(b, f.Bytes())
}

// Copy is a file in configs/.
type Copy struct {
	Name  string
	Bytes []byte // nil if the file cannot be read or has another hash than its name
	Err   error  // why Bytes is nil
}

// Name returns the name of the copy of a config.
func Name(config []byte) string {
	return layout.ConfigsDir + layout.FileID(blake.Sum(config)).String()
}

// Judge says whether config is good. The error means that the store failed.
func Judge(ctx context.Context, be backend.Backend) (*Judgement, error) {
	copies, err := List(ctx, be)
	if err != nil {
		return nil, err
	}
	config, unreadable := backend.ReadAll(ctx, be, layout.ConfigName, layout.MaxConfigSize)
	if failed(ctx, be, unreadable) {
		return nil, fmt.Errorf("read config: %w", unreadable)
	}
	var good []Copy
	same := false
	for _, c := range copies {
		equal := unreadable == nil && bytes.Equal(c.Bytes, config)
		if c.Bytes != nil && (equal || inForm(c.Bytes)) { // others are junk
			good = append(good, c)
			same = same || equal
		}
	}
	switch {
	case len(good) > 1:
		return &Judgement{State: Unknown, Contested: !same, Why: fmt.Errorf("its copies differ (%s), and without a password nobody can tell which one is right", nameSome(good))}, nil
	case len(good) == 0 && unreadable != nil:
		return &Judgement{State: Unknown, Why: fmt.Errorf("it cannot be read, and there is no good copy of it: %w", unreadable)}, nil
	case len(good) == 0:
		return &Judgement{State: Unknown, Why: errors.New("there is no copy to compare it with")}, nil
	case !same && unreadable == nil && inForm(config):
		return &Judgement{State: Unknown, Contested: true, Why: fmt.Errorf("it differs from its copy %s, and without a password nobody can tell which one is right", good[0].Name)}, nil
	}
	j := &Judgement{State: Damaged, Copy: good[0].Name, Bytes: good[0].Bytes}
	switch {
	case errors.Is(unreadable, backend.ErrNotRegular):
		j.Why = errNoFile
	case errors.Is(unreadable, backend.ErrNotExist):
		j.Why = errors.New("it is missing")
	case unreadable != nil:
		j.Why = unreadable
	case !same:
		j.Why = errors.New("its bytes differ from its copy")
	default:
		j.State = Good
	}
	return j, nil
}

// nameSome names a few copies.
func nameSome(copies []Copy) string {
	var names []string
	for i, c := range copies {
		if i == 3 {
			return fmt.Sprintf("%s and %d more", strings.Join(names, ", "), len(copies)-i)
		}
		names = append(names, c.Name)
	}
	return strings.Join(names, ", ")
}

// Fingerprint returns the name that the copy of the right config has, as
// repo.Fingerprint describes.
func Fingerprint(ctx context.Context, be backend.Backend) (string, error) {
	j, err := Judge(ctx, be)
	if err != nil {
		return "", err
	}
	if j.Copy != "" {
		return j.Copy, nil
	}
	b, err := backend.ReadAll(ctx, be, layout.ConfigName, layout.MaxConfigSize)
	if err != nil {
		return "", fmt.Errorf("read config: %w", err)
	}
	return Name(b), nil
}

// maxCopies bounds how many files in configs/ are read. Others are ignored.
const maxCopies = 64

// Names returns the names of all files in configs/.
func Names(ctx context.Context, be backend.Backend) ([]string, error) {
	var names []string
	err := be.List(ctx, layout.ConfigsDir, func(f backend.Info) error {
		if isCopy(f.Name) {
			names = append(names, f.Name)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the copies of config: %w", err)
	}
	return names, nil
}

// isCopy reports whether name is that of a copy.
func isCopy(name string) bool {
	id, err := layout.ParseFileID(name)
	return err == nil && layout.ConfigsDir+id.String() == name
}

// List reads the copies of config.
func List(ctx context.Context, be backend.Backend) ([]Copy, error) {
	var copies []Copy
	enough := errors.New("enough")
	err := be.List(ctx, layout.ConfigsDir, func(f backend.Info) error {
		if !isCopy(f.Name) {
			return nil // not a file of the repository
		}
		if len(copies) == maxCopies {
			return enough
		}
		b, err := backend.ReadAll(ctx, be, f.Name, layout.MaxConfigSize)
		if failed(ctx, be, err) {
			return err
		}
		if err == nil && Name(b) != f.Name {
			err = fmt.Errorf("%s: its bytes do not match its name", f.Name)
		}
		if err != nil {
			b = nil
		}
		copies = append(copies, Copy{f.Name, b, err})
		return nil
	})
	if err != nil && !errors.Is(err, enough) {
		return nil, fmt.Errorf("read the copies of config: %w", err)
	}
	return copies, nil
}

// failed reports whether the error of reading a file says nothing about the file: the
// store is out of reach, or the reader was cancelled.
func failed(ctx context.Context, be backend.Backend, err error) bool {
	return err != nil && !errors.Is(err, backend.ErrNotExist) && !errors.Is(err, backend.ErrTooLarge) && !backend.Unreadable(ctx, be, err)
}

// Keep stores a copy of a config that is known to be good, unless it exists. It
// replaces a damaged copy. It returns the copy's name, and whether it changed anything.
func Keep(ctx context.Context, be backend.Backend, config []byte) (name string, changed bool, err error) {
	name = Name(config)
	b, err := backend.ReadAll(ctx, backend.Direct(be), name, layout.MaxConfigSize)
	switch {
	case err == nil && bytes.Equal(b, config):
		return name, false, nil
	case ctx.Err() != nil:
		return name, false, ctx.Err()
	case errors.Is(err, backend.ErrNotExist):
		err = be.Put(ctx, name, config)
		if errors.Is(err, backend.ErrExist) {
			return name, false, nil
		}
	default:
		err = replace.Put(ctx, be, name, config)
	}
	if err != nil {
		return name, false, fmt.Errorf("store a copy of config: %w", err)
	}
	return name, true, nil
}

// Restore makes config have the bytes given, which the caller knows to be good. It first
// stores the bytes as a copy and reads this copy back. Only then does it remove the old
// config. If config is not a file, but a folder or a link, Restore renames it and returns
// the new name.
func Restore(ctx context.Context, be backend.Backend, config []byte) (aside string, err error) {
	name, _, err := Keep(ctx, be, config)
	if err != nil {
		return "", err
	}
	if err := same(ctx, be, name, config); err != nil {
		return "", err
	}
	if same(ctx, be, layout.ConfigName, config) == nil {
		return "", nil
	}
	if aside, err = replace.MoveAside(ctx, be, layout.ConfigName); err != nil {
		return aside, err
	}
	if err := replace.Put(ctx, be, layout.ConfigName, config); err != nil {
		return aside, err
	}
	return aside, same(ctx, be, layout.ConfigName, config)
}

// BadCopyError says that a file that was stored does not have the bytes that it should, or
// that it cannot be read.
type BadCopyError struct {
	Name string
	Err  error
}

func (e *BadCopyError) Error() string { return fmt.Sprintf("read back %s: %v", e.Name, e.Err) }

// Unwrap returns the cause.
func (e *BadCopyError) Unwrap() error { return e.Err }

// Different reports whether the file can be read and has other bytes.
func (e *BadCopyError) Different() bool { return errors.Is(e.Err, errDifferent) }

var errDifferent = errors.New("it does not have the bytes that were stored")

// same fails unless a file can be read and has the bytes given. It reads once more if
// reading fails, since a signal may have interrupted it.
func same(ctx context.Context, be backend.Backend, name string, want []byte) error {
	b, err := backend.ReadAll(ctx, be, name, layout.MaxConfigSize)
	if err != nil && ctx.Err() == nil {
		b, err = backend.ReadAll(ctx, be, name, layout.MaxConfigSize)
	}
	if err == nil && !bytes.Equal(b, want) {
		err = errDifferent
	}
	if err != nil {
		return &BadCopyError{name, err}
	}
	return nil
}
