//go:build !unix

package transfer

func makePipe(string) bool { return false }
