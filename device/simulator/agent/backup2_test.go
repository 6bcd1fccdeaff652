package agent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"strings"
	"testing"

	"github.com/snap-backup/snap/device/protocol/backup2"
	"github.com/snap-backup/snap/device/simulator/faults"
	"github.com/snap-backup/snap/device/simulator/hostile"
	"github.com/snap-backup/snap/internal/faultpoint"
)

// folder gives backup2 access to the files of a host.
type folder struct{ *host }

func (f folder) Open(_ context.Context, p string) (io.ReadCloser, error) {
	b, ok := f.files[p]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

type folderUpload struct {
	bytes.Buffer
	commit func([]byte)
}

func (u *folderUpload) Commit() error { u.commit(u.Bytes()); return nil }
func (u *folderUpload) Abort()        {}

func (f folder) Create(_ context.Context, p string) (backup2.Upload, error) {
	return &folderUpload{commit: func(b []byte) { f.files[p] = b }}, f.check(p)
}

func (f folder) List(_ context.Context, p string) ([]backup2.Item, error) {
	var out []backup2.Item
	seen := map[string]bool{}
	for _, file := range f.below(p) {
		name, _, dir := strings.Cut(strings.TrimPrefix(file, p+"/"), "/")
		if !seen[name] {
			seen[name] = true
			out = append(out, backup2.Item{Name: name, Dir: dir})
		}
	}
	return out, nil
}

func (f folder) Mkdir(_ context.Context, p string) error       { return f.check(p) }
func (f folder) Move(_ context.Context, from, to string) error { return f.move(from, to, false) }
func (f folder) Copy(_ context.Context, from, to string) error { return f.move(from, to, true) }
func (f folder) Space(context.Context) (int64, error)          { return f.free, nil }
func (f folder) Purge(context.Context, int64) (int64, error)   { return 0, nil }
func (f folder) Remove(_ context.Context, p string) error {
	for _, name := range f.below(p) {
		delete(f.files, name)
	}
	return f.check(p)
}

type silent struct{}

func (silent) Phase(backup2.Phase)       {}
func (silent) Progress(backup2.Progress) {}
func (silent) Warning(string)            {}

// withOurHost connects snap's host to the device and calls do with the session.
func (d *device) withOurHost(do func(context.Context, *backup2.Session) error) error {
	d.t.Helper()
	a, b := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- d.Serve(d.t.Context(), a) }()
	s, err := backup2.Dial(d.t.Context(), b, backup2.Options{})
	if err == nil {
		err = do(d.t.Context(), s)
		_ = s.Close() // fails if the device is gone
	}
	<-served
	return err
}

func (d *device) backupToOurHost(h *host) error {
	return d.withOurHost(func(ctx context.Context, s *backup2.Session) error {
		return s.Backup(ctx, backup2.BackupRequest{UDID: d.Device().UDID}, folder{h}, silent{})
	})
}

// TestOurHost runs snap's host against the agent: backups, a restore
// and a password change.
func TestOurHost(t *testing.T) {
	t.Parallel()
	for _, password := range passwords() {
		d, h := newDevice(t, Options{Password: password}), newHost(t)
		for range 2 {
			if err := d.backupToOurHost(h); err != nil {
				t.Fatal(err)
			}
			d.checkSame(h, password)
			d.SetContent(d.nextDay())
		}
		err := d.withOurHost(func(ctx context.Context, s *backup2.Session) error {
			_, err := s.Restore(ctx, backup2.RestoreRequest{Target: d.Device().UDID, Password: []byte(password),
				Options: backup2.RestoreOptions{SystemFiles: true, RemoveOthers: true}}, folder{h}, silent{})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		d.checkSame(h, password)
		err = d.withOurHost(func(ctx context.Context, s *backup2.Session) error {
			return s.ChangePassword(ctx, d.Device().UDID, []byte(password), []byte("next"), folder{h}, silent{})
		})
		if err != nil || !d.WillEncrypt() {
			t.Fatal(err)
		}
		if password != "" {
			d.checkSame(h, "next")
		}
		d.setScript("begin=fail 208")
		if err := d.backupToOurHost(h); !errors.Is(err, backup2.ErrLocked) {
			t.Errorf("locked: %v", err)
		}
		d.noViolations()
	}
}

// TestOurHostAttacked tests that snap's host resists every attack.
func TestOurHostAttacked(t *testing.T) {
	t.Parallel()
	d, h := newDevice(t, Options{}), newHost(t)
	if err := d.backupToOurHost(h); err != nil {
		t.Fatal(err)
	}
	names := hostile.Names()
	for _, i := range faultpoint.Choose(t, len(names), len(names)) {
		name := names[i]
		if name == "endless-names" || testing.Short() && hostile.Framing(name) {
			continue // a host need not reject empty files with valid names
		}
		before := len(h.files)
		if err := d.SetScript(faults.Script{{At: faults.StepStatus, Do: faults.Attack, Name: name, Bytes: 500}, {At: faults.StepScan, Do: faults.Fail, Code: 202}}); err != nil {
			t.Fatal(err)
		}
		if err := d.backupToOurHost(h); err == nil {
			t.Errorf("%s: the backup counts as complete", name)
		}
		if len(h.files) != before {
			t.Errorf("%s changed something", name)
		}
	}
	d.noViolations()
}
