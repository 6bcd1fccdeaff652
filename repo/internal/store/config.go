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
}

// ConfigFile is the JSON form of config. A program needs the clear fields before it
// has a key. Sealed authenticates them.
type ConfigFile struct {
	Format   int      `json:"format"`
	Features []string `json:"features"`
	Sealed   []byte   `json:"sealed"`
}

// configBody is the sealed part.
type configBody struct {
	ID         string    `json:"id"`
	Created    time.Time `json:"created"`
	Polynomial string    `json:"polynomial"`
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
		Polynomial: pol,
	}, nil
}

// ad returns the associated data of the sealed part: the clear part in a fixed form.
func (f *ConfigFile) ad() []byte {
	return fmt.Appendf(nil, "snap config %d %s", f.Format, strings.Join(f.Features, " "))
}

// Seal returns the bytes of the config file.
func (c Config) Seal(master crypto.Key, rand io.Reader) ([]byte, error) {
	f := ConfigFile{Format: c.Version, Features: c.Features}
	body, err := json.Marshal(configBody{c.ID, c.Created, fmt.Sprintf("%#x", uint64(c.Polynomial))})
	if err != nil {
		return nil, fmt.Errorf("seal config: %w", err)
	}
	if f.Sealed, err = crypto.NewSealer(master.Derive(crypto.ForConfig), rand).Seal(nil, body, f.ad()); err != nil {
		return nil, fmt.Errorf("seal config: %w", err)
	}
	b, err := f.encode()
	if err != nil {
		return nil, fmt.Errorf("seal config: %w", err)
	}
	return b, nil
}

// ReadConfig reads the clear part of config. It fails with ErrUnsupported if this
// package does not understand the repository.
func ReadConfig(ctx context.Context, be backend.Backend) (*ConfigFile, error) {
	b, err := backend.ReadAll(ctx, be, layout.ConfigName, layout.MaxConfigSize)
	if errors.Is(err, backend.ErrNotExist) {
		if hasFiles(ctx, be, layout.PacksDir) {
			return nil, &DamageError{layout.ConfigName, errors.New("it is missing, but there are packs")}
		}
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return parseConfig(b)
}

func parseConfig(b []byte) (*ConfigFile, error) {
	var f ConfigFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, &DamageError{layout.ConfigName, err}
	}
	if f.Format > FormatVersion {
		return nil, fmt.Errorf("format version %d: %w (it knows %d); use a newer one", f.Format, ErrUnsupported, FormatVersion)
	}
	if f.Format < 1 {
		return nil, &DamageError{layout.ConfigName, fmt.Errorf("format version %d", f.Format)}
	}
	for _, feature := range f.Features {
		if !slices.Contains(knownFeatures, feature) {
			return nil, fmt.Errorf("it needs the feature %.40q: %w; use a newer one", feature, ErrUnsupported)
		}
	}
	// The file's name is not its hash. To detect every changed byte, accept only
	// one of the possible JSON forms.
	if same, err := f.encode(); err != nil || !bytes.Equal(b, same) {
		return nil, &DamageError{layout.ConfigName, errors.New("it is not in the form that snap writes")}
	}
	return &f, nil
}

// encode returns the bytes of the file.
func (f *ConfigFile) encode() ([]byte, error) {
	b, err := json.Marshal(f)
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}

// Open unseals the settings with the master key.
func (f *ConfigFile) Open(master crypto.Key) (Config, error) {
	b, err := crypto.NewSealer(master.Derive(crypto.ForConfig), nil).Open(nil, f.Sealed, f.ad())
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
		ID: body.ID, Created: body.Created, Polynomial: pol,
	}, nil
}

// CheckConfig reads the config of a repository without a key, as repo.CheckConfig
// describes.
func CheckConfig(ctx context.Context, be backend.Backend) error {
	_, err := ReadConfig(ctx, be)
	return err
}
