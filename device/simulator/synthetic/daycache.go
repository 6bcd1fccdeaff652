package synthetic

import (
	"os"
	"sync"
)

// dayCache remembers the databases that tiny devices have at the end of a day. Tests
// make the same days of the same devices again and again, and SQLite takes most of the
// time for it. A nil dayCache remembers nothing.
type dayCache struct {
	mu    sync.Mutex
	files map[dayKey][]byte
	room  int // bytes that may still be added
}

// dayKey says what the bytes of a database depend on.
type dayKey struct {
	conf   Config
	device int
	day    int
	flat   bool
	name   string
}

// cached is the cache of this process.
var cached = newDayCache()

func newDayCache() *dayCache { return &dayCache{files: map[dayKey][]byte{}, room: 64 << 20} }

// databaseDay returns the key of an app database, which does not depend on the
// encryption.
func (d *device) databaseDay(name string) dayKey {
	return dayKey{conf: Config{Seed: d.conf.Seed, Scale: d.conf.Scale, Start: d.conf.Start}, device: d.m.device, day: d.day, name: name}
}

// manifestDay returns the key of the live manifest, which depends on the encryption,
// too.
func (d *device) manifestDay() dayKey {
	k := dayKey{conf: *d.conf, device: d.m.device, day: d.day, flat: d.flat, name: "manifest"}
	k.conf.Devices, k.conf.StateDir = 0, ""
	return k
}

// once makes the file path by calling run, or from what an earlier call with the same
// key made.
func (c *dayCache) once(key dayKey, path string, run func() error) error {
	if c == nil || key.conf.Scale != Tiny {
		return run()
	}
	c.mu.Lock()
	b, ok := c.files[key]
	c.mu.Unlock()
	if ok {
		return os.WriteFile(path, b, 0o600)
	}
	if err := run(); err != nil {
		return err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.files[key]; !ok && len(b) <= c.room {
		c.files[key] = b
		c.room -= len(b)
	}
	return nil
}
