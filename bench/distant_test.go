package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/snap-backup/snap/internal/faultpoint"
)

// TestDistantInterop measures snap, and with SNAP_TEST_ALL restic, too, if it is installed.
func TestDistantInterop(t *testing.T) {
	needMeasuring(t)
	if testing.Short() {
		t.Skip("builds and runs snap")
	}
	store := os.Getenv("SNAP_TEST_VERSITYGW")
	if store == "" {
		store = "versitygw"
	}
	if _, err := exec.LookPath(store); err != nil {
		if os.Getenv("SNAP_TEST_INTEROP") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	var tools []string
	if faultpoint.All() {
		tools = installed(ratioTo)
	}
	var out, log bytes.Buffer
	args := []string{"-distant", "-versitygw", store, "-scale", "tiny", "-devices", "1", "-days", "2", "-repeat", "1", "-round-trip", "1ms", "-json", "-dir", t.TempDir(), "-tools", strings.Join(append(tools, snapName), ",")}
	if err := run(t.Context(), args, &out, &log); err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	var r distantReport
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	for _, name := range append(tools, snapName) {
		for _, kind := range distantSteps {
			list := r.Samples[name][kind]
			if len(list) != 1 || list[0].Wall <= 0 || list[0].total().Requests < 3 || list[0].total().Bytes <= 0 {
				t.Errorf("%s, %s: %+v", name, kind, list)
			}
		}
	}
	table := r.markdown([]string{snapName})
	for _, want := range []string{"| first import | ", "| forget and prune | ", "- unchanged import, snap: ", " PUT locks"} {
		if !strings.Contains(table, want) {
			t.Errorf("no %q in\n%s", want, table)
		}
	}
}
