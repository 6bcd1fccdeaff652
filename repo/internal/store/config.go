package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/configs"
	"github.com/snap-backup/snap/repo/internal/layout"
)

// FormatVersion is the only version of the repository format that this package reads
// and writes.
const FormatVersion = 1

// knownFeatures are the mandatory features that this package understands. A
// repository that needs another one is refused.
var knownFeatures = []string{}

// Config is the settings of a repository.
type Config struct {
	Version    int              `json:"format"`
	Features   []string         `json:"features"` // that a reader must understand
	ID         string           `json:"id"`       // 32 random hex digits
	Created    time.Time        `json:"created"`
	Polynomial chunk.Polynomial `json:"-"`
	// NoFsync says that the repository was made on a file system that does not support
	// fsync.
	NoFsync bool `json:"no_fsync,omitempty"`
}

// ConfigFile is config or a copy of it.
type ConfigFile struct{ configs.File }

// configBody is the sealed part.
type configBody struct {
	ID         string    `json:"id"`
	Created    time.Time `json:"created"`
	Polynomial string    `json:"polynomial"`
	NoFsync    bool      `json:"no_fsync,omitempty"`
}

// NewConfig returns the config of a new repository.
func NewConfig(opts Options) (Config, error) {
	var id [16]byte
	if _, err := io.ReadFull(opts.Rand, id[:]); err != nil {
		return Config{}, fmt.Errorf("make a repository ID: %w", err)
	}
	pol, err := chunk.NewPolynomial(opts.Rand)
	if err != nil {
		return Config{}, err
	}
	return Config{
		Version: FormatVersion, Features: []string{},
		ID: fmt.Sprintf("%x", id), Created: opts.Now().UTC().Truncate(time.Second),
		Polynomial: pol, NoFsync: opts.NoFsync,
	}, nil
}

// associatedData returns Format and Features in a fixed form. The sealed part
// authenticates it.
func (f *ConfigFile) associatedData() []byte {
	return fmt.Appendf(nil, "snap config %d %s", f.Format, strings.Join(f.Features, " "))
}

// Seal returns the config file.
func (c Config) Seal(master crypto.Key, rand io.Reader) (*ConfigFile, error) {
	f := &ConfigFile{configs.File{Format: c.Version, Features: c.Features}}
	body, err := json.Marshal(configBody{c.ID, c.Created, fmt.Sprintf("%#x", uint64(c.Polynomial)), c.NoFsync})
	if err != nil {
		return nil, fmt.Errorf("seal config: %w", err)
	}
	if f.Sealed, err = crypto.NewSealer(master.Derive(crypto.ForConfig), rand).Seal(nil, body, f.associatedData()); err != nil {
		return nil, fmt.Errorf("seal config: %w", err)
	}
	return f, nil
}

// ReadConfig reads config without unsealing it. It fails with ErrUnsupported if this
// package does not understand the repository.
func ReadConfig(ctx context.Context, be backend.Backend) (*ConfigFile, error) {
	_, f, err := readConfig(ctx, be)
	return f, err
}

func readConfig(ctx context.Context, be backend.Backend) ([]byte, *ConfigFile, error) {
	b, err := backend.ReadAll(ctx, be, layout.ConfigName, layout.MaxConfigSize)
	if errors.Is(err, backend.ErrNotExist) {
		for _, dir := range ContentDirs() {
			used, failed := HasFiles(ctx, be, dir)
			if failed != nil {
				return nil, nil, failed
			}
			if used {
				what := "it is missing"
				if errors.Is(err, backend.ErrNotRegular) {
					what = "it is not a file, but a folder, a link or something else"
				}
				return nil, nil, &DamageError{layout.ConfigName, fmt.Errorf("%s, and there are files in %s", what, dir)}
			}
		}
		return nil, nil, ErrNotFound
	}
	if err != nil {
		return nil, nil, Judge(ctx, be, layout.ConfigName, err)
	}
	f, err := ParseConfig(b)
	return b, f, err
}

// ContentDirs returns the folders whose files show that a repository has been used.
// If there is neither such a file nor config, the files that exist were left by an
// interrupted init.
func ContentDirs() []string {
	return []string{layout.PacksDir, layout.IndexDir, layout.SnapshotsDir, layout.SecretsDir, layout.RunsDir, layout.CertificatesDir}
}

// Configs are the configs that a repository may have.
type Configs struct {
	// Found is config, if it is not damaged, and after LoadCopies its copies in configs/
	// that differ from it and are not damaged. A key tells which of them belong to the
	// repository.
	Found []*ConfigFile
	// Damage is what is wrong with config, if it is missing, unreadable or damaged.
	Damage error

	be     backend.Backend
	config []byte
	copies []configs.Copy
	loaded bool
}

