package synthetic

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
)

// Device describes a device of a series.
type Device struct {
	UDID           string // also the name of its backup folder
	Name           string
	ProductType    string
	ProductVersion string
	BuildVersion   string
	SerialNumber   string
	Encrypted      bool
}

// Series is a series of daily backups of some devices. It is not safe for concurrent
// use.
type Series struct {
	conf    Config
	state   string
	devices []*device
	day     int // day that the next call of Next makes
	err     error
}

// maxParallel is the greatest number of devices that are updated concurrently. It also
// limits the memory.
const maxParallel = 4

// New begins a series. It creates only a state folder, which Close removes. The first
// Next makes day 0.
func New(conf Config) (*Series, error) {
	conf, err := conf.complete()
	if err != nil {
		return nil, err
	}
	state, err := os.MkdirTemp(conf.StateDir, "synthetic-")
	if err != nil {
		return nil, fmt.Errorf("synthetic: state folder: %w", err)
	}
	// Databases are opened by URI, and a URI cannot have a relative path.
	if state, err = filepath.Abs(state); err != nil {
		return nil, fmt.Errorf("synthetic: state folder: %w", err)
	}
	s := &Series{conf: conf, state: state}
	words := newLexicon()
	for i := range conf.Devices {
		dir := filepath.Join(state, fmt.Sprint(i))
		if err := os.Mkdir(dir, 0o700); err != nil {
			return nil, errors.Join(fmt.Errorf("synthetic: state folder: %w", err), s.Close())
		}
		s.devices = append(s.devices, newDevice(&s.conf, i, dir, words))
	}
	return s, nil
}

// Devices returns the devices in order.
func (s *Series) Devices() []Device {
	list := make([]Device, len(s.devices))
	for i, d := range s.devices {
		list[i] = d.Device
	}
	return list
}

// Day returns the day of the last Next, or -1 before the first one.
func (s *Series) Day() int { return s.day - 1 }

// Time returns the time of a device's backup on a day.
func (s *Series) Time(device, day int) time.Time {
	return s.devices[device].m.first.Add(time.Duration(day) * 24 * time.Hour)
}

// Password returns the backup password of encrypted devices on a day.
func (s *Series) Password(day int) string {
	if s.conf.PasswordChangeDay > 0 && day >= s.conf.PasswordChangeDay {
		return s.conf.NewPassword
	}
	return s.conf.Password
}

// Next updates dir/<UDID> of every device to the next day. The first call creates these
// folders with day 0; they must not exist before. dir must be the same at each call. If
// Next fails, a folder may be in any state between two days, and each further call
// returns the same error.
func (s *Series) Next(ctx context.Context, dir string) error {
	if s.err != nil {
		return s.err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxParallel)
	for _, d := range s.devices {
		group.Go(func() error {
			if err := d.run(ctx, dir, s.day); err != nil {
				return fmt.Errorf("synthetic: device %s, day %d: %w", d.UDID, s.day, err)
			}
			return nil
		})
	}
	if s.err = group.Wait(); s.err != nil {
		return s.err
	}
	s.day++
	return nil
}

// Generate creates backup folders and updates them day by day. days is the number of
// days, including day 0.
func Generate(ctx context.Context, dir string, conf Config, days int) (devices []Device, err error) {
	s, err := New(conf)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	for range days {
		if err := s.Next(ctx, dir); err != nil {
			return nil, err
		}
	}
	return s.Devices(), nil
}

var errClosed = errors.New("synthetic: series is closed")

// Close removes the state folder. The backup folders stay.
func (s *Series) Close() error {
	s.err = errClosed
	for _, d := range s.devices {
		d.forgetKeys()
	}
	if err := os.RemoveAll(s.state); err != nil {
		return fmt.Errorf("synthetic: close: %w", err)
	}
	return nil
}
