package ingest

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/device/mobilesync/foldertest"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
	"github.com/snap-backup/snap/repo/tree"
)

// TestRepositoryRevealsNothing searches all files of a repository, and their names, for
// what is in a backup. Another repository has other IDs for the same content.
func TestRepositoryRevealsNothing(t *testing.T) {
	t.Parallel()
	m := foldertest.New(t)
	const words = "words that nobody should read 8hq2"
	m.Put("HomeDomain", "Library/a letter.txt", []byte(strings.Repeat(words, 10)))
	m.Finish(1)
	var ids [][]chunk.ID
	for n := range seed(2) {
		be := memory.New()
		r, err := repo.Create(t.Context(), be, repotest.Secret, repotest.SlotInfo, options(n+20))
		m.Check(err)
		s := mustImport(t, r, m.Dir, Options{Tags: []string{"a tag 3vd8"}}).Snapshot
		hidden := []string{s.Device.UDID, s.Device.Name, s.Device.ProductType, "a tag 3vd8", words, "a letter", "HomeDomain", "Manifest.db", s.Time.Format("2006-01-02")}
		for _, dir := range []string{"packs/", "index/", "snapshots/", "keys/", "configs/"} {
			for _, name := range repotest.FilesIn(t, be, dir) {
				b, err := backend.ReadAll(t.Context(), be, name, 1<<30)
				m.Check(err)
				for _, text := range hidden {
					if text != "" && (bytes.Contains(b, []byte(text)) || strings.Contains(name, text)) {
						t.Errorf("%s has %q", name, text)
					}
				}
			}
		}
		m.Check(r.LoadIndex(t.Context()))
		m.Check(r.Walk(t.Context(), s, "HomeDomain", func(e *tree.Entry) error {
			if e.Name == "Library/a letter.txt" {
				ids = append(ids, slices.Clone(e.Content.IDs))
			}
			return nil
		}))
	}
	if len(ids) != 2 {
		t.Fatalf("the file is in %d repositories", len(ids))
	}
	if len(ids[0]) == 0 || slices.Equal(ids[0], ids[1]) {
		t.Errorf("two repositories name the same content %v and %v", ids[0], ids[1])
	}
}
