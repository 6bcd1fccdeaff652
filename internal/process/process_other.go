//go:build !linux && !darwin && !windows

package process

func boot() string         { return "" }
func pidNamespace() string { return "" }

func started(int) (string, bool) { return "", true }
