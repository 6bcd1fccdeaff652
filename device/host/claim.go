package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// errLocked says that another process has locked a file.
var errLocked = errors.New("locked")

// claim keeps other processes of this user from using the device until release is
// called or the process ends. Without LockDir it does nothing.
func (h Host) claim(udid string) (release func(), err error) {
	if h.LockDir == "" {
		return func() {}, nil
	}
	if err := os.MkdirAll(h.LockDir, 0o700); err != nil {
		return nil, fmt.Errorf("lock the device %s: %w", udid, err)
	}
	name := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r == '-' {
			return r
		}
		return '_'
	}, strings.ToLower(udid))
	f, err := os.OpenFile(filepath.Join(h.LockDir, "device-"+name+".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the device %s: %w", udid, err)
	}
	if err := lockFile(f); err != nil {
		_ = f.Close()
		if errors.Is(err, errLocked) {
			return nil, fmt.Errorf("device %s: %w", udid, ErrInUse)
		}
		return nil, fmt.Errorf("lock the device %s: %w", udid, err)
	}
	return func() { _ = f.Close() }, nil
}
