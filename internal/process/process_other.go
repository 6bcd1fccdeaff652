//go:build !linux && !darwin && !windows

package process

func boot() string  { return "" }
func space() string { return "" }

func started(int) (string, bool) { return "", true }
