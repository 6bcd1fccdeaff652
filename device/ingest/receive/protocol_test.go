package receive

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"testing"

	"github.com/snap-backup/snap/device/ingest/passwordchange"
	"github.com/snap-backup/snap/device/materialize"
	"github.com/snap-backup/snap/device/protocol/backup2"
	"github.com/snap-backup/snap/device/restore"
	"github.com/snap-backup/snap/device/simulator/agent"
	"github.com/snap-backup/snap/device/simulator/devicefiles"
	"github.com/snap-backup/snap/device/simulator/faults"
	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
)

// talk opens a session with a simulated device.
func talk(t testing.TB, a *agent.Agent, do func(*backup2.Session) error) error {
	t.Helper()
	ctx := context.Background()
	host, device := net.Pipe()
	ended := make(chan struct{})
	go func() { defer close(ended); _ = a.Serve(ctx, device) }()
	defer func() { <-ended }()
	s, err := backup2.Dial(ctx, host, backup2.Options{})
	if err != nil {
		return err
	}
	return errors.Join(do(s), s.Close())
}

// backUp makes a backup over the protocol.
func backUp(t testing.TB, a *agent.Agent, r *repo.Repo, opts Options) (*Result, error) {
	t.Helper()
	ctx := context.Background()
	opts.UDID = a.Device().UDID
	opts.Encrypted = a.WillEncrypt()
	n, err := New(ctx, r, opts)
	if err != nil {
		return nil, err
	}
	defer n.Close(ctx)
	if err := n.SetInfo([]byte(`<?xml version="1.0"?><plist version="1.0"><dict><key>Product Version</key><string>15.0</string></dict></plist>`)); err != nil {
		return nil, err
	}
	err = talk(t, a, func(s *backup2.Session) error {
		return s.Backup(ctx, backup2.BackupRequest{UDID: opts.UDID, Full: opts.Full}, n, nil)
	})
	if err != nil {
		return nil, errors.Join(err, n.Close(ctx))
	}
	return n.Publish(ctx, PublishOptions{})
}

