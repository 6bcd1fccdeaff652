package process

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	// minMachineID is the length of the shortest ID that is long enough to be unique.
	minMachineID = 32
	// storedMachine is the file of a random ID below the user's folder for state.
	storedMachine = "snap/machine-id"
)

// machine returns a hash of the ID of this machine. The ID itself is not for other
// machines to see, since it identifies the machine in all programs.
func machine() string {
	id := hardwareID()
	if len(id) < minMachineID {
		id = storedID(stateFolder())
	}
	if len(id) < minMachineID {
		return ""
	}
	mac := hmac.New(sha256.New, []byte(strings.ToLower(id)))
	mac.Write([]byte("snap: the machine of a process, version 1"))
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// stateFolder returns the user's folder for state, or "".
func stateFolder() string {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return dir
	}
	home, err := os.UserHomeDir()
	if err != nil || !filepath.IsAbs(home) {
		return ""
	}
	return filepath.Join(home, ".local", "state")
}

// storedID returns the random ID that is stored in a folder for state, for systems
// without a machine ID. If there is none, it makes one. It returns "" if it cannot.
func storedID(dir string) string {
	if dir == "" {
		return ""
	}
	name := filepath.Join(dir, filepath.FromSlash(storedMachine))
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		b, err = storeID(name)
	}
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// storeID stores a random ID. If another process does that at the same time, the ID of
// one of them counts.
func storeID(name string) ([]byte, error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return nil, err
	}
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails
	temp := name + "-" + hex.EncodeToString(random[:4])
	defer func() { _ = os.Remove(temp) }()
	if err := os.WriteFile(temp, []byte(hex.EncodeToString(random[:])+"\n"), 0o600); err != nil {
		return nil, err
	}
	if err := os.Link(temp, name); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return os.ReadFile(name)
}
