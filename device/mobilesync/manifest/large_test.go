package manifest_test

import (
	"database/sql"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/mobilesync/manifest/manifesttest"
	"github.com/snap-backup/snap/internal/faultpoint"
)

// fillMany inserts n rows like those of a device with many files. A third are
// folders, and half are in deep folders of one domain. Files have keys, and
// attributes of pad bytes.
func fillMany(n, pad int) func(tx *sql.Tx) error {
	return func(tx *sql.Tx) error {
		insert, err := tx.Prepare("INSERT OR REPLACE INTO Files VALUES(?,?,?,?,?)")
		if err != nil {
			return err
		}
		r := rand.New(rand.NewPCG(1, 2))
		attributes := make([]byte, pad)
		key := make([]byte, 44)
		for i := range n {
			rec := manifest.Record{
				Domain:  fmt.Sprintf("AppDomain-com.example.app%d", i%200),
				Mode:    0o100644,
				Size:    r.Int64N(1 << 24),
				ModTime: 1.6e9 + r.Int64N(1e8), ChangeTime: 1.7e9, Birth: 1.6e9,
				UserID: 501, GroupID: 501, Inode: 1<<24 + uint64(i), ProtectionClass: 3,
			}
			rec.RelativePath = fmt.Sprintf("Library/Application Support/Cache/%02x/%08x-entry-%d.bin", r.IntN(256), r.Uint32(), i)
			if i%2 == 0 {
				rec.Domain = "MediaDomain"
				rec.RelativePath = fmt.Sprintf("Library/SMS/Attachments/%02x/%02d/%08X-0000-4000-8000-%012X/IMG_%d.HEIC", r.IntN(256), i%16, r.Uint32(), i, i)
			}
			if i%3 == 0 {
				rec.Mode, rec.Size = 0o40755, 0
			} else {
				for j := range key {
					key[j] = byte(r.Uint32())
				}
				rec.EncryptionKey = key
			}
			rec = manifesttest.Row(rec)
			var extra []manifesttest.Pair
			if pad > 0 {
				extra = []manifesttest.Pair{{"ExtendedAttributes", attributes}}
			}
			_, err := insert.Exec(hex.EncodeToString(rec.FileID[:]), rec.Domain, rec.RelativePath, rec.Flags, manifesttest.MBFile(rec, extra...))
			if err != nil {
				return err
			}
		}
		return insert.Close()
	}
}

func readManifest(t testing.TB, path string) *manifest.Records {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	records, err := manifest.ReadDB(t.Context(), f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	return records
}

func TestManyRows(t *testing.T) {
	n := 10_000
	switch {
	case faultpoint.All():
		n = 100_000
	case testing.Short():
		n = 3_000
	}
	path := filepath.Join(t.TempDir(), "Manifest.db")
	manifesttest.WriteDB(t, path, manifesttest.Schema, fillMany(n, 0))
	began := time.Now()
	records := readManifest(t, path)
	t.Logf("%d rows in %v", records.Len(), time.Since(began))
	if records.Len() != n || records.Anomalies.Total() != 0 {
		t.Fatalf("%d rows, %+v", records.Len(), records.Anomalies)
	}
	manifesttest.Check(t, records)
}

// TestHugeManifest reads 870,000 rows of a 1.2 GB manifest in a process of its own
// and measures its peak memory. It takes minutes and 1.2 GB in the temporary folder,
// so it runs only on request:
//
//	SNAP_TEST_HUGE=1 go test -run TestHugeManifest -v ./device/mobilesync/manifest
func TestHugeManifest(t *testing.T) {
	if path := os.Getenv("SNAP_TEST_HUGE_READ"); path != "" {
		began := time.Now()
		records := readManifest(t, path)
		fmt.Printf("%d rows in %v, peak memory %s\n", records.Len(), time.Since(began).Round(time.Millisecond), peakMemory(t))
		return
	}
	if os.Getenv("SNAP_TEST_HUGE") == "" || testing.Short() {
		t.Skip("SNAP_TEST_HUGE is not set")
	}
	path := filepath.Join(t.TempDir(), "Manifest.db")
	manifesttest.WriteDB(t, path, manifesttest.Schema, fillMany(870_000, 0))
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(os.Args[0], "-test.run=^TestHugeManifest$")
	child.Env = append(os.Environ(), "SNAP_TEST_HUGE_READ="+path)
	out, err := child.CombinedOutput()
	t.Logf("%d MB:\n%s", info.Size()>>20, out)
	if err != nil {
		t.Fatal(err)
	}
	var kilobytes int
	_, after, _ := strings.Cut(string(out), "VmHWM:")
	if _, err := fmt.Sscanf(after, "%d kB", &kilobytes); err != nil {
		t.Fatal(err)
	}
	if most := 400 << 10; kilobytes > most {
		t.Errorf("peak memory %d KiB, more than %d", kilobytes, most)
	}
}

func peakMemory(t *testing.T) string {
	if runtime.GOOS != "linux" {
		t.Skip("peak memory is measured on Linux only")
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "VmHWM:") {
			return line
		}
	}
	return ""
}

func BenchmarkReadDB(b *testing.B) {
	const n = 100_000
	path := filepath.Join(b.TempDir(), "Manifest.db")
	manifesttest.WriteDB(b, path, manifesttest.Schema, fillMany(n, 0))
	b.ReportAllocs()
	for b.Loop() {
		if records := readManifest(b, path); records.Len() != n {
			b.Fatal(records.Len())
		}
	}
}
