//go:build !unix

package main

import "io/fs"

// notPrivate returns the reason why a folder cannot be used, or "" if it can. On
// these systems the folder for temporary files belongs to the user.
func notPrivate(info fs.FileInfo) string {
	if !info.IsDir() {
		return "is not a folder"
	}
	return ""
}

// readableByAll reports nothing, since modes do not say who can read a file.
func readableByAll(string, fs.FileInfo) bool { return false }
