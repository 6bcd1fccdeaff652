package filesystem

import "golang.org/x/sys/windows"

func measure(dir string) (s space, err error) {
	path, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return s, err
	}
	var all uint64
	err = windows.GetDiskFreeSpaceEx(path, &s.free, &s.total, &all)
	return s, err
}
