package ingest

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/foldertest"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
	"github.com/snap-backup/snap/repo/tree"
	"howett.net/plist"
)

// encryptedTwin is an encrypted backup with the content of another folder. Files that
// have not changed keep their key and their bytes.
type encryptedTwin struct {
	*foldertest.Folder                    // the twin's own folder
	plain              *foldertest.Folder // the folder whose content the twin has
	rand               *rand.ChaCha8
	bag                []byte
	keys               *keybag.Keys
	files              map[string]encryptedRecord // by domain and path
}

type encryptedRecord struct {
	foldertest.Record
	key keybag.FileKey
}

func newEncryptedTwin(t testing.TB) *encryptedTwin {
	plain := foldertest.New(t)
	s := &encryptedTwin{
		Folder: &foldertest.Folder{TB: t, Dir: filepath.Join(t.TempDir(), foldertest.UDID)}, plain: plain,
		rand: rand.NewChaCha8([32]byte{5}), files: map[string]encryptedRecord{},
	}
	s.newBag("first")
	return s
}

// newBag sets a password. All files get new keys.
func (s *encryptedTwin) newBag(password string) {
	s.Helper()
	var err error
	s.bag, s.keys, err = keybag.New(s.rand, []byte(password), keybag.NewOptions{Iter: 3, DPIC: 3})
	s.Check(err)
	clear(s.files)
}

func (s *encryptedTwin) newKey() (key keybag.FileKey) {
	_, _ = s.rand.Read(key[:])
	return key
}

func (s *encryptedTwin) encrypt(content []byte, key keybag.FileKey) []byte {
	s.Helper()
	var out bytes.Buffer
	w := keybag.NewEncrypter(&out, key)
	_, err := w.Write(content)
	s.Check(err)
	s.Check(w.Close())
	return out.Bytes()
}

// day gives the twin the present content of the other folder.
func (s *encryptedTwin) day(day int) {
	s.Helper()
	for name, r := range s.plain.Records {
		if s.files[name].Record == r {
			continue
		}
		content, err := os.ReadFile(s.plain.Blob(r.Domain, r.Path))
		s.Check(err)
		key := s.newKey()
		s.files[name] = encryptedRecord{r, key}
		blob := s.Blob(r.Domain, r.Path)
		s.Check(os.MkdirAll(filepath.Dir(blob), 0o755))
		s.Check(os.WriteFile(blob+".new", s.encrypt(content, key), 0o644))
		s.Check(os.Rename(blob+".new", blob))
	}
	date := time.Date(2026, 1, day, 8, 0, 0, 0, time.UTC)
	key := s.newKey()
	s.Write("Manifest.db", s.encrypt(s.database(), key))
	wrapped, err := s.keys.Wrap(keybag.ClassNone, key)
	s.Check(err)
	s.Plist("Manifest.plist", plist.BinaryFormat, map[string]any{
		"Version": "10.0", "Date": date, "IsEncrypted": true, "BackupKeyBag": s.bag, "ManifestKey": wrapped,
		"Lockdown": map[string]any{"UniqueDeviceID": foldertest.UDID, "DeviceName": "Mini 📱", "ProductVersion": "18.2"},
	})
	s.Plist("Info.plist", plist.XMLFormat, map[string]any{"Device Name": "Mini 📱", "Target Identifier": foldertest.UDID, "Last Backup Date": date})
	s.Status("finished", date)
}

// database returns the decrypted Manifest.db.
func (s *encryptedTwin) database() []byte {
	s.Helper()
	name := filepath.Join(s.TempDir(), "plain.db")
	db, err := sql.Open("sqlite", "file:"+filepath.ToSlash(name)+"?_pragma=journal_mode(OFF)")
	s.Check(err)
	defer db.Close()
	_, err = db.Exec("CREATE TABLE Files (fileID TEXT PRIMARY KEY, domain TEXT, relativePath TEXT, flags INTEGER, file BLOB)")
	s.Check(err)
	for _, f := range s.files {
		var archive map[string]any
		_, err := plist.Unmarshal(s.Archive(f.Record), &archive)
		s.Check(err)
		wrapped, err := s.keys.Wrap(keybag.ClassUntilFirstUnlock, f.key)
		s.Check(err)
		objects := archive["$objects"].([]any)
		objects[1].(map[string]any)["EncryptionKey"] = plist.UID(len(objects))
		archive["$objects"] = append(objects, map[string]any{"NS.data": wrapped})
		meta, err := plist.Marshal(archive, plist.BinaryFormat)
		s.Check(err)
		_, err = db.Exec("INSERT INTO Files VALUES (?,?,?,1,?)", foldertest.FileID(f.Domain, f.Path), f.Domain, f.Path, meta)
		s.Check(err)
	}
	s.Check(db.Close())
	b, err := os.ReadFile(name)
	s.Check(err)
	return b
}

// runUnlocked is a process that imports with a password.
func runUnlocked(be backend.Backend, dir, password string) error {
	r, err := openRepo(be, seed(20))
	if err != nil {
		return err
	}
	ctx := context.Background()
	b, err := mobilesync.Open(ctx, dir)
	if err != nil {
		return err
	}
	defer b.Close()
	keys, err := b.Unlock(ctx, []byte(password), nil)
	if err != nil {
		return err
	}
	defer keys.Destroy()
	res, err := Import(ctx, r, b, Options{Workers: 1})
	if err == nil && (len(res.Raw) > 0 || res.Decrypted < 13) {
		err = fmt.Errorf("%d files were stored decrypted, raw files %v", res.Decrypted, res.Raw)
	}
	return err
}

