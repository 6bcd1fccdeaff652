package local

import (
	"math"

	"golang.org/x/sys/windows"
)

func freeBytes(dir string) (int64, error) {
	path, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, err
	}
	var available, total, all uint64
	if err := windows.GetDiskFreeSpaceEx(path, &available, &total, &all); err != nil {
		return 0, err
	}
	return int64(min(available, math.MaxInt64)), nil
}
