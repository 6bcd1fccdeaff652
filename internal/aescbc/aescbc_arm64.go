//go:build !purego

package aescbc

import (
	"runtime"

	"golang.org/x/sys/cpu"
)

// All processors of Apple have the instructions.
var accelerated = cpu.ARM64.HasAES || runtime.GOOS == "darwin"
