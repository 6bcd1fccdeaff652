package repotest

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/snap-backup/snap/crypto/blake"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
)

// Names of a repository's files and folders; see docs/format.md.
const (
	ConfigName      = "config"
	ReserveName     = "reserve"
	KeysDir         = "keys/"
	PacksDir        = "packs/"
	IndexDir        = "index/"
	SnapshotsDir    = "snapshots/"
	SecretsDir      = "secrets/"
	LocksDir        = "locks/"
	PrunesDir       = "prunes/"
	RunsDir         = "runs/"
	ChecksDir       = "checks/"
	CertificatesDir = "certificates/"
	LedgerDir       = "ledger/"
)

// PackName returns the name of a pack's file.
func PackName(id pack.ID) string {
	s := id.String()
	return PacksDir + s[:2] + "/" + s
}

// Findings describe the state of a repository.
type Findings struct {
	Days    []int // snapshots that were restored byte for byte
	Damaged []error
	Report  *repo.CheckReport
}

// Clean returns an error if anything is damaged.
func (f Findings) Clean() error {
	if len(f.Damaged) > 0 {
		return fmt.Errorf("damaged snapshots: %v", f.Damaged)
	}
	if !f.Report.Clean() || len(f.Report.Problems) > 0 {
		return fmt.Errorf("check: %+v", f.Report)
	}
	return nil
}

// Examine restores every snapshot and checks all data. It fails if a listed snapshot
// cannot be restored or differs from its Day.
func Examine(be backend.Backend, secret []byte) (Findings, error) {
	ctx := context.Background()
	v := Findings{Days: []int{}}
	r, err := Open(ctx, be, secret, SmallPacks(2))
	if err != nil {
		return v, fmt.Errorf("open: %w", err)
	}
	list, damaged, err := r.Snapshots(ctx)
	if err != nil {
		return v, err
	}
	v.Damaged = damaged
	for _, s := range list {
		day := s.Time.Day()
		f, err := Restore(ctx, r, s)
		if err == nil {
			err = f.Same(Day(day))
		}
		if err != nil {
			return v, fmt.Errorf("day %d: %w", day, err)
		}
		v.Days = append(v.Days, day)
	}
	v.Report, err = r.Check(ctx, repo.CheckOptions{ReadData: 1})
	return v, err
}

// Verify returns an error unless a repository has the snapshots of exactly these
// days, all of them can be restored, and check finds nothing.
func Verify(be backend.Backend, days ...int) error { return VerifyWith(be, Secret, days...) }

// VerifyWith is Verify for a repository with another password.
func VerifyWith(be backend.Backend, secret []byte, days ...int) error {
	v, err := Examine(be, secret)
	if err != nil {
		return err
	}
	if len(v.Damaged) == 0 && !slices.Equal(v.Days, days) {
		return fmt.Errorf("snapshots of days %v, want %v", v.Days, days)
	}
	return v.Clean()
}

// Content returns all files of a store.
func Content(t testing.TB, be backend.Backend) map[string][]byte {
	t.Helper()
	ctx := context.Background()
	all := map[string][]byte{}
	err := be.List(ctx, "", func(f backend.Info) error {
		b, err := backend.ReadAll(ctx, be, f.Name, 1<<30)
		all[f.Name] = b
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// FilesIn lists the files in a folder.
func FilesIn(t testing.TB, be backend.Backend, dir string) (names []string) {
	t.Helper()
	err := be.List(context.Background(), dir, func(f backend.Info) error { names = append(names, f.Name); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// Size returns the total size of the files in a folder.
func Size(t testing.TB, be backend.Backend, dir string) (n int64) {
	t.Helper()
	err := be.List(context.Background(), dir, func(f backend.Info) error { n += f.Size; return nil })
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Folder returns the first part of a file's name.
func Folder(name string) string {
	dir, _, _ := strings.Cut(name, "/")
	return dir
}

// DamagedFiles returns the files whose names are not the hashes of their bytes.
func DamagedFiles(t testing.TB, be backend.Backend) (bad []string) {
	t.Helper()
	for name, b := range Content(t, be) {
		id, err := hex.DecodeString(name[strings.LastIndexByte(name, '/')+1:])
		sum := blake.Sum(b)
		if err == nil && len(id) == len(sum) && !bytes.Equal(id, sum[:]) {
			bad = append(bad, name)
		}
	}
	return bad
}

// Remove deletes files.
func Remove(t testing.TB, be backend.Backend, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := be.Delete(context.Background(), name); err != nil {
			t.Fatal(err)
		}
	}
}

// RemoveLedger makes a repository one that nobody has kept a ledger of.
func RemoveLedger(t testing.TB, be backend.Backend) {
	t.Helper()
	Remove(t, be, FilesIn(t, be, LedgerDir)...)
}

// Flip damages a file beyond what snap corrects by itself: two bits of it, in the byte at an
// offset and nine bytes from it.
func Flip(t testing.TB, be *memory.Backend, name string, at int) {
	t.Helper()
	b, err := backend.ReadAll(context.Background(), be, name, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	at %= len(b)
	b[at] ^= 0x10
	if at+9 < len(b) {
		b[at+9] ^= 0x10
	} else {
		b[at-9] ^= 0x10
	}
	if err := be.Set(name, b); err != nil {
		t.Fatal(err)
	}
}

// RemoveAllLocks does what "snap unlock --remove-all" does.
func RemoveAllLocks(be *memory.Backend) {
	ctx := context.Background()
	_ = be.List(ctx, LocksDir, func(f backend.Info) error { return be.Delete(ctx, f.Name) })
}
