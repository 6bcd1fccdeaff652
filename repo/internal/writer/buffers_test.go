package writer_test

import (
	"context"
	"sync"
	"testing"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// bufferWatch is a storage that notes in which memory packs are given to it.
type bufferWatch struct {
	backend.Backend
	mu    sync.Mutex
	packs int
	seen  map[*byte]bool
}

func (b *bufferWatch) Put(ctx context.Context, name string, data []byte) error {
	b.mu.Lock()
	if len(data) > 100<<10 { // a pack of content
		b.packs++
		b.seen[&data[0]] = true
	}
	b.mu.Unlock()
	return b.Backend.Put(ctx, name, data)
}

// TestPackBuffersAreReused stores many packs. Their content must not be mixed up.
func TestPackBuffersAreReused(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := &bufferWatch{Backend: memory.New(), seen: map[*byte]bool{}}
	r := repotest.Create(t, be)
	files := repotest.Files{}
	for i := range 60 {
		files[string(rune('A'+i))] = repotest.Noise(uint64(i), 200<<10)
	}
	s := repotest.MustStoreAfter(t, r, files, 1, nil)
	got, err := repotest.Restore(ctx, repotest.MustOpen(t, be), s)
	if err == nil {
		err = got.Same(files)
	}
	if err != nil {
		t.Error(err)
	}
	if report, err := r.Check(ctx, repo.CheckOptions{ReadData: 1}); err != nil || !report.Clean() {
		t.Errorf("check: %+v, %v", report, err)
	}
	t.Logf("%d packs in %d buffers", be.packs, len(be.seen))
	if be.packs < 30 || len(be.seen) > be.packs/3 {
		t.Errorf("%d packs in %d buffers", be.packs, len(be.seen))
	}
}
