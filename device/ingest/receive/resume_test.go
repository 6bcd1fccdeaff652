package receive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/repo/backend/memory"
)

var errCable = errors.New("the cable was pulled")

// breakAt returns a function that interrupts a backup when it reaches a step
// for the n-th time.
func breakAt(step string, n int) func(string) error {
	return func(name string) error {
		if name == step {
			if n--; n == 0 {
				return errCable
			}
		}
		return nil
	}
}

// A backup that is interrupted anywhere does not change the last snapshot. The
// next backup does not receive the same files again.
func TestResume(t *testing.T) {
	for name, encryption := range kinds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			s, base := newSeries(t, synthetic.Config{Seed: 6, Encryption: encryption}), memory.New()
			spools := t.TempDir()
			opts := Options{Encrypted: encryption != synthetic.EncryptNone, SpoolDir: spools}
			s.next()
			r := createRepo(t, base)
			if opts.Encrypted {
				if err := r.KeepDevicePassword(ctx, s.phone.udid, []byte(s.Password(0))); err != nil {
					t.Fatal(err)
				}
			}
			first := mustRun(t, r, s.phone, nil, opts)
			old := s.phone.state()
			before, err := folderContents(s.phone.dir)
			if err != nil {
				t.Fatal(err)
			}
			s.next()
			after, err := folderContents(s.phone.dir)
			if err != nil {
				t.Fatal(err)
			}
			undisturbed := newPhone(s.phone.dir)
			mustRun(t, mustOpen(t, base.Clone(), seed(3)), undisturbed, old, opts)
			cases := []struct {
				step string
				n    int
				most int // uploads of the next backup
			}{
				{"file", 1, undisturbed.uploads}, {"file", 10, undisturbed.uploads - 9}, {"file", 20, undisturbed.uploads - 19},
				{"manifests", 1, 8}, {"move", 1, 3}, {"move", 7, 3}, {"finish", 1, 3}, {"verified", 1, 3},
			}
			for _, i := range faultpoint.Choose(t, 2*len(cases), 5) {
				c, killed := cases[i/2], i%2 == 1
				{
					be := base.Clone()
					p := newPhone(s.phone.dir)
					p.step = breakAt(c.step, c.n)
					o := opts
					if killed {
						o.CheckpointBytes = 1 // after each file
					}
					o.UDID = p.udid
					n, err := New(ctx, mustOpen(t, be, seed(4)), o)
					if err != nil {
						t.Fatal(err)
					}
					if err := p.backup(ctx, n, old); !errors.Is(err, errCable) {
						t.Fatalf("%v: %v", c, err)
					}
					if killed {
						n.mu.Lock()
						n.release() // nothing is saved
						n.mu.Unlock()
					} else if err := n.Close(ctx); err != nil {
						t.Fatal(err)
					}
					checkClean(t, be)
					r := mustOpen(t, be, seed(5))
					snap, err := r.FindSnapshot(ctx, "latest")
					if err != nil || snap.ID != first.Snapshot.ID {
						t.Fatalf("%v: %v, %v", c, snap, err)
					}
					got, err := snapshotContents(r, snap)
					if err == nil {
						err = sameContents(before, got)
					}
					if err != nil {
						t.Fatalf("%v: %v", c, err)
					}
					p.step, p.uploads = nil, 0
					res, err := run(r, p, old, opts)
					if err != nil {
						t.Fatalf("%v, killed %v: the next run: %v", c, killed, err)
					}
					if p.uploads > c.most+1 || res.Resumed.Files == 0 && c.n > 1 {
						t.Errorf("%v, killed %v: %d uploads, resumed %+v", c, killed, p.uploads, res.Resumed)
					}
					got, err = snapshotContents(mustOpen(t, be, seed(6)), res.Snapshot)
					if err == nil {
						err = sameContents(after, got)
					}
					if err != nil {
						t.Errorf("%v, killed %v: %v", c, killed, err)
					}
					if list, _, err := r.Unfinished(ctx); err != nil || len(list) > 0 {
						t.Errorf("%v: unfinished runs are left: %v, %v", c, list, err)
					}
					if left, err := filepath.Glob(filepath.Join(spools, "*")); err != nil || len(left) > 0 {
						t.Errorf("%v: spools are left: %v, %v", c, left, err)
					}
				}
			}
		})
	}
}

