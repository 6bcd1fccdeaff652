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

// canMeasure says whether bench can measure on this system.
const canMeasure = true

// starterEnv is a variable of the environment. bench sets it when it starts itself as the
// starter, see isStarter.
const starterEnv = "SNAP_BENCH_STARTER"

// reportFD is the file that the starter writes its report to.
const reportFD = 3

// isStarter reports whether this process is the starter: a small process that only
// starts a program and waits for it. bench itself uses much memory, since it generates
// databases. If bench started the program, Linux would count this memory in the
// program's peak, because both share it between fork and exec.
func isStarter() bool { return os.Getenv(starterEnv) != "" }

// starter runs a program and writes its resource usage to reportFD. It returns an exit
// code other than 0 only if it could not write the usage.
func starter(args []string) int {
	syscall.CloseOnExec(reportFD)
	_ = os.Unsetenv(starterEnv)
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
			if runtime.GOOS != "darwin" { // macOS counts in bytes
				r.Peak *= 1024
			}
		}
	}
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		r.Error = err.Error()
	}
	return r
}

// ownGroup makes a program and its children one process group, which is killed when the
// run is interrupted.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}

// flushDisks writes the data of earlier programs to disk, so that it does not slow
// down the next one.
func flushDisks() { unix.Sync() }

// fileKey returns a key that is equal for hard links of one file.
func fileKey(info fs.FileInfo) (key [2]uint64, linked bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Nlink < 2 {
		return key, false
	}
	return [2]uint64{uint64(st.Dev), uint64(st.Ino)}, true
}

// ownCPU returns the CPU time that this process has taken so far.
func ownCPU() time.Duration {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		panic(err) // it cannot fail with these arguments
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}
