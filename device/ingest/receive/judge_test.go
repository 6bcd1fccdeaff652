package receive

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/repo/backend/memory"
)

// Received files are compared with their digests, and databases with their headers, as
// they arrive: they are not read again. This is also true for files that were encrypted and
// are decrypted at the end.
func TestReceivedFilesAreJudged(t *testing.T) {
	t.Parallel()
	for name, encryption := range map[string]synthetic.Encryption{"plain": synthetic.EncryptNone, "encrypted": synthetic.EncryptAll} {
		for kind, resumed := range map[string]bool{"at once": false, "interrupted": true} {
			t.Run(name+" "+kind, func(t *testing.T) {
				t.Parallel()
				testJudge(t, encryption != synthetic.EncryptNone, resumed)
			})
		}
	}
}

func testJudge(t *testing.T, encrypted, interrupted bool) {
	ctx := context.Background()
	encryption := map[bool]synthetic.Encryption{true: synthetic.EncryptAll, false: synthetic.EncryptNone}[encrypted]
	p, be := newPhone(firstDay(t, encryption).dir), memory.New()
	r := createRepo(t, be)
	opts := Options{UDID: p.udid, Encrypted: encrypted, SpoolDir: t.TempDir()}
	if encrypted {
		if err := r.KeepDevicePassword(ctx, p.udid, []byte(synthetic.DefaultPassword)); err != nil {
			t.Fatal(err)
		}
	}
	turned, cut := victims(t, p, encrypted)
	n, err := New(ctx, r, opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.SetInfo(p.read("Info.plist")); err != nil {
		t.Fatal(err)
	}
	// The phone sends files with a turned byte, and a database without its last block.
	spoil := func() error {
		b := slices.Clone(p.read(turned))
		b[len(b)/3] ^= 1
		if err := p.put(ctx, n, "Snapshot/"+turned, b); err != nil {
			return err
		}
		b = p.read(cut)
		return p.put(ctx, n, "Snapshot/"+cut, b[:len(b)/2/16*16])
	}
	stop := errors.New("stop")
	p.step = func(name string) error {
		if name != "manifests" {
			return nil
		}
		if err := spoil(); err != nil {
			return err
		}
		if interrupted {
			return stop
		}
		return nil
	}
	err = p.backup(ctx, n, nil)
	if interrupted {
		if !errors.Is(err, stop) {
			t.Fatal(err)
		}
		if err := n.Close(ctx); err != nil {
			t.Fatal(err)
		}
		p.step = nil
		n, err = New(ctx, mustOpen(t, be, seed(3)), opts)
		if err != nil || n.Resumed().Files == 0 {
			t.Fatal(err)
		}
		err = p.backup(ctx, n, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	res, err := n.Publish(ctx, PublishOptions{Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]string{}
	for _, f := range res.Import.Findings {
		found[f.Kind] = append(found[f.Kind], f.Names...)
	}
	name := func(path string) string { return path[len("xx/"):] }
	has := func(kind, path string) bool {
		return slices.ContainsFunc(found[kind], func(s string) bool { return len(s) > 42 && s[len(s)-41:len(s)-1] == name(path) })
	}
	// The record of an interrupted backup has no digests. A file that has the right size
	// is not read again.
	if digest := !interrupted || encrypted; has(finding.Digest, turned) != digest {
		t.Errorf("the turned byte of %s: findings %+v", turned, found)
	}
	if damaged := has(finding.Database, cut) || has(finding.Cipher, cut) || has(finding.Digest, cut); !damaged {
		t.Errorf("the cut database %s: findings %+v", cut, found)
	}
	if !encrypted && !interrupted && res.Import.ReadFiles > 0 {
		t.Errorf("%d files were read again", res.Import.ReadFiles)
	}
	if res.Snapshot.Complete {
		t.Errorf("the snapshot is complete: %+v", found)
	}
}

// victims returns the paths of a file with a digest and of a database without one.
func victims(t *testing.T, p *phone, encrypted bool) (file, database string) {
	t.Helper()
	ctx := context.Background()
	b, err := mobilesync.Open(ctx, p.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if encrypted {
		keys, err := b.Unlock(ctx, []byte(synthetic.DefaultPassword), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer keys.Destroy()
	}
	records, err := b.Records(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, rec := range records.All() {
		path := fmt.Sprintf("%02x/%x", rec.FileID[0], rec.FileID)
		switch {
		case !rec.IsFile() || rec.Size < 1000:
		case rec.HasDigest && file == "" && !mobilesync.NamedLikeDatabase(rec.RelativePath):
			file = path
		case !rec.HasDigest && database == "" && mobilesync.NamedLikeDatabase(rec.RelativePath) && (encrypted || manifest.IsSQLite(p.read(path))):
			database = path
		}
	}
	if file == "" || database == "" {
		t.Fatal("the phone has no such files")
	}
	return file, database
}