// The device is shown no file that was cut off, and no earlier version of a
// file that it sent again. Otherwise it would think that the host has the last
// version.
func TestResumeShowsNothingStale(t *testing.T) {
	for name, encryption := range kinds() {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			t.Parallel()
			device, be := firstDay(t, encryption), memory.New()
			r := createRepo(t, be)
			if err := r.KeepDevicePassword(ctx, device.udid, []byte(synthetic.DefaultPassword)); err != nil {
				t.Fatal(err)
			}
			opts := Options{UDID: device.udid, Encrypted: encryption != synthetic.EncryptNone, SpoolDir: t.TempDir(), CheckpointBytes: 1}
			p := newPhone(device.dir)
			p.again = true
			p.step = breakAt("again", 5) // of the fifth file, only the first version is saved
			n, err := New(ctx, r, opts)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.backup(ctx, n, nil); !errors.Is(err, errCable) {
				t.Fatal(err)
			}
			fifth := p.blobs()[4]
			up, err := n.Create(ctx, p.udid+"/Snapshot/"+fifth)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := up.Write([]byte("the second version, cut")); err != nil {
				t.Fatal(err)
			}
			n.release() // killed
			next, err := New(ctx, mustOpen(t, be, seed(5)), opts)
			if err != nil {
				t.Fatal(err)
			}
			defer next.Close(ctx)
			names, err := p.names(ctx, next, p.udid+"/Snapshot")
			if err != nil || len(names) != 4 || names[fifth] || next.Resumed().Files != 4 {
				t.Errorf("%d names, the fifth: %v; %+v, %v", len(names), names[fifth], next.Resumed(), err)
			}
			for path := range names {
				b, err := get(ctx, next, p.udid+"/Snapshot/"+path)
				if err != nil || string(b) != string(p.read(path)) {
					t.Errorf("%s: %d bytes, %v", path, len(b), err)
				}
			}
		})
	}
}

