package receive

import (
	"fmt"
	"os"
	"testing"

	"github.com/snap-backup/snap/internal/ramtemp"
)

// shared is a folder for files that several tests read.
var shared string

func TestMain(m *testing.M) { os.Exit(withShared(m)) }

func withShared(m *testing.M) int {
	defer ramtemp.Use()()
	dir, err := os.MkdirTemp("", "snap-receive-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	shared = dir
	return m.Run()
}
