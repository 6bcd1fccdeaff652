//go:build !unix

package main

import "io/fs"

// notPrivate says why a folder cannot be used. The folder for temporary files is
// the user's own on these systems.
func notPrivate(info fs.FileInfo) string {
	if !info.IsDir() {
		return "is no folder"
	}
	return ""
}
