//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// keepPipes turns a write to a pipe without a reader into an error. Otherwise such a write
// to standard output or standard error would kill the process in the middle of its work.
func keepPipes() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
}

// dieOfPipe ends the process in the way that shells expect of a program whose reader
// has stopped.
func dieOfPipe() {
	signal.Reset(syscall.SIGPIPE)
	_ = syscall.Kill(syscall.Getpid(), syscall.SIGPIPE)
}
