package folder

import (
	"io/fs"
	"syscall"
	"time"
)

// fileTimeEpoch is the start of 1970 in units of 100 ns since 1601.
const fileTimeEpoch = 116_444_736_000_000_000

// modTime returns the modification time. info.ModTime wraps around before 1678 and
// after 2262.
func modTime(info fs.FileInfo) time.Time {
	d, ok := info.Sys().(*syscall.Win32FileAttributeData)
	if !ok {
		return info.ModTime()
	}
	t := int64(d.LastWriteTime.HighDateTime)<<32 + int64(d.LastWriteTime.LowDateTime) - fileTimeEpoch
	return time.Unix(t/1e7, t%1e7*100)
}
