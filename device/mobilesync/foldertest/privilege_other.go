//go:build !linux

package foldertest

import (
	"os"
	"runtime"
	"testing"
)

// Unprivileged calls f. It skips the test if the user can read files whatever their
// modes are.
func Unprivileged(t *testing.T, f func()) {
	t.Helper()
	if runtime.GOOS == "windows" || os.Geteuid() == 0 {
		t.Skip("this user may read everything")
	}
	f()
}
