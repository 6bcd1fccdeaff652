package receive

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/snap-backup/snap/device/ingest/passwordchange"
	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/repo/backend/memory"
)

// The next backup continues with the keys of the last password change.
func TestPasswordChange(t *testing.T) {
	ctx := context.Background()
	t.Parallel()
	device, be := firstDay(t, synthetic.EncryptNone), memory.New()
	createRepo(t, be)
	udid := device.udid
	manifest := udid + "/Manifest.plist"
	// Without a snapshot there is no manifest to change.
	k, err := passwordchange.New(ctx, mustOpen(t, be, seed(2)), udid)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Open(ctx, manifest); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, err := k.Create(ctx, manifest); err == nil {
		t.Error("keys were accepted without a backup")
	}
	first := mustRun(t, mustOpen(t, be, seed(3)), device, nil, Options{})
	old := device.state()
	lower := strings.ToLower(udid) // upper and lower case do not matter
	for i, text := range []string{"sealed anew", "and again"} {
		k, err := passwordchange.New(ctx, mustOpen(t, be, seed(4+i)), lower)
		if err != nil {
			t.Fatal(err)
		}
		want := device.read("Manifest.plist")
		if i == 1 {
			want = []byte("sealed anew")
		}
		if b, err := get(ctx, k, lower+"/Manifest.plist"); err != nil || !bytes.Equal(b, want) {
			t.Errorf("%d bytes, %v", len(b), err)
		}
		if _, err := k.Open(ctx, lower+"/Snapshot/Manifest.plist"); !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		for _, path := range []string{"Status.plist", "Manifest.db", "ab/" + strings.Repeat("ab", 20)} {
			if _, err := k.Create(ctx, lower+"/"+path); err == nil {
				t.Errorf("%s was accepted", path)
			}
		}
		cut, err := k.Create(ctx, lower+"/Manifest.plist")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = cut.Write([]byte("half"))
		cut.Abort()
		if k.Changed() {
			t.Error("an aborted upload changed the keys")
		}
		up, err := k.Create(ctx, lower+"/Manifest.plist")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := up.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if err := up.Commit(); err != nil || !k.Changed() {
			t.Fatal(err)
		}
		if b, err := get(ctx, k, lower+"/Manifest.plist"); err != nil || string(b) != text {
			t.Errorf("%q, %v", b, err)
		}
	}
	checkClean(t, be)
	r := mustOpen(t, be, seed(7))
	n, err := New(ctx, r, Options{UDID: udid})
	if err != nil {
		t.Fatal(err)
	}
	if b, err := get(ctx, n, manifest); err != nil || string(b) != "and again" {
		t.Errorf("the next backup begins with %q, %v", b, err)
	}
	if err := n.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if got, err := snapshotContents(r, first.Snapshot); err != nil || got["Manifest.plist"] != "file:"+string(device.read("Manifest.plist")) {
		t.Error("the snapshot has changed", err)
	}
	mustRun(t, r, device, old, Options{})
	if list, _, err := r.Unfinished(ctx); err != nil || len(list) > 0 {
		t.Errorf("%v, %v", list, err)
	}
}