// If the spool or a part of it is lost, the device sends the lost files again.
func TestSpoolLost(t *testing.T) {
	ctx := context.Background()
	t.Parallel()
	device, be := firstDay(t, synthetic.EncryptAll), memory.New()
	r := createRepo(t, be)
	if err := r.KeepDevicePassword(ctx, device.udid, []byte(synthetic.DefaultPassword)); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		step   string
		n      int
		damage func(dir string) error
		files  int64
	}{
		{"file", 20, os.RemoveAll, 0},
		{"move", 3, os.RemoveAll, 0},
		{"file", 20, func(dir string) error { return halve(filepath.Join(dir, "data")) }, -1},
		{"file", 20, func(dir string) error {
			f, err := os.OpenFile(filepath.Join(dir, "index"), os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteString(`{"path":"Snapshot/cut`)
			return err
		}, 19},
	}
	for _, i := range faultpoint.Choose(t, len(cases), len(cases)) {
		c, be := cases[i], be.Clone()
		opts := Options{UDID: device.udid, Encrypted: true, SpoolDir: t.TempDir()}
		p := newPhone(device.dir)
		p.step = breakAt(c.step, c.n)
		if _, err := run(mustOpen(t, be, seed(4)), p, nil, opts); !errors.Is(err, errCable) {
			t.Fatal(err)
		}
		left, err := filepath.Glob(filepath.Join(opts.SpoolDir, "*"))
		if err != nil || len(left) != 1 {
			t.Fatal(left, err)
		}
		info, err := os.Stat(filepath.Join(left[0], "data"))
		if err != nil || info.Mode().Perm() != 0o600 || info.Size() == 0 {
			t.Error(info, err)
		}
		if err := c.damage(left[0]); err != nil {
			t.Fatal(err)
		}
		p.step = nil
		res, err := run(mustOpen(t, be, seed(5)), p, nil, opts)
		if err != nil {
			t.Fatal(err)
		}
		if c.files >= 0 && res.Resumed.Files != c.files || c.files < 0 && (res.Resumed.Files == 0 || res.Resumed.Files > 18) {
			t.Errorf("%s: resumed %+v", c.step, res.Resumed)
		}
		want, _ := folderContents(p.dir)
		got, err := snapshotContents(mustOpen(t, be, seed(6)), res.Snapshot)
		if err == nil {
			err = sameContents(want, got)
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// An interrupted backup is not continued if the device begins another run, or
// if the device has a newer snapshot.
func TestOtherRun(t *testing.T) {
	if testing.Short() {
		t.Skip("it needs four days of a device")
	}
	ctx := context.Background()
	t.Parallel()
	s, be := newSeries(t, synthetic.Config{Seed: 8}), memory.New()
	s.next()
	createRepo(t, be)
	p := newPhone(s.phone.dir)
	for _, step := range []string{"manifests", "finish"} {
		p.step = breakAt(step, 1)
		if _, err := run(mustOpen(t, be, seed(2)), p, nil, Options{}); !errors.Is(err, errCable) {
			t.Fatal(err)
		}
		s.next()
		p.step, p.run, p.sent = nil, "", nil // the phone has forgotten its run
		p.step = breakAt("file", 30)
		if _, err := run(mustOpen(t, be, seed(3)), p, nil, Options{}); !errors.Is(err, errCable) {
			t.Fatal(err)
		}
		n, err := New(ctx, mustOpen(t, be, seed(4)), Options{UDID: p.udid})
		if err != nil {
			t.Fatal(err)
		}
		if got := n.Resumed().Files; got != 29 {
			t.Errorf("after %s: %d files are shown, want those of the other run, 29", step, got)
		}
		if err := n.Close(ctx); err != nil {
			t.Fatal(err)
		}
	}
	p.step = nil
	mustRun(t, mustOpen(t, be, seed(5)), p, nil, Options{})
	old := p.state()
	s.next()
	p.step = breakAt("file", 5)
	if _, err := run(mustOpen(t, be, seed(6)), p, old, Options{}); !errors.Is(err, errCable) {
		t.Fatal(err)
	}
	r := mustOpen(t, be, seed(7))
	snap, err := r.FindSnapshot(ctx, "latest")
	if err != nil {
		t.Fatal(err)
	}
	importFolder(t, r, p) // meanwhile another host has stored a newer backup
	n, err := New(ctx, mustOpen(t, be, seed(8)), Options{UDID: p.udid})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close(ctx)
	if n.Resumed().Files != 0 || n.Parent() == nil || n.Parent().ID == snap.ID {
		t.Errorf("continues %v with %+v", n.Parent(), n.Resumed())
	}
}

func TestStatusOfNothing(t *testing.T) {
	for _, b := range []string{"", "bplist00", "<plist><array/></plist>", fmt.Sprint(make([]byte, 100))} {
		if s := parseStatus([]byte(b)); s != (status{}) {
			t.Errorf("%q: %+v", b, s)
		}
	}
}

// halve removes the second half of a file.
func halve(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return os.Truncate(path, info.Size()/2)
}

// A backup in the flat layout of old devices is not continued.
func TestFlatIsNotContinued(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	d, err := synthetic.GenerateLegacy(ctx, dir, synthetic.Config{Scale: synthetic.Tiny, StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	r := createRepo(t, memory.New())
	importFolder(t, r, newPhone(filepath.Join(dir, d.UDID)))
	n, err := New(ctx, r, Options{UDID: d.UDID})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close(ctx)
	if _, err := n.Open(ctx, d.UDID+"/Status.plist"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
