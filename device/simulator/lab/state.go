package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/snap-backup/snap/device/simulator"
	"github.com/snap-backup/snap/device/simulator/devicefiles"
	"github.com/snap-backup/snap/device/simulator/synthetic"
)

// stateFile is the name of the file with the state for Resume. Content is not in this
// file. Resume generates content again, day by day. Only restored content is kept, in
// its folder.
const stateFile = "lab.json"

// maxState is the greatest length of the state file in bytes, and maxDays is the
// greatest number of days to generate.
const (
	maxState = 16 << 20
	maxDays  = 10_000
)

type state struct {
	Devices int              `json:"devices"`
	Scale   string           `json:"scale"`
	Seed    uint64           `json:"seed"`
	Day     int              `json:"day"`
	Mux     simulator.Memory `json:"mux"`
	Each    []deviceState    `json:"each"` // devices, those of AddSpare last
}

type deviceState struct {
	UDID     string                 `json:"udid"`
	Name     string                 `json:"name"`
	Password string                 `json:"password,omitempty"` // its backup password
	Asks     bool                   `json:"asks,omitempty"`
	Restored string                 `json:"restored,omitempty"` // folder, relative to the lab's folder
	Memory   simulator.DeviceMemory `json:"memory"`
}

// Save writes a file to the lab's folder, for Resume. The file has the devices, the day
// of their content, the trusted hosts, the backup passwords and AskPasscode. Other
// changes by Do, such as to a battery, are not saved.
func (l *Lab) Save() error {
	st := state{Devices: l.opts.Devices, Scale: l.opts.Scale.String(), Seed: l.opts.Seed, Day: l.Day(), Mux: l.Mux.Memory()}
	for _, d := range l.Devices() {
		memory, err := d.Memory()
		if err != nil {
			return err
		}
		each := deviceState{UDID: d.UDID(), Name: d.Name(), Password: d.Agent.Password(), Memory: memory}
		d.mu.Lock()
		each.Asks = d.asks
		d.mu.Unlock()
		if c, ok := d.Agent.Content().(*devicefiles.Folder); ok && c.Dir() != d.folder {
			if each.Restored, err = filepath.Rel(l.opts.Dir, c.Dir()); err != nil {
				return err
			}
		}
		st.Each = append(st.Each, each)
	}
	b, err := json.MarshalIndent(st, "", " ")
	if err != nil {
		return err
	}
	path := filepath.Join(l.opts.Dir, stateFile)
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// Resume creates the devices that Save saved in o.Dir. found is false if nothing is
// saved there. Resume ignores the fields of o that describe the devices.
func Resume(ctx context.Context, o Options) (l *Lab, found bool, err error) {
	st, err := readState(filepath.Join(o.Dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, true, fmt.Errorf("devices of %s: %w", o.Dir, err)
	}
	if l, err = st.resume(ctx, o); err != nil {
		return nil, true, fmt.Errorf("devices of %s: %w", o.Dir, err)
	}
	return l, true, nil
}

func readState(path string) (*state, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxState+1))
	if err != nil {
		return nil, err
	}
	return parseState(b)
}

func parseState(b []byte) (*state, error) {
	if len(b) > maxState {
		return nil, errors.New("its " + stateFile + " is too large")
	}
	var st state
	if err := json.Unmarshal(b, &st); err != nil {
		return nil, fmt.Errorf("its %s: %w", stateFile, err)
	}
	if st.Devices < 1 || st.Devices > len(st.Each) || st.Day < 0 || st.Day > maxDays {
		return nil, fmt.Errorf("its %s is invalid", stateFile)
	}
	for _, d := range st.Each {
		if d.Restored != "" && !filepath.IsLocal(d.Restored) {
			return nil, fmt.Errorf("its %s names the folder %q", stateFile, d.Restored)
		}
		if own := stateFolder(d.UDID); filepath.Base(own) != own || !filepath.IsLocal(own) {
			return nil, fmt.Errorf("its %s names the device %q", stateFile, d.UDID)
		}
	}
	return &st, nil
}

func (st *state) resume(ctx context.Context, o Options) (*Lab, error) {
	var err error
	if o.Scale, err = synthetic.ParseScale(st.Scale); err != nil {
		return nil, err
	}
	if err := removeGenerated(o.Dir); err != nil {
		return nil, err
	}
	o.Devices, o.Seed, o.Untrusted = st.Devices, st.Seed, true // the trusted hosts come from st instead
	o.saved = map[string]*deviceState{}
	for i := range st.Each {
		o.saved[st.Each[i].UDID] = &st.Each[i]
	}
	l, err := newLab(o)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(l.Mux.Remember(st.Mux), st.fill(ctx, l)); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (st *state) fill(ctx context.Context, l *Lab) error {
	if err := l.fill(ctx); err != nil {
		return err
	}
	for range st.Day {
		if err := l.NextDay(ctx); err != nil {
			return err
		}
	}
	for _, d := range st.Each[st.Devices:] {
		if _, err := l.AddSpare(ctx, simulator.Spec{UDID: d.UDID, Name: d.Name}); err != nil {
			return err
		}
	}
	for _, d := range l.Devices() {
		saved := l.opts.saved[d.UDID()]
		if saved == nil || saved.Restored == "" {
			continue
		}
		content, err := devicefiles.OpenFolder(ctx, filepath.Join(l.opts.Dir, saved.Restored), nil)
		if err != nil {
			return err
		}
		d.Agent.SetContent(content)
		d.content = append(d.content, content)
	}
	return nil
}

// stateFolder returns the name of the state folder of a device's agent, which is in
// the lab's folder.
func stateFolder(udid string) string { return "state-" + udid }

// removeGenerated removes the files that Resume generates again, including those that
// a killed run left. It does not follow links out of dir.
func removeGenerated(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, pattern := range []string{"content", "spare*", "synthetic-*", stateFolder("*") + "/run-*"} {
		found, err := fs.Glob(root.FS(), pattern)
		if err != nil {
			return err
		}
		for _, f := range found {
			if err := root.RemoveAll(f); err != nil {
				return err
			}
		}
	}
	return nil
}
