package mobilesync

import (
	"os"
	"path/filepath"
	"runtime"
)

// DefaultLocations returns the folders in which Apple's programs keep backups on
// this system: Finder and iTunes on macOS; the two variants of iTunes and Apple
// Devices on Windows. They may not exist. On other systems the result is empty.
func DefaultLocations() []string {
	home, _ := os.UserHomeDir()
	var out []string
	for _, parent := range appleFolders(runtime.GOOS, home, os.Getenv("APPDATA")) {
		out = append(out, filepath.Join(append(parent, "MobileSync", "Backup")...))
	}
	return out
}

// appleFolders returns the parents of "MobileSync", as path elements.
func appleFolders(goos, home, appData string) [][]string {
	var out [][]string
	switch goos {
	case "darwin":
		if home != "" {
			out = append(out, []string{home, "Library", "Application Support"})
		}
	case "windows":
		if appData == "" && home != "" {
			appData = home + `\AppData\Roaming`
		}
		if appData != "" {
			out = append(out, []string{appData, "Apple Computer"}, []string{appData, "Apple"})
		}
		if home != "" {
			out = append(out, []string{home, "Apple"})
		}
	}
	return out
}
