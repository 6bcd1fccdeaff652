package synthetic

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/snap-backup/snap/device/mobilesync/keybag"
)

// filesPerSecond is the number of files that a run sends each second of simulated
// time. It determines mtimes.
const filesPerSecond = 40

// nextMTime returns the mtime of the next file. It is in whole seconds, which every file
// system can store.
func (d *device) nextMTime() time.Time {
	d.sent++
	return d.started.Add(time.Duration(d.sent/filesPerSecond) * time.Second)
}

// send writes a file of the backup folder under a temporary name and renames it. If
// key is not nil, send encrypts the file. If sum is set, d.sum hashes the stored
// bytes. send returns the length of the plain content.
func (d *device) send(name string, key *keybag.FileKey, sum bool, content func(io.Writer) error) (int64, error) {
	temp := filepath.Join(d.root, "upload.new")
	out, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return 0, err
	}
	d.out.Reset(out)
	length, err := d.sendContent(key, sum, content)
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = os.Remove(temp)
		return 0, err
	}
	at := d.nextMTime()
	if err := os.Chtimes(temp, at, at); err != nil {
		return 0, err
	}
	return length, os.Rename(temp, filepath.Join(d.root, name))
}

func (d *device) sendContent(key *keybag.FileKey, sum bool, content func(io.Writer) error) (int64, error) {
	var stored io.Writer = d.out
	if sum {
		stored = io.MultiWriter(d.out, d.sum)
	}
	plain := &counter{w: stored}
	if key != nil {
		encrypter := keybag.NewEncrypter(stored, *key)
		plain.w = encrypter
		if err := content(plain); err != nil {
			return 0, err
		}
		if err := encrypter.Close(); err != nil {
			return 0, err
		}
	} else if err := content(plain); err != nil {
		return 0, err
	}
	if err := d.out.Flush(); err != nil {
		return 0, fmt.Errorf("write: %w", err)
	}
	return plain.n, nil
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
