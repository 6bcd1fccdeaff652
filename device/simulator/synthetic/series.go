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

// Device describes one device of a series.
type Device struct {
	UDID           string // also the name of its folder
	Name           string
	ProductType    string
	ProductVersion string
	BuildVersion   string
	SerialNumber   string
	Encrypted      bool
}

// Series is a number of devices that make a backup every day. It is not safe for use by several goroutines at once.
type Series struct {
	conf    Config
	state   string
	devices []*device
	day     int // the day that Next makes
	err     error
}

// maxParallel bounds how many devices are at work at the same time, and with it the memory that a day takes.
const maxParallel = 4

// New begins a series at day 0. It makes a state folder, which Close removes, and nothing else yet.
func New(conf Config) (*Series, error) {
	conf, err := conf.complete()
	if err != nil {
		return nil, err
	}
	state, err := os.MkdirTemp(conf.StateDir, "synthetic-")
	if err != nil {
		return nil, fmt.Errorf("synthetic: state folder: %w", err)
	}
	// The databases are opened by URI, which has no relative form.
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

// Devices lists the devices, in the order in which they were made.
func (s *Series) Devices() []Device {
	list := make([]Device, len(s.devices))
	for i, d := range s.devices {
		list[i] = d.Device
	}
	return list
}

// Day returns the day that the last Next made, or -1 before the first.
func (s *Series) Day() int { return s.day - 1 }

// Time returns when the backup of a device runs on a day.
func (s *Series) Time(device, day int) time.Time {
	return s.devices[device].m.first.Add(time.Duration(day) * 24 * time.Hour)
}

// Password returns the backup password that opens the encrypted devices on a day.
func (s *Series) Password(day int) string {
	if s.conf.PasswordChangeDay > 0 && day >= s.conf.PasswordChangeDay {
		return s.conf.NewPassword
	}
	return s.conf.Password
}

// Next brings dir/<UDID> of every device to the next day, the first call to day 0. It must be called with the same dir each time;
// on day 0 the folders of the devices must not exist. After an error the folders may be anything between two days, and every
// further call gives the same error.
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

// Generate makes the backup folders of a number of days at once, the first of them day 0, and leaves them at the last.
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