// verified materializes a snapshot and compares it with the simulated device.
func verified(t testing.TB, a *agent.Agent, r *repo.Repo, s *repo.Snapshot, password string) {
	t.Helper()
	ctx := context.Background()
	res, err := materialize.Write(ctx, r, s, t.TempDir(), materialize.Options{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	diff, err := devicefiles.Verify(ctx, a.Content(), res.Dir, []byte(password))
	if err != nil || len(diff) > 0 {
		t.Errorf("snapshot %s: %v, %v", s.ID.Short(), diff, err)
	}
	if v := a.Violations(); len(v) > 0 {
		t.Errorf("the host did wrong: %v", v)
	}
}

// lab is a simulated device with days of content.
type lab struct {
	t    testing.TB
	days []string
	a    *agent.Agent
}

func newLab(t testing.TB, password string, days int) *lab {
	t.Helper()
	s, err := synthetic.New(synthetic.Config{Seed: 11, Scale: synthetic.Tiny, StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	l := &lab{t: t}
	live := t.TempDir()
	for range days {
		if err := s.Next(context.Background(), live); err != nil {
			t.Fatal(err)
		}
		keep := filepath.Join(t.TempDir(), s.Devices()[0].UDID)
		copyFolder(t, filepath.Join(live, s.Devices()[0].UDID), keep)
		l.days = append(l.days, keep)
	}
	a, err := agent.New(agent.Options{Content: l.content(0), StateDir: t.TempDir(), Password: password, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	l.a = a
	return l
}

func (l *lab) content(day int) devicefiles.Source {
	l.t.Helper()
	c, err := devicefiles.OpenFolder(context.Background(), l.days[day], nil)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { c.Close() })
	return c
}

// A simulated device is backed up over the protocol. The backup is interrupted
// at its steps and repeated. Then the password is changed, and the device is
// restored.
func TestProtocol(t *testing.T) {
	for name, password := range map[string]string{"plain": "", "encrypted": "secret"} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && password == "" {
				t.Skip("the other device does more")
			}
			t.Parallel()
			ctx := context.Background()
			l, be := newLab(t, password, 3), memory.New()
			opts := Options{SpoolDir: t.TempDir()}
			r := createRepo(t, be)
			if password != "" {
				if err := r.KeepDevicePassword(ctx, l.a.Device().UDID, []byte(password)); err != nil {
					t.Fatal(err)
				}
			}
			first, err := backUp(t, l.a, r, opts)
			if err != nil {
				t.Fatal(err)
			}
			verified(t, l.a, r, first.Snapshot, password)
			all := l.a.LastRun().Files
			l.a.SetContent(l.content(1))
			steps := []faults.Step{faults.StepListing, faults.StepUploading, faults.StepUpload, faults.StepManifests, faults.StepMoving, faults.StepMove, faults.StepRemoving, faults.StepFinished, faults.StepVerify}
			for _, i := range faultpoint.Choose(t, len(steps), 3) {
				step := steps[i]
				if err := l.a.SetScript(faults.Script{{At: step, Do: faults.Cut}}); err != nil {
					t.Fatal(err)
				}
				if _, err := backUp(t, l.a, mustOpen(t, be, seed(3+i)), opts); err == nil {
					t.Errorf("%s: the cut was not noticed", step)
				}
			}
			if err := l.a.SetScript(nil); err != nil {
				t.Fatal(err)
			}
			r = mustOpen(t, be, seed(30))
			second, err := backUp(t, l.a, r, opts)
			if err != nil {
				t.Fatal(err)
			}
			verified(t, l.a, r, second.Snapshot, password)
			if run := l.a.LastRun(); run.Full || run.Files > all/2 || second.Snapshot.Parent == nil || *second.Snapshot.Parent != first.Snapshot.ID {
				t.Errorf("%+v, %+v", run, second.Snapshot)
			}
			if password != "" {
				k, err := passwordchange.New(ctx, r, l.a.Device().UDID)
				if err != nil {
					t.Fatal(err)
				}
				err = talk(t, l.a, func(s *backup2.Session) error {
					return s.ChangePassword(ctx, l.a.Device().UDID, []byte(password), []byte("another"), k, nil)
				})
				if err != nil || !k.Changed() {
					t.Fatalf("changed: %v, %v", k.Changed(), err)
				}
				if err := r.KeepDevicePassword(ctx, l.a.Device().UDID, []byte("another")); err != nil {
					t.Fatal(err)
				}
				password = "another"
			}
			l.a.SetContent(l.content(2))
			r = mustOpen(t, be, seed(31))
			third, err := backUp(t, l.a, r, opts)
			if err != nil {
				t.Fatal(err)
			}
			verified(t, l.a, r, third.Snapshot, password)
			if run := l.a.LastRun(); run.Full || run.Files > all/2 || third.Snapshot.Unlocked != (password != "") {
				t.Errorf("%+v, %+v", run, third.Snapshot)
			}
			full := opts
			full.Full = true
			fourth, err := backUp(t, l.a, mustOpen(t, be, seed(32)), full)
			if err != nil {
				t.Fatal(err)
			}
			if run := l.a.LastRun(); !run.Full || run.Files < all/2 || fourth.Snapshot.NewBytes > fourth.Bytes/2 {
				t.Errorf("%+v, %+v", run, fourth.Snapshot)
			}
			for i, snap := range []*repo.Snapshot{third.Snapshot, first.Snapshot} {
				r := mustOpen(t, be, seed(40+i))
				src, err := restore.New(ctx, r, snap, restore.Options{})
				if err != nil {
					t.Fatal(err)
				}
				pw := []byte(password)
				if i == 1 && password != "" {
					pw = []byte("secret")
				}
				err = talk(t, l.a, func(s *backup2.Session) error {
					res, err := s.Restore(ctx, backup2.RestoreRequest{Target: l.a.Device().UDID, Password: pw, Options: backup2.RestoreOptions{RemoveOthers: true, SystemFiles: true, ResetSettings: true}}, src, nil)
					if res.Missing > 0 {
						err = errors.Join(err, fmt.Errorf("%d files were missing", res.Missing))
					}
					return err
				})
				if err != nil {
					t.Fatalf("restore %d: %v", i, err)
				}
				verified(t, l.a, r, snap, string(pw))
			}
			checkClean(t, be)
		})
	}
}
