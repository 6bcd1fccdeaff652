//go:build !windows

package main

import "os"

// enableEscapes makes a terminal obey escape sequences. Terminals of Unix do.
func enableEscapes(*os.File) bool { return true }
