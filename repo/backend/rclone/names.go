package rclone

import (
	"strings"

	"github.com/snap-backup/snap/repo/backend"
)

// rclone lists a folder with all folders below it, and tells only the last element of each
// name. So that a listing still tells the complete names, files of a repository keep their
// paths, since their folder follows from the folder that is listed, and all other names are
// also in the last element: "a/b/c" is the file a/b/+a+b+c. No name of a repository has a
// plus sign.

const (
	packsFolder   = "packs/"
	healingFolder = "healing/"
)

// plainFolders are the folders of a repository besides packs/ and healing/. In each of them,
// files are named by 64 hex digits. healing/ has the same folders, and packs/.
var plainFolders = []string{
	"certificates/", "checks/", "configs/", "index/", "keys/", "ledger/", "locks/", "mirrored/", "parity/", "prunes/", "runs/", "secrets/", "snapshots/",
}

// pathOf returns the path of a file in the remote.
func pathOf(name string) string {
	dir := name[:strings.LastIndexByte(name, '/')+1]
	if isPlain(dir, name) {
		return name
	}
	return dir + "+" + strings.ReplaceAll(name, "/", "+")
}

// isPlain reports whether a file keeps its path.
func isPlain(dir, name string) bool {
	inner := strings.TrimPrefix(dir, healingFolder)
	if !backend.IsHashed(name) {
		return inner == ""
	}
	if rest, ok := strings.CutPrefix(inner, packsFolder); ok {
		base := name[len(dir):]
		return rest == base[:2]+"/"
	}
	return isPlainFolder(inner)
}

func isPlainFolder(dir string) bool {
	for _, f := range plainFolders {
		if dir == f {
			return true
		}
	}
	return false
}

// nameOf returns the name of a file that the listing of a folder shows with a last element;
// "" if the listing does not tell it, or if it is not a file of snap's.
func nameOf(folder, base string) string {
	if encoded, ok := strings.CutPrefix(base, "+"); ok {
		name := strings.ReplaceAll(encoded, "+", "/")
		if backend.ValidName(name) != nil || !strings.HasPrefix(name, folder) || !strings.HasSuffix(pathOf(name), "/"+base) && pathOf(name) != base {
			return ""
		}
		return name
	}
	if !backend.IsHashed(base) {
		return ""
	}
	name := folder + base
	inner := strings.TrimPrefix(folder, healingFolder)
	if inner == packsFolder {
		name = folder + base[:2] + "/" + base
	}
	if pathOf(name) != name {
		return ""
	}
	return name
}

// leavesOf returns the folders that must be listed one by one to learn the names of the
// files below folder. If the listing of folder tells them, there are none.
func leavesOf(folder string) []string {
	leaves := append([]string{packsFolder}, plainFolders...)
	switch folder {
	case "":
		return append(leaves, healingFolder)
	case healingFolder:
		for i := range leaves {
			leaves[i] = healingFolder + leaves[i]
		}
		return leaves
	}
	return nil
}
