package record

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/replace"
)

const (
	secretMagic     = layout.SecretMagic + "01"
	secretVersion   = 1
	MaxPasswordSize = 64 << 10
	// The plaintext is padded to a multiple of secretUnit bytes, so that the length of
	// the file does not reveal the length of the password.
	secretUnit = 512
)

// DevicePassword is the backup password of a device, kept sealed in the
// repository. A device can have several: older snapshots may need older ones.
type DevicePassword struct {
	ID       layout.FileID
	UDID     string
	Password []byte // for the caller to clear after use
	Added    time.Time
}

// secretBody is the sealed part of a secret file.
type secretBody struct {
	Version  int       `json:"version"`
	UDID     string    `json:"udid"`
	Password []byte    `json:"password"`
	Added    time.Time `json:"added"`
}

// Format keeps the password out of printed text, with any verb.
func (p DevicePassword) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "DevicePassword(%s, hidden)", p.UDID)
}

// LogValue keeps the password out of structured logs.
func (p DevicePassword) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(p)) }

// KeepDevicePassword stores a password of a device, unless it is kept already.
func KeepDevicePassword(ctx context.Context, r *store.Store, udid string, password []byte) error {
	kept, err := DevicePasswords(ctx, r, udid)
	if err != nil {
		return err
	}
	known := false
	for _, p := range kept {
		known = known || bytes.Equal(p.Password, password)
		clear(p.Password)
	}
	if known {
		return nil
	}
	plain, err := json.Marshal(secretBody{secretVersion, udid, password, r.Options.Now().UTC()})
	if err != nil {
		return fmt.Errorf("keep a device password: %w", err)
	}
	defer clear(plain)
	padded := append(plain, bytes.Repeat([]byte(" "), secretUnit-len(plain)%secretUnit)...)
	defer clear(padded)
	if len(padded) > MaxPasswordSize/2 {
		return errors.New("keep a device password: it is too long")
	}
	b, err := r.PasswordSealer.Seal([]byte(secretMagic), padded, nil)
	if err != nil {
		return fmt.Errorf("keep a device password: %w", err)
	}
	if _, err := r.PutNamed(ctx, layout.SecretsDir, b); err != nil {
		return fmt.Errorf("keep a device password: %w", err)
	}
	return nil
}

// DevicePasswords returns the passwords kept for a device, the newest first. It
// skips damaged files, which a check reports.
func DevicePasswords(ctx context.Context, r *store.Store, udid string) ([]DevicePassword, error) {
	kept, _, err := devicePasswords(ctx, r, udid)
	return kept, err
}

// devicePasswords also returns an error for each file that cannot be read: it may have
// a password of the device.
func devicePasswords(ctx context.Context, r *store.Store, udid string) (out []DevicePassword, unread []error, err error) {
	err = store.List(ctx, r.Backend, layout.SecretsDir, func(f backend.Info) error {
		p, err := ReadDevicePassword(ctx, r, f.Name)
		if errors.Is(err, store.ErrUnreadable) {
			unread = append(unread, err)
		}
		if errors.Is(err, store.ErrDamaged) {
			return nil
		}
		if err == nil && SameDevice(p.UDID, udid) {
			out = append(out, p)
		}
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read device passwords: %w", err)
	}
	slices.SortFunc(out, func(a, b DevicePassword) int { return b.Added.Compare(a.Added) })
	return out, unread, nil
}

// ForgetDevicePasswords removes all passwords kept for a device and returns their
// number. Copies of the repository may still have them. It fails, after removing the
// others, if a file cannot be read, since that file may have one of them.
func ForgetDevicePasswords(ctx context.Context, r *store.Store, udid string) (int, error) {
	kept, unread, err := devicePasswords(ctx, r, udid)
	if err != nil {
		return 0, err
	}
	for i, p := range kept {
		clear(p.Password)
		if err := replace.Delete(ctx, r.Backend, layout.SecretsDir+p.ID.String()); err != nil && !errors.Is(err, backend.ErrNotExist) {
			return i, fmt.Errorf("forget a device password: %w", err)
		}
	}
	if len(unread) > 0 {
		return len(kept), fmt.Errorf("%d passwords were removed, but this device may have another one: %w", len(kept), errors.Join(unread...))
	}
	return len(kept), nil
}

// ReadDevicePassword reads a kept password, given the name of its file.
func ReadDevicePassword(ctx context.Context, r *store.Store, name string) (DevicePassword, error) {
	b, err := r.ReadNamed(ctx, name, MaxPasswordSize)
	if err != nil {
		return DevicePassword{}, err
	}
	p, err := openSecret(b, r.PasswordSealer)
	if err != nil {
		return DevicePassword{}, &store.DamageError{File: name, Err: err}
	}
	p.ID, err = layout.ParseFileID(name)
	return p, err
}

func openSecret(b []byte, sealer *crypto.Sealer) (DevicePassword, error) {
	sealed, ok := store.CutMagic(b, secretMagic)
	if !ok {
		return DevicePassword{}, errors.New("bad magic")
	}
	plain, err := sealer.Open(nil, sealed, nil)
	if err != nil {
		return DevicePassword{}, err
	}
	defer clear(plain)
	var body secretBody
	if err := json.Unmarshal(plain, &body); err != nil {
		clear(body.Password)
		return DevicePassword{}, errors.New("not JSON") // err could quote the password
	}
	if body.Version != secretVersion {
		clear(body.Password)
		return DevicePassword{}, fmt.Errorf("secret version %d: %w", body.Version, store.ErrUnsupported)
	}
	return DevicePassword{UDID: body.UDID, Password: body.Password, Added: body.Added}, nil
}
