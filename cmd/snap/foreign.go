package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// address fits what other programs take as the address of a repository. A letter before
// the colon is a drive of Windows.
var address = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.@-]+:`)

// checkAddress returns an error if a repository's folder looks like an address, which snap
// does not open.
func checkAddress(dir string) error {
	if !address.MatchString(dir) || isAddress(dir) {
		return nil
	}
	if _, err := os.Lstat(dir); err == nil {
		return nil
	}
	return usageError{advised{fmt.Errorf("%s is an address that snap does not open", dir),
		"snap opens folders, s3:https://HOST/BUCKET, sftp:USER@HOST:/PATH, rest:https://HOST/PATH (a server that runs \"snap serve\") and rclone:REMOTE:PATH; mount another share or server first, then name the folder where it is mounted"}}
}

// foreignRepository returns the name of the program whose repository is in a folder, or "".
func foreignRepository(dir string) string {
	has := func(names ...string) bool {
		for _, name := range names {
			if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
				return false
			}
		}
		return true
	}
	switch {
	case has("kopia.repository.f"), has("kopia.repository"):
		return "kopia"
	case has("config", "data", "keys", "snapshots", "index"):
		return "restic"
	case has("config", "data") && beginsWith(filepath.Join(dir, "config"), "[repository]"):
		return "borg"
	}
	return ""
}

func beginsWith(file, text string) bool {
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, len(text))
	_, err = io.ReadFull(f, head)
	return err == nil && bytes.Equal(head, []byte(text))
}

// foreignError says that a folder has the repository of another program.
func foreignError(dir, program string, err error) error {
	return advised{fmt.Errorf("%s has a repository of %s, which snap does not read: %w", dir, program, err),
		fmt.Sprintf("nothing was done; choose another folder with -r; \"snap import FOLDER\" stores a backup that %s has restored", program)}
}

// rewordFlagError explains flags that other programs have.
func rewordFlagError(command string, err error) error {
	switch text := err.Error(); {
	case command == "restore" && strings.HasPrefix(text, "unknown flag: --"+"target"):
		return advised{usageError{errors.New("a restore writes to a device, not to a folder")}, `"snap materialize SNAPSHOT TARGET" writes a backup folder`}
	case strings.Contains(text, `for "-v, --verbose" flag`):
		return usageError{errors.New("--verbose has no levels: give it without a number")}
	}
	return usageError{err}
}
