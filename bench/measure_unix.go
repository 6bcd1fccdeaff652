//go:build linux || darwin || freebsd || netbsd || openbsd

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// measures says whether this system can measure.
const measures = true

// starterEnv tells a process that it is the starter.
const starterEnv = "SNAP_BENCH_STARTER"

// reportFD is where the starter writes what it measured.
const reportFD = 3

// A freshly started process inherits the peak memory of the one that started
// it (Linux accounts the memory shared between fork and exec to the child).
// bench generates databases in its own memory, so it starts a small process,
// itself again, that does nothing but start the program and wait for it.
func isStarter() bool { return os.Getenv(starterEnv) != "" }

// starter runs a program and reports its resource usage on reportFD. It
// returns an exit code that is not 0 only if it could not report.
func starter(args []string) int {
	syscall.CloseOnExec(reportFD)
	os.Unsetenv(starterEnv)
	out := os.NewFile(reportFD, "report")
	r := rawSample{Exit: -1}
	if len(args) == 0 {
		r.Error = "nothing to start"
	} else {
		r = startAndWait(args)
	}
	if err := json.NewEncoder(out).Encode(r); err != nil {
		fmt.Fprintln(os.Stderr, "bench: starter:", err)
		return 1
	}
	return 0
}

func startAndWait(args []string) rawSample {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	begin := time.Now()
	err := cmd.Run()
	r := rawSample{sample: sample{Wall: time.Since(begin)}, Exit: -1}
	if s := cmd.ProcessState; s != nil {
		r.Exit = s.ExitCode()
		if ru, ok := s.SysUsage().(*syscall.Rusage); ok {
			r.CPU = time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
			r.Peak = int64(ru.Maxrss)
			if runtime.GOOS != "darwin" { // which counts in bytes
				r.Peak *= 1024
			}
		}
	}
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		r.Error = err.Error()
	}
	return r
}

// ownGroup makes a program and all that it starts one process group, which
// ends as a whole when the run is interrupted.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}

// settle writes out what earlier programs left in memory, so that the next one
// does not pay for it.
func settle() { unix.Sync() }

// fileKey tells hard links to one file.
func fileKey(info fs.FileInfo) (key [2]uint64, linked bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Nlink < 2 {
		return key, false
	}
	return [2]uint64{uint64(st.Dev), uint64(st.Ino)}, true
}