// FindConfigs reads config without unsealing it, and its copies if config is damaged. If
// another program has changed config and this one does not understand it, FindConfigs fails
// with ErrUnsupported, unless the copies show that config is damaged.
func FindConfigs(ctx context.Context, be backend.Backend) (*Configs, error) {
	b, first, err := readConfig(ctx, be)
	c := &Configs{Damage: err, be: be, config: b}
	switch {
	case err == nil:
		c.Found = append(c.Found, first)
		return c, nil
	case ctx.Err() != nil || errors.Is(err, ErrNotFound):
		return nil, err
	}
	return c, c.LoadCopies(ctx)
}

// LoadCopies reads the copies of config, unless they were read before. If config is not
// damaged, it is no error if they cannot be listed.
func (c *Configs) LoadCopies(ctx context.Context) (err error) {
	if c.loaded {
		return nil
	}
	c.loaded = true
	first := len(c.Found) > 0
	if c.copies, err = configs.List(ctx, c.be); err != nil && !first {
		return errors.Join(c.Damage, err)
	}
	equal := func(o configs.Copy) bool { return bytes.Equal(o.Bytes, c.config) }
	good := slices.DeleteFunc(slices.Clone(c.copies), func(o configs.Copy) bool { return o.Err != nil })
	if errors.Is(c.Damage, ErrUnsupported) && (len(good) == 0 || slices.ContainsFunc(good, equal)) {
		return c.Because(c.Damage)
	}
	for _, o := range good {
		f, err := ParseConfig(o.Bytes)
		switch {
		case errors.Is(err, ErrUnsupported) && !first:
			return err // config may have been a newer one, too
		case err == nil && !(first && equal(o)):
			c.Found = append(c.Found, f)
		}
	}
	return ctx.Err()
}

// Any reports whether ok is true for config or one of its copies. It reads the copies only
// if ok is false for config.
func (c *Configs) Any(ctx context.Context, ok func(*ConfigFile) bool) (bool, error) {
	if slices.ContainsFunc(c.Found, ok) {
		return true, nil
	}
	tried := len(c.Found)
	if err := c.LoadCopies(ctx); err != nil {
		return false, err
	}
	return slices.ContainsFunc(c.Found[tried:], ok), nil
}

// Because returns err, an error about config, and adds why the copies of config cannot be
// used.
func (c *Configs) Because(err error) error {
	for _, o := range c.copies {
		if o.Err != nil {
			err = fmt.Errorf("%w; its copy cannot be used: %w", err, o.Err)
		}
	}
	return err
}

// ParseConfig parses the bytes of a config file.
func ParseConfig(b []byte) (*ConfigFile, error) {
	var f ConfigFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, &DamageError{layout.ConfigName, err}
	}
	if f.Format > FormatVersion {
		return nil, fmt.Errorf("format version %d: %w, which knows version %d; use a newer snap", f.Format, ErrUnsupported, FormatVersion)
	}
	if f.Format < 1 {
		return nil, &DamageError{layout.ConfigName, fmt.Errorf("format version %d", f.Format)}
	}
	for _, feature := range f.Features {
		if !slices.Contains(knownFeatures, feature) {
			return nil, fmt.Errorf("the repository needs the feature %.40q: %w; use a newer snap", feature, ErrUnsupported)
		}
	}
	// The file's name is not its hash. To detect every changed byte, accept only
	// one of the possible JSON forms.
	if !bytes.Equal(b, f.Bytes()) {
		return nil, &DamageError{layout.ConfigName, errors.New("it is not in the form that snap writes")}
	}
	return &f, nil
}

// Open unseals the settings with the master key.
func (f *ConfigFile) Open(master crypto.Key) (Config, error) {
	b, err := crypto.NewSealer(master.Derive(crypto.ForConfig), nil).Open(nil, f.Sealed, f.associatedData())
	if err != nil {
		return Config{}, err
	}
	var body configBody
	if err := json.Unmarshal(b, &body); err != nil {
		return Config{}, err
	}
	digits, ok := strings.CutPrefix(body.Polynomial, "0x")
	n, err := strconv.ParseUint(digits, 16, 64)
	pol := chunk.Polynomial(n)
	if !ok || err != nil || !chunk.ValidPolynomial(pol) {
		return Config{}, fmt.Errorf("chunker polynomial %.40q", body.Polynomial)
	}
	return Config{
		Version: f.Format, Features: f.Features,
		ID: body.ID, Created: body.Created, Polynomial: pol, NoFsync: body.NoFsync,
	}, nil
}

// CheckConfig reads the config of a repository without a key, as repo.CheckConfig
// describes.
func CheckConfig(ctx context.Context, be backend.Backend) error {
	_, err := ReadConfig(ctx, be)
	if !errors.Is(err, ErrUnsupported) {
		return err // a config that can be parsed is in the right form; see configs.Judge
	}
	j, failed := configs.Judge(ctx, be)
	switch {
	case failed != nil:
		return failed
	case j.State == configs.Damaged:
		return &DamageError{layout.ConfigName, j.Why}
	}
	return err
}
