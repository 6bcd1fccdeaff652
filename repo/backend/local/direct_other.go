//go:build !linux && !darwin

package local

import "os"

func openDirect(*os.File, string) (content, bool) { return nil, false }
