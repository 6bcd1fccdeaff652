//go:build !unix && !windows

package folder

import (
	"io/fs"
	"time"
)

func modTime(info fs.FileInfo) time.Time { return info.ModTime() }
