//go:build !linux

package ramtemp

// memory returns "": only Linux has a file system in memory at a known place.
func memory() string { return "" }
