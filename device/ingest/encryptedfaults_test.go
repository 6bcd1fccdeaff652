package ingest

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
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
	"github.com/snap-backup/snap/repo/backend/crash"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/tree"
	"howett.net/plist"
)

// sealedMini is the encrypted twin of a mini: files that have not changed keep
// their key and their bytes.
type sealedMini struct {
	*foldertest.Folder                    // the twin's own folder
	plain              *foldertest.Folder // whose content it holds
	rand               *rand.ChaCha8
	bag                []byte
	keys               *keybag.Keys
	files              map[string]sealedRow // by domain and path
}

type sealedRow struct {
	foldertest.Record
	key keybag.FileKey
}

func newSealedMini(t testing.TB) *sealedMini {
	plain := foldertest.New(t)
	s := &sealedMini{
		Folder: &foldertest.Folder{TB: t, Dir: filepath.Join(t.TempDir(), foldertest.UDID)}, plain: plain,
		rand: rand.NewChaCha8([32]byte{5}), files: map[string]sealedRow{},
	}
	s.newBag("first")
	return s
}

// newBag sets a password: all files get new keys.
func (s *sealedMini) newBag(password string) {
	s.Helper()
	var err error
	s.bag, s.keys, err = keybag.New(s.rand, []byte(password), keybag.NewOptions{Iter: 3, DPIC: 3})
	s.Check(err)
	clear(s.files)
}

func (s *sealedMini) newKey() (key keybag.FileKey) {
	_, _ = s.rand.Read(key[:])
	return key
}

func (s *sealedMini) sealed(content []byte, key keybag.FileKey) []byte {
	s.Helper()
	var out bytes.Buffer
	w := keybag.NewEncrypter(&out, key)
	_, err := w.Write(content)
	s.Check(err)
	s.Check(w.Close())
	return out.Bytes()
}

// day brings the folder to what the plain one is.
func (s *sealedMini) day(day int) {
	s.Helper()
	for name, r := range s.plain.Records {
		if s.files[name].Record == r {
			continue
		}
		content, err := os.ReadFile(s.plain.Blob(r.Domain, r.Path))
		s.Check(err)
		key := s.newKey()
		s.files[name] = sealedRow{r, key}
		blob := s.Blob(r.Domain, r.Path)
		s.Check(os.MkdirAll(filepath.Dir(blob), 0o755))
		s.Check(os.WriteFile(blob+".new", s.sealed(content, key), 0o644))
		s.Check(os.Rename(blob+".new", blob))
	}
	date := time.Date(2026, 1, day, 8, 0, 0, 0, time.UTC)
	key := s.newKey()
	s.Write("Manifest.db", s.sealed(s.database(), key))
	wrapped, err := s.keys.Wrap(keybag.ClassNone, key)
	s.Check(err)
	s.Plist("Manifest.plist", plist.BinaryFormat, map[string]any{
		"Version": "10.0", "Date": date, "IsEncrypted": true, "BackupKeyBag": s.bag, "ManifestKey": wrapped,
		"Lockdown": map[string]any{"UniqueDeviceID": foldertest.UDID, "DeviceName": "Mini 📱", "ProductVersion": "18.2"},
	})
	s.Plist("Info.plist", plist.XMLFormat, map[string]any{"Device Name": "Mini 📱", "Target Identifier": foldertest.UDID, "Last Backup Date": date})
	s.Status("finished", date)
}

