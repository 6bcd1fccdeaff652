//go:build !unix

package ingest

func makePipe(string) bool { return false }
