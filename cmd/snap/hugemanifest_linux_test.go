package main

import (
	"context"
	"crypto/sha1"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/simulator/devicefiles"
	"github.com/snap-backup/snap/device/simulator/lab"
	"github.com/snap-backup/snap/device/simulator/synthetic"
)

// wideContent is a device's content with a large Manifest.db. Some rows of this file
// describe folders with large extended attributes.
type wideContent struct {
	devicefiles.Source
	db      string
	records *manifest.Records
}

func (w *wideContent) Records(context.Context) (*manifest.Records, error) { return w.records, nil }

func (w *wideContent) Manifest(_ context.Context, to io.Writer) error {
	f, err := os.Open(w.db)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(to, f)
	return err
}

// wideRow is the number of bytes that are added to each row.
const wideRow = 12_000

// widen adds rows to the Manifest.db of some content until this file has about size
// bytes. Equal content gets equal rows. The lab closes the original content.
func widen(t *testing.T, from devicefiles.Source, size int64) *wideContent {
	t.Helper()
	ctx := t.Context()
	w := &wideContent{Source: from, db: filepath.Join(t.TempDir(), mobilesync.ManifestDB)}
	f, err := os.Create(w.db)
	if err != nil {
		t.Fatal(err)
	}
	// These bytes say whether a database has a write-ahead log. A device's
	// Manifest.db claims to have one, but the rows are added without one.
	version := func(v byte) {
		if _, err := f.WriteAt([]byte{v, v}, 18); err != nil {
			t.Fatal(err)
		}
	}
	if err := from.Manifest(ctx, f); err != nil {
		t.Fatal(err)
	}
	version(1)
	db, err := sql.Open("sqlite", "file://"+w.db+"?_pragma=journal_mode=OFF&_pragma=synchronous=OFF&_pragma=locking_mode=EXCLUSIVE")
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	tx, err := db.BeginTx(ctx, nil)
	if err == nil {
		err = errors.Join(insertWide(ctx, tx, int(size/wideRow)), tx.Commit())
	}
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	version(2)
	info, err := f.Stat()
	if err == nil {
		w.records, err = manifest.ReadDB(ctx, f, info.Size())
	}
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return w
}

func insertWide(ctx context.Context, tx *sql.Tx, n int) error {
	put, err := tx.PrepareContext(ctx, "INSERT INTO Files (fileID, domain, relativePath, flags, file) VALUES (?, 'AppDomain-com.example.wide', ?, 2, ?)")
	if err != nil {
		return err
	}
	defer put.Close()
	stuff, rng := make([]byte, wideRow), rand.NewChaCha8([32]byte{1})
	for i := range n {
		rec := manifest.Record{RelativePath: fmt.Sprintf("Library/%06d", i), Mode: 0o40755, ModTime: 1_767_571_200, Inode: uint64(i) + 1e6}
		// Half of these bytes are random; the other half can be compressed.
		_, _ = rng.Read(stuff[:wideRow/2])
		id := sha1.Sum([]byte("AppDomain-com.example.wide-" + rec.RelativePath))
		if _, err := put.ExecContext(ctx, fmt.Sprintf("%x", id), rec.RelativePath, synthetic.MarshalMBFile(&rec, stuff)); err != nil {
			return err
		}
	}
	return nil
}

// runPeak runs a command that must succeed, and returns its peak memory and CPU time.
// It reads the memory while the command runs: the peak that the system reports at the
// end would include the memory of this process, which forked the command.
func (s *shell) runPeak(args ...string) (peak int64, cpu time.Duration) {
	s.t.Helper()
	cmd, out := s.command(args...)
	cmd.Env = append(cmd.Env, "GOMAXPROCS=2")
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case err := <-ended:
			if err != nil {
				s.t.Fatalf("snap %s: %v\n%s", strings.Join(args, " "), err, out)
			}
			return peak, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		case <-time.After(10 * time.Millisecond):
			peak = max(peak, peakOf(cmd))
		}
	}
}

func peakOf(cmd *exec.Cmd) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return n << 10
		}
	}
	return 0
}

// A Manifest.db of more than a gigabyte needs little memory in a full backup, in the
// next backup, in a verification and in a restore. At the beginning of the next backup,
// the device reads this file back. With this size the test takes 10 GB of disk space and
// some minutes:
//
//	SNAP_TEST_HUGE=1 go test -run TestHugeDeviceManifest -timeout 1h -v ./cmd/snap
func TestHugeDeviceManifest(t *testing.T) {
	size, most := int64(8<<20), int64(300<<20)
	if os.Getenv("SNAP_TEST_HUGE") != "" {
		size = 1_250 << 20
	} else if testing.Short() {
		t.Skip("it stores 50 MB")
	}
	t.Parallel()
	for _, encrypt := range encryptions(t) {
		t.Run(fmt.Sprint("encryption ", encrypt), func(t *testing.T) {
			s := newRepo(t, "SNAP_BACKUP_PASSWORD="+synthetic.DefaultPassword)
			l := s.lab(lab.Options{Seed: 8, Encrypt: encrypt})
			d := l.Devices()[0]
			check := func(what string, args ...string) {
				t.Helper()
				began := time.Now()
				peak, cpu := s.runPeak(args...)
				t.Logf("%s: %d MiB of memory, %.1f s of CPU, %.1f s", what, peak>>20, cpu.Seconds(), time.Since(began).Seconds())
				if peak == 0 || peak > most {
					t.Errorf("%s took %d MiB of memory, more than %d", what, peak>>20, most>>20)
				}
			}
			content := widen(t, d.Agent.Content(), size)
			info, err := os.Stat(content.db)
			if err != nil || info.Size() < size {
				t.Fatal(info.Size(), err)
			}
			t.Logf("Manifest.db has %d MiB, %d rows", info.Size()>>20, content.records.Len())
			d.Agent.SetContent(content)
			check("full backup", "backup")
			if r := d.Agent.LastRun(); !r.Full || r.Code != 0 {
				t.Errorf("%+v", r)
			}
			if err := l.NextDay(t.Context()); err != nil {
				t.Fatal(err)
			}
			os.Remove(content.db)
			content = widen(t, d.Agent.Content(), size)
			d.Agent.SetContent(content)
			before := packBytes(t, s.repo)
			check("next backup", "backup")
			if r := d.Agent.LastRun(); r.Full || r.Code != 0 {
				t.Errorf("%+v", r)
			}
			t.Logf("the repository had %d MiB, the second day added %d KiB", before>>20, (packBytes(t, s.repo)-before)>>10)
			check("quick verify", "verify")
			check("full verify", "verify", "--level", "full")
			check("restore", "restore", "--yes", "--remove-items-not-restored", "--system-files", "latest")
			if r := d.Agent.LastRun(); r.Operation != "Restore" || r.Code != 0 {
				t.Errorf("%+v", r)
			}
			check("check", "check", "--read-data")
			target := filepath.Join(t.TempDir(), "out")
			s.run(0, "materialize", "latest", target)
			differences, err := devicefiles.Verify(t.Context(), content, onlyChild(t, target), []byte(synthetic.DefaultPassword))
			if err != nil || len(differences) > 0 {
				t.Errorf("%q, %v", differences[:min(len(differences), 5)], err)
			}
			noViolations(t, l)
		})
	}
}
