package foldertest

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// Unprivileged calls f on a thread that obeys the modes of files, even if the test
// runs as root. Goroutines that f starts run on other threads, with all rights.
func Unprivileged(t *testing.T, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		// Without a call of UnlockOSThread, the thread ends with the goroutine.
		runtime.LockOSThread()
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		err := unix.Capget(&header, &data[0])
		if err == nil {
			data[0].Effective &^= 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_DAC_READ_SEARCH
			err = unix.Capset(&header, &data[0])
		}
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
