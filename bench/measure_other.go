//go:build !(linux || darwin || freebsd || netbsd || openbsd)

package main

import (
	"io/fs"
	"os/exec"
	"time"
)

const (
	canMeasure = false
	starterEnv = "SNAP_BENCH_STARTER"
)

func isStarter() bool                             { return false }
func starter([]string) int                        { return 1 }
func ownGroup(*exec.Cmd)                          {}
func ownCPU() time.Duration                       { return 0 }
func flushDisks()                                 {}
func fileKey(fs.FileInfo) (key [2]uint64, _ bool) { return key, false }
