package synthetic

import (
	"bufio"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/snap-backup/snap/device/mobilesync/keybag"
)

// device is a device with its backup agent.
type device struct {
	Device
	*contents
	state string // folder of the live databases
	cache *dayCache
	flat  bool // whether backups have the layout of iOS 9 and earlier

	bag         []byte
	keys        *keybag.Keys // nil if the device is not encrypted
	manifestKey []byte

	root    string // path of the backup folder, set during a run
	started time.Time
	sent    int // number of files sent in the run, which determines mtimes
	out     *bufio.Writer
	sum     hash.Hash
	copyBuf []byte
}

func newDevice(conf *Config, index int, state string, words *lexicon) *device {
	first := conf.Start.Add(time.Duration(index) * 17 * time.Minute)
	m := &maker{seed: conf.Seed, device: index, words: words, first: first}
	d := &device{
		contents: &contents{m: m, shape: &shapes[conf.Scale], conf: conf, rows: map[string]*file{}, inodes: 4000},
		Device:   identity(m.stream("identity"), index, conf.encrypted(index)),
		state:    state,
		cache:    cached,
		out:      bufio.NewWriterSize(nil, 128<<10),
		sum:      sha1.New(),
		copyBuf:  make([]byte, 128<<10),
	}
	return d
}

// models lists the models of devices. The devices of a series take them in turn.
var models = []Device{
	{Name: "Anna’s iPhone", ProductType: "iPhone14,5", ProductVersion: "17.6.1", BuildVersion: "21G93"},
	{Name: "Büro-iPad 📱", ProductType: "iPad13,18", ProductVersion: "18.2", BuildVersion: "22C152"},
	{Name: "Old iPhone", ProductType: "iPhone10,6", ProductVersion: "16.7.10", BuildVersion: "20H350"},
	{Name: "Jonas’ iPhone 16", ProductType: "iPhone17,1", ProductVersion: "18.2", BuildVersion: "22C152"},
	{Name: "Küche", ProductType: "iPad11,6", ProductVersion: "17.7", BuildVersion: "21H16"},
}

// oldModel is the index of a model whose UDIDs have the form used before 2018.
const oldModel = 2

func identity(s stream, index int, encrypted bool) Device {
	d := models[index%len(models)]
	if n := index / len(models); n > 0 {
		d.Name = fmt.Sprintf("%s %d", d.Name, n+1)
	}
	d.Encrypted = encrypted
	d.SerialNumber = strings.ToUpper(s.hex(6))
	if index%len(models) == oldModel {
		d.UDID = s.hex(20)
	} else {
		d.UDID = fmt.Sprintf("00008110-%s", strings.ToUpper(s.hex(8)))
	}
	return d
}

// run makes the backup of one day.
func (d *device) run(ctx context.Context, dir string, day int) error {
	d.begin(day)
	d.root, d.sent = filepath.Join(dir, d.UDID), 0
	d.started = d.m.first.Add(time.Duration(day) * 24 * time.Hour)
	full := d.conf.fullRun(day, d.Encrypted)
	if day == 0 {
		if err := d.makeFolders(); err != nil {
			return err
		}
		d.firstDay()
	} else {
		d.nextDay()
	}
	if full {
		if err := d.newKeys(); err != nil {
			return err
		}
		for _, f := range d.order {
			if f != nil && f.hasBlob() {
				d.changed.add(f)
			}
		}
	}
	if err := d.advanceDatabases(ctx); err != nil {
		return err
	}
	if err := d.sendBlobs(ctx); err != nil {
		return err
	}
	if err := d.sendIndex(ctx); err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	return d.sendPlists(full)
}

// sendIndex writes the manifest.
func (d *device) sendIndex(ctx context.Context) error {
	if d.flat {
		return d.sendRecords()
	}
	if err := d.updateManifest(ctx); err != nil {
		return err
	}
	return d.sendManifest()
}

func (d *device) makeFolders() error {
	if err := os.MkdirAll(filepath.Dir(d.root), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(d.root, 0o755); err != nil {
		return err
	}
	for i := 0; i < 256 && !d.flat; i++ {
		if err := os.Mkdir(filepath.Join(d.root, fmt.Sprintf("%02x", i)), 0o755); err != nil {
			return err
		}
	}
	return nil
}

func (d *device) advanceDatabases(ctx context.Context) error {
	for i, f := range d.databases {
		f.db.live = filepath.Join(d.state, fmt.Sprintf("%d.db", i))
		x := &session{ctx: ctx, m: d.m, shape: d.shape, s: d.m.stream("database", f.name(), d.day), day: d.day, from: d.from, to: d.to,
			photos: d.newPhotos, attachments: d.newAttachments}
		if err := d.cache.once(d.databaseDay(f.name()), f.db.live, func() error { return f.db.run(x) }); err != nil {
			return err
		}
	}
	return nil
}

func (d *device) sendBlobs(ctx context.Context) error {
	for _, f := range d.changed.put {
		if !f.hasBlob() || d.rows[f.name()] != f {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := d.sendBlob(ctx, f); err != nil {
			return fmt.Errorf("%s: %w", f.name(), err)
		}
	}
	for _, f := range d.changed.removed {
		if err := os.Remove(filepath.Join(d.root, d.blobName(f))); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// blobName returns the path of a blob in the backup folder.
func (d *device) blobName(f *file) string {
	id := f.id()
	if d.flat {
		return id
	}
	return filepath.Join(id[:2], id)
}

func (d *device) sendBlob(ctx context.Context, f *file) error {
	var key *keybag.FileKey
	if d.Encrypted {
		drawn := d.drawKey("file key", f.name(), d.day)
		wrapped, err := d.keys.Wrap(f.class, drawn)
		if err != nil {
			return err
		}
		f.key = wrapped
		if f.kind != kindDataless && (f.kind != kindEmpty || !d.conf.EmptyAsZeroBytes) {
			key = &drawn
		}
	}
	d.sum.Reset()
	length, err := d.send(d.blobName(f), key, hasDigest(f.domain), func(w io.Writer) error {
		if f.kind != kindDatabase {
			return d.m.write(w, f)
		}
		source, err := f.db.snapshot(ctx, d.conf.CompactDBs)
		if err != nil {
			return err
		}
		return copyDatabase(w, source, d.copyBuf)
	})
	if err != nil {
		return err
	}
	f.length = length
	if hasDigest(f.domain) {
		f.digest = d.sum.Sum(nil)
	}
	return nil
}

// drawKey draws a file key from a stream of its own, so that encryption does not change
// the content.
func (d *device) drawKey(parts ...any) (key keybag.FileKey) {
	_, _ = d.m.stream(append([]any{"crypto"}, parts...)...).Read(key[:])
	return key
}

func (d *device) newKeys() error {
	d.forgetKeys()
	opt := keybag.NewOptions{Iter: 20, DPIC: 50, OneStage: d.flat}
	if d.conf.RealRounds {
		opt.Iter, opt.DPIC = keybag.DefaultIter, keybag.DefaultDPIC
	}
	var password string
	if d.Encrypted {
		password = d.conf.Password
		if d.conf.PasswordChangeDay > 0 && d.day >= d.conf.PasswordChangeDay {
			password = d.conf.NewPassword
		}
	}
	bag, keys, err := keybag.New(d.m.stream("crypto", "keybag", d.day), []byte(password), opt)
	if err != nil {
		return err
	}
	d.bag, d.keys = bag, keys
	return nil
}

func (d *device) forgetKeys() {
	if d.keys != nil {
		d.keys.Destroy()
	}
}
