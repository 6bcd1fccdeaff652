package receive

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/device/ingest"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/protocol/backup2"
	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
)

// A backup that lacks listed files is stored. The next backup works: it continues from
// the last complete snapshot, or the device sends everything.
func TestBackupAfterMissingFiles(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, c := range []struct {
		name     string
		before   bool // whether there is a complete snapshot
		missing  int
		complete bool
		full     bool // whether the next backup is full
	}{
		{"a handful in the first backup", false, 1, true, true},
		{"many in the first backup", false, 30, false, true},
		{"files that the last snapshot has", true, 1, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l, be := newLab(t, "", 3), memory.New()
			r := createRepo(t, be)
			var parent *repo.FileID
			if c.before {
				res, err := backUp(t, l.a, r, Options{})
				if err != nil {
					t.Fatal(err)
				}
				parent = &res.Snapshot.ID
				l.a.SetContent(l.content(1))
				r = mustOpen(t, be, seed(3))
			}
			n, err := New(ctx, r, Options{UDID: l.a.Device().UDID})
			if err != nil {
				t.Fatal(err)
			}
			if err := n.SetInfo([]byte(`<plist version="1.0"><dict/></plist>`)); err != nil {
				t.Fatal(err)
			}
			if err := talk(t, l.a, func(s *backup2.Session) error {
				return s.Backup(ctx, backup2.BackupRequest{UDID: l.a.Device().UDID}, n, nil)
			}); err != nil {
				t.Fatal(err)
			}
			if err := removeBlobs(ctx, n, l, c.missing); err != nil {
				t.Fatal(err)
			}
			res, err := n.Publish(ctx, PublishOptions{Workers: 1})
			if err != nil {
				t.Fatal(err)
			}
			s := res.Snapshot
			if s.Complete != c.complete || !slices.ContainsFunc(s.Findings, func(f repo.Finding) bool {
				return f.Kind == finding.Missing && f.Count == int64(c.missing)
			}) {
				t.Errorf("complete is %v, findings %+v", s.Complete, s.Findings)
			}
			if s.Complete {
				parent = &s.ID
			}

			l.a.SetContent(l.content(2))
			r = mustOpen(t, be, seed(4))
			next, err := backUp(t, l.a, r, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if (next.Snapshot.Parent == nil) != (parent == nil) || parent != nil && *next.Snapshot.Parent != *parent {
				t.Errorf("the next snapshot has the parent %v, not %v", next.Snapshot.Parent, parent)
			}
			if run := l.a.LastRun(); run.Full != c.full {
				t.Errorf("the next backup is full: %v", run.Full)
			}
			if !next.Snapshot.Complete {
				t.Errorf("the next snapshot: %+v", next.Snapshot.Findings)
			}
			verified(t, l.a, mustOpen(t, be, seed(5)), next.Snapshot, "")
			checkClean(t, be)
		})
	}
}

// removeBlobs removes blobs that a receiver has, from the third on.
func removeBlobs(ctx context.Context, n *Receiver, l *lab, count int) error {
	records, err := l.a.Content().Records(ctx)
	if err != nil {
		return err
	}
	var list []manifest.Record
	for _, rec := range records.All() {
		if rec.IsFile() && rec.HasFileID && slices.Contains([]string{"CameraRollDomain", "MediaDomain", "HomeDomain"}, rec.Domain) {
			list = append(list, rec)
		}
	}
	removed := 0
	for _, rec := range list[2:] {
		name := fmt.Sprintf("%x", rec.FileID)
		if slices.Contains([]string{".db", "ite", "edb", "ata"}, rec.RelativePath[len(rec.RelativePath)-3:]) {
			continue
		}
		if err := n.Remove(ctx, l.a.Device().UDID+"/"+name[:2]+"/"+name); err != nil {
			return err
		}
		if removed++; removed == count {
			return nil
		}
	}
	return fmt.Errorf("only %d files", removed)
}

// What a backup has received before it broke off can be stored, at each step. The next
// backup continues it nevertheless.
func TestStoreBrokenBackup(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	broken := errors.New("the cable was pulled")
	for name, encryption := range map[string]synthetic.Encryption{"plain": synthetic.EncryptNone, "encrypted": synthetic.EncryptAll} {
		for _, step := range []string{"file", "manifests", "move", "finish", "verified"} {
			t.Run(name+" "+step, func(t *testing.T) {
				if testing.Short() && (name == "plain") != (step == "file") {
					t.Skip("one of several steps")
				}
				t.Parallel()
				p, be := newPhone(firstDay(t, encryption).dir), memory.New()
				r := createRepo(t, be)
				opts := Options{UDID: p.udid, Encrypted: encryption != synthetic.EncryptNone, SpoolDir: t.TempDir()}
				if opts.Encrypted {
					if err := r.KeepDevicePassword(ctx, p.udid, []byte(synthetic.DefaultPassword)); err != nil {
						t.Fatal(err)
					}
				}
				n, err := New(ctx, r, opts)
				if err != nil {
					t.Fatal(err)
				}
				if err := n.SetInfo(p.read("Info.plist")); err != nil {
					t.Fatal(err)
				}
				files := 0
				p.step = func(at string) error {
					if at == "file" || at == "move" {
						files++
					}
					if at == step && files > 9 {
						return broken
					}
					return nil
				}
				if err := p.backup(ctx, n, nil); !errors.Is(err, broken) {
					t.Fatal(err)
				}
				if !n.HasFiles() {
					t.Error("no files were received")
				}
				res, err := n.Publish(ctx, PublishOptions{Workers: 1, Broken: broken})
				if err != nil {
					t.Fatal(err)
				}
				s := res.Snapshot
				if s.Complete || finding.Worst(s.Findings) != repo.Incomplete || s.Files < 9 {
					t.Errorf("complete is %v, %d files, findings %+v", s.Complete, s.Files, s.Findings)
				}
				checkClean(t, be)

				p.step, p.uploads = nil, 0
				r = mustOpen(t, be, seed(5))
				next := mustRun(t, r, p, nil, opts)
				if next.Resumed.Files == 0 || next.Snapshot.Parent != nil || !next.Snapshot.Complete {
					t.Errorf("the next backup: %+v", next)
				}
				sameAsImport(t, r, p, next.Snapshot, map[bool]string{true: synthetic.DefaultPassword}[opts.Encrypted])
			})
		}
	}
}

// AllowIncomplete stores a backup that would be refused.
func TestAllowIncomplete(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	p := newPhone(firstDay(t, synthetic.EncryptNone).dir)
	for _, allow := range []bool{false, true} {
		be := memory.New()
		createRepo(t, be)
		n := begin(t, be, 2, p)
		if err := p.backup(ctx, n, nil); err != nil {
			t.Fatal(err)
		}
		if err := n.Mkdir(ctx, p.udid+"/Snapshot"); err != nil {
			t.Fatal(err)
		}
		res, err := n.Publish(ctx, PublishOptions{Workers: 1, AllowIncomplete: allow})
		switch {
		case !allow && !errors.Is(err, ingest.ErrIncomplete):
			t.Errorf("%v", err)
		case allow && (err != nil || res.Snapshot.Complete):
			t.Errorf("%+v, %v", res, err)
		}
		mustRun(t, mustOpen(t, be, seed(3)), p, nil, Options{})
	}
}