// database is the plain Manifest.db.
func (s *sealedMini) database() []byte {
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

// runUnlocked is a process that imports with a password and ends.
func runUnlocked(be backend.Backend, dir, password string) error {
	r, err := openRepo(be, 20)
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
	if err == nil && (len(res.Raw) > 0 || res.Unsealed < 13) {
		err = fmt.Errorf("%d files were stored as what they hold, raw %v", res.Unsealed, res.Raw)
	}
	return err
}

// judgeUnlocked is judge for snapshots that are all unlocked.
func judgeUnlocked(be backend.Backend, pictures map[int]foldertest.Picture, torn ...string) ([]int, error) {
	r, err := openRepo(be, 98)
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
	return judge(be, pictures, torn...)
}

// sealedRig is a store with day 1 of an encrypted device, and a folder at day
// 2: after an ordinary day, or after a change of the password.
type sealedRig struct {
	*sealedMini
	password string
	base     *memory.Backend
	pictures map[int]foldertest.Picture
}

func sealedRigs(t *testing.T) map[string]*sealedRig {
	rigs := map[string]*sealedRig{}
	for name, password := range map[string]string{"ordinary day": "first", "password changed": "second"} {
		s := newSealedMini(t)
		rig := &sealedRig{s, password, memory.New(), map[int]foldertest.Picture{}}
		createRepo(t, rig.base)
		s.day(1)
		s.Check(runUnlocked(rig.base, s.Dir, "first"))
		rig.pictures[1] = foldertest.Take(t, s.Dir)
		s.plain.Put("HomeDomain", "Library/Preferences/p3.plist", []byte("changed on day 2"))
		s.plain.Put("HomeDomain", "Library/SMS/sms.db", append([]byte("SQLite format 3\x00"), foldertest.Noise(4, 75<<10)...))
		s.plain.Put("CameraRollDomain", "Media/DCIM/c.jpg", foldertest.Noise(5, 45<<10))
		if password != "first" {
			s.newBag(password)
		}
		s.day(2)
		rig.pictures[2] = foldertest.Take(t, s.Dir)
		rigs[name] = rig
	}
	return rigs
}

// judgeAfter wants day 1 whole, day 2 whole if it is there, and the next import
// to succeed whatever happened.
func (rig *sealedRig) judgeAfter(be backend.Backend, succeeded bool) error {
	days, err := judgeUnlocked(be, rig.pictures)
	if err != nil {
		return err
	}
	if !slices.Equal(days, []int{1, 2}) && (succeeded || !slices.Equal(days, []int{1})) {
		return fmt.Errorf("snapshots of days %v", days)
	}
	if err := runUnlocked(be, rig.Dir, rig.password); err != nil {
		return fmt.Errorf("next import: %w", err)
	}
	if after, err := judgeUnlocked(be, rig.pictures); err != nil || !slices.Equal(after, append(days, 2)) {
		return fmt.Errorf("after the next import: days %v after %v: %w", after, days, err)
	}
	return nil
}

func TestUnlockedImportSurvivesEveryFailure(t *testing.T) {
	for day, rig := range sealedRigs(t) {
		for mode, plan := range map[string]func(n int) fault.Plan{
			"refused":        func(n int) fault.Plan { return fault.Once(n, fault.ErrInjected) },
			"done, not told": func(n int) fault.Plan { return fault.OnceAfter(n, fault.ErrInjected) },
			"gone":           func(n int) fault.Plan { return fault.From(n, fault.ErrInjected) },
		} {
			if day != "ordinary day" && mode != "refused" {
				continue // the run differs in what it stores, not in how
			}
			t.Run(day+"/"+mode, func(t *testing.T) {
				points, failed := 0, 0
				for n := 1; ; n++ {
					store := rig.base.Clone()
					be := fault.New(store, plan(n))
					err := runUnlocked(be, rig.Dir, rig.password)
					if be.Count() < n {
						if err != nil {
							t.Fatalf("the undisturbed run: %v", err)
						}
						break
					}
					points++
					if err != nil {
						failed++
						if !errors.Is(err, fault.ErrInjected) {
							t.Errorf("fault at operation %d: the cause is lost in %v", n, err)
						}
					}
					if err := rig.judgeAfter(store, err == nil); err != nil {
						t.Fatalf("fault at operation %d: %v", n, err)
					}
				}
				t.Logf("%d points of failure, %d of them noticed", points, failed)
				if points < 15 || failed < points/2 {
					t.Errorf("only %d points, %d noticed", points, failed)
				}
			})
		}
	}
}

func TestUnlockedImportSurvivesEveryCrash(t *testing.T) {
	for day, rig := range sealedRigs(t) {
		t.Run(day, func(t *testing.T) {
			points := 0
			for seed := range uint64(2) {
				for at := 1; ; at++ {
					process := crash.New(rig.base.Clone(), crash.Plan{At: at, Seed: seed})
					err := runUnlocked(process, rig.Dir, rig.password)
					if !process.Crashed() {
						if err != nil || at < 5 {
							t.Fatalf("the undisturbed run had %d changes: %v", at-1, err)
						}
						break
					}
					if !errors.Is(err, crash.ErrCrashed) {
						t.Fatalf("%s: the import noticed nothing: %v", process.Outcome(), err)
					}
					points++
					if err := rig.judgeAfter(process.Reboot(), false); err != nil {
						t.Fatalf("%s: %v", process.Outcome(), err)
					}
				}
			}
			t.Logf("%d crashes", points)
		})
	}
}

// What the blobs of one day share with those of another does not depend on
// their keys: a change of the password adds manifests and keys, no content.
func TestRekeyAddsNoContent(t *testing.T) {
	s := newSealedMini(t)
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