// judgeUnlocked is like checkDays, but also returns an error unless all snapshots
// are unlocked.
func judgeUnlocked(be backend.Backend, contents map[int]foldertest.Contents, torn ...string) ([]int, error) {
	r, err := openRepo(be, seed(98))
	if err != nil {
		return nil, err
	}
	list, _, err := r.Snapshots(context.Background())
	if err != nil {
		return nil, err
	}
	for _, s := range list {
		if !s.Unlocked {
			return nil, fmt.Errorf("day %d was stored locked", s.Time.Day())
		}
	}
	return checkDays(be, contents, torn...)
}

// encryptedRig is a store with day 1 of a device that encrypts, and a folder
// with its backup of day 2, after an ordinary day or a password change.
type encryptedRig struct {
	*encryptedTwin
	password string
	base     *memory.Backend
	contents map[int]foldertest.Contents
}

func encryptedRigs(t *testing.T) map[string]*encryptedRig {
	rigs := map[string]*encryptedRig{}
	for name, password := range map[string]string{"ordinary day": "first", "password changed": "second"} {
		s := newEncryptedTwin(t)
		rig := &encryptedRig{s, password, memory.New(), map[int]foldertest.Contents{}}
		createRepo(t, rig.base)
		s.day(1)
		s.Check(runUnlocked(rig.base, s.Dir, "first"))
		rig.contents[1] = foldertest.MustRead(t, s.Dir)
		s.plain.Put("HomeDomain", "Library/Preferences/p3.plist", []byte("changed on day 2"))
		s.plain.Put("HomeDomain", "Library/SMS/sms.db", append([]byte("SQLite format 3\x00"), foldertest.Noise(4, 75<<10)...))
		s.plain.Put("CameraRollDomain", "Media/DCIM/c.jpg", foldertest.Noise(5, 45<<10))
		if password != "first" {
			s.newBag(password)
		}
		s.day(2)
		rig.contents[2] = foldertest.MustRead(t, s.Dir)
		rigs[name] = rig
	}
	return rigs
}

// judgeAfter returns an error unless day 1 is complete, day 2 is complete or
// absent, and the next import succeeds.
func (rig *encryptedRig) judgeAfter(be backend.Backend, succeeded bool) error {
	days, err := judgeUnlocked(be, rig.contents)
	if err != nil {
		return err
	}
	if !slices.Equal(days, []int{1, 2}) && (succeeded || !slices.Equal(days, []int{1})) {
		return fmt.Errorf("snapshots of days %v", days)
	}
	if err := runUnlocked(be, rig.Dir, rig.password); err != nil {
		return fmt.Errorf("next import: %w", err)
	}
	if after, err := judgeUnlocked(be, rig.contents); err != nil || !slices.Equal(after, append(days, 2)) {
		return fmt.Errorf("after the next import: days %v after %v: %w", after, days, err)
	}
	return nil
}

// run returns a repotest.Run that imports day 2.
func (rig *encryptedRig) run(least, want int) repotest.Run {
	return repotest.Run{Base: rig.base, Least: least, Want: want, Notices: true, Do: func(be backend.Backend) error {
		return runUnlocked(be, rig.Dir, rig.password)
	}}
}

func TestUnlockedImportSurvivesEveryFailure(t *testing.T) {
	t.Parallel()
	for day, rig := range encryptedRigs(t) {
		t.Run(day, func(t *testing.T) {
			repotest.EveryFault(t, rig.run(15, 3), func(be *memory.Backend, err error) error {
				return rig.judgeAfter(be, err == nil)
			})
		})
	}
}

func TestUnlockedImportSurvivesEveryCrash(t *testing.T) {
	t.Parallel()
	for day, rig := range encryptedRigs(t) {
		t.Run(day, func(t *testing.T) {
			repotest.EveryCrash(t, rig.run(5, 3), func(be *memory.Backend) error { return rig.judgeAfter(be, false) })
		})
	}
}

// Chunks do not depend on file keys: a password change adds manifests and keys, but
// no content.
func TestPasswordChangeAddsNoContent(t *testing.T) {
	t.Parallel()
	s := newEncryptedTwin(t)
	be := memory.New()
	r := createRepo(t, be)
	s.day(1)
	first := importUnlocked(t, r, s.Dir, "first", Options{Workers: 1})
	s.newBag("second")
	s.day(2)
	second := importUnlocked(t, r, s.Dir, "second", Options{Workers: 1})
	if second.ReadFiles != second.Files {
		t.Errorf("%d of %d files were read", second.ReadFiles, second.Files)
	}
	content := func(res *Result) map[string]tree.Content {
		all := map[string]tree.Content{}
		s.Check(r.Walk(context.Background(), res.Snapshot, "", func(e *tree.Entry) error {
			if e.Domain != "" {
				all[e.Path] = e.Content
			}
			return nil
		}))
		return all
	}
	before, after := content(first), content(second)
	if len(before) != 13 || len(after) != len(before) {
		t.Fatalf("%d files, then %d", len(before), len(after))
	}
	for path, c := range before {
		if !slices.Equal(c.IDs, after[path].IDs) {
			t.Errorf("%s is stored twice", path)
		}
	}
	if got := second.Snapshot.StoredBytes; got > 20<<10 {
		t.Errorf("the change of the password added %d bytes", got)
	}
}
