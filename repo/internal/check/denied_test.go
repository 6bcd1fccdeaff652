package check_test

import (
	"context"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/repotest"
)

// A key slot or a copy of config that this process has no permission to read may be good.
// Check advises nobody to remove it.
func TestCheckOfDeniedKeysAndConfigs(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1)
	mine := repotest.FilesIn(t, be, repotest.KeysDir)[0]
	if _, err := repotest.MustOpen(t, be).AddKey(ctx, repotest.OtherSecret, repotest.SlotInfo); err != nil {
		t.Fatal(err)
	}
	keys := repotest.FilesIn(t, be, repotest.KeysDir)
	other := keys[(slices.Index(keys, mine)+1)%2]
	for _, name := range []string{other, "config", repotest.FilesIn(t, be, "configs/")[0]} {
		r := repotest.MustOpen(t, fault.New(be, fault.Unreadable(name, syscall.EACCES)))
		rep, err := r.Check(ctx, repo.CheckOptions{})
		if err != nil || len(rep.Problems) != 1 {
			t.Fatalf("%s: %+v, %v", name, rep, err)
		}
		if p := rep.Problems[0]; p.File != name || !strings.Contains(p.Hint, "change its owner or mode") {
			t.Errorf("%+v", p)
		}
	}
}
