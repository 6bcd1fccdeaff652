package repo_test

import (
	"context"
	"testing"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/repotest"
)

// All bytes of content packs, except pack headers, are part of a share.
func TestShares(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	r, err := repotest.Open(ctx, repotest.New(t, 1, 2, 3), repotest.Secret, repotest.SmallPacks(9))
	if err != nil {
		t.Fatal(err)
	}
	list, _, err := r.Snapshots(ctx)
	if err != nil {
		t.Fatal(err)
	}
	shares, err := r.Shares(ctx, list, func(domain string) string { return "all" + domain })
	if err != nil {
		t.Fatal(err)
	}
	st, err := r.Stats(ctx, list)
	if err != nil {
		t.Fatal(err)
	}
	var sum repo.Share
	for _, s := range shares {
		sum.Files += s.Files
		sum.NewestBytes += s.NewestBytes
		sum.StoredBytes += s.StoredBytes
	}
	bytes := int64(0)
	for _, b := range repotest.Day(3) {
		bytes += int64(len(b))
	}
	if int(sum.Files) != len(repotest.Day(3)) || sum.NewestBytes != bytes {
		t.Errorf("%+v, want %d files of %d bytes", shares, len(repotest.Day(3)), bytes)
	}
	if sum.StoredBytes > st.ContentBytes || sum.StoredBytes < st.ContentBytes*9/10 {
		t.Errorf("the shares have %d bytes of %d", sum.StoredBytes, st.ContentBytes)
	}
}
