//go:build !purego

package aescbc

import "golang.org/x/sys/cpu"

var accelerated = cpu.X86.HasAES && cpu.X86.HasAVX
