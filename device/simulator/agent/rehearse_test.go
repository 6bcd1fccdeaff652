package agent

import (
	"crypto/sha1"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/simulator/mberror"
	"github.com/snap-backup/snap/internal/scratch"
)

// judgement is a Rehearsal that compares files with their digests.
type judgement struct {
	keys     bool
	files    map[string]int64 // sizes by path
	missing  []string
	refuse   string // a path
	ended    bool
	manifest int64 // its size
}

func (j *judgement) Scratch() (Scratch, error) { return scratch.New("", 1<<20, nil), nil }

func (j *judgement) Manifest(db io.ReaderAt, size int64) error {
	j.manifest = size
	_, err := db.ReadAt(make([]byte, 1), size-1)
	return err
}

func (j *judgement) Begin(_ *manifest.Records, keys *keybag.Keys) error {
	j.keys, j.files = keys != nil, map[string]int64{}
	return nil
}

func (j *judgement) File(rec *manifest.Record, stored io.Reader) error {
	if rec.RelativePath == j.refuse {
		return mberror.Of(mberror.Damaged) // without reading
	}
	sum := sha1.New()
	n, err := io.Copy(sum, stored)
	if err == nil && rec.HasDigest && [20]byte(sum.Sum(nil)) != rec.Digest {
		err = mberror.Of(mberror.Damaged)
	}
	j.files[rec.RelativePath] = n
	return err
}

func (j *judgement) Missing(rec *manifest.Record) error {
	j.missing = append(j.missing, rec.RelativePath)
	return mberror.Of(mberror.Damaged)
}

func (j *judgement) End() error { j.ended = true; return nil }

// rehearsing returns an erased device like d that rehearses.
func rehearsing(t *testing.T, d *device, j *judgement) *device {
	t.Helper()
	a, err := New(Options{Device: d.Device(), Rehearsal: j})
	if err != nil {
		t.Fatal(err)
	}
	return &device{Agent: a, t: t}
}

// A rehearsal gets all files, writes nothing, and goes on after damage.
func TestRehearsal(t *testing.T) {
	for _, password := range []string{"", "secret"} {
		d, h := backedUp(t, password)
		d.writeBackup(h) // with Info.plist
		tmp := t.TempDir()
		t.Setenv("TMPDIR", tmp)
		var j judgement
		phone := rehearsing(t, d, &j)
		run := phone.mustRequest(h, 0, "Restore", "Options", options("Password", password))
		if all := len(j.files); all < 100 || run.Files != all || run.Bytes == 0 || !j.ended || j.manifest < 1000 || j.keys != (password != "") || len(j.missing) > 0 {
			t.Errorf("%d files, %+v", len(j.files), run)
		}
		phone.mustRequest(h, mberror.Generic, "Backup")
		if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}

		all := len(j.files)
		blobs := d.blobs(h, "")
		delete(h.files, blobs[3])
		h.files[blobs[7]][0] ^= 1
		for path := range j.files {
			j.refuse = path
			break
		}
		run = phone.mustRequest(h, mberror.Damaged, "Restore", "Options", options("Password", password))
		if len(j.files) < all-2 || len(j.missing) != 1 || !j.ended {
			t.Errorf("%d of %d files, missing %q, %+v", len(j.files), all, j.missing, run)
		}

		// An error that is no verdict ends the restore.
		broken := rehearsing(t, d, &j)
		broken.opts.Rehearsal = full{&j}
		if response, err := broken.send(h, broken.request("Restore", "Options", options("Password", password))); err == nil {
			t.Errorf("%v", response)
		}
		if run := broken.LastRun(); !strings.Contains(run.Err, "no room") {
			t.Errorf("%+v", run)
		}
		phone.noViolations()
	}
}

// full is a Rehearsal that cannot go on.
type full struct{ *judgement }

func (full) File(*manifest.Record, io.Reader) error { return errors.New("no room") }
