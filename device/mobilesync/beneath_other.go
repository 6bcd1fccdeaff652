//go:build unix && !linux

package mobilesync

func openBeneath(int, string) (fd int, ok bool) { return 0, false }
