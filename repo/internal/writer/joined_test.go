package writer_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// TestManySmallChanges changes many small files that are far apart. A block of all
// of them would need all their old blocks, more than a chain may have. The files
// must not be stored in full for that reason.
func TestManySmallChanges(t *testing.T) {
	t.Parallel()
	be := memory.New()
	r := repotest.Create(t, be)
	d := repotest.NewDiary(1)
	f := repotest.Files{}
	for i := range 50 {
		f[fmt.Sprintf("%02d/a.json", i)] = d.Text(4000)
		f[fmt.Sprintf("%02d/b", i)] = repotest.Noise(uint64(2*i), 120<<10)
		f[fmt.Sprintf("%02d/c", i)] = repotest.Noise(uint64(2*i+1), 120<<10)
	}
	first := repotest.MustStoreAfter(t, r, f, 1, nil)
	before := repotest.CountDeltas(r)
	touched := repotest.Files{}
	for i := range 50 {
		name := fmt.Sprintf("%02d/a.json", i)
		touched[name] = bytes.Clone(f[name])
		copy(touched[name][2000:], "changed today")
	}
	second := repotest.MustStoreAfter(t, r, touched, 2, first)
	// In full they take about 90 KB.
	t.Logf("50 touched files of 4,000 bytes took %d bytes in %d deltas", second.StoredBytes, repotest.CountDeltas(r)-before)
	if second.StoredBytes > 20<<10 {
		t.Errorf("50 touched files of 4,000 bytes took %d bytes", second.StoredBytes)
	}
	r = repotest.MustOpen(t, be)
	if got, err := repotest.Restore(context.Background(), r, second); err != nil || got.Same(touched) != nil {
		t.Error(err, got.Same(touched))
	}
}
