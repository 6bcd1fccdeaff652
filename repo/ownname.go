package repo

import (
	"slices"

	"github.com/snap-backup/snap/repo/internal/layout"
)

// OwnName reports whether a file or folder with this name, directly in the folder of a
// repository, belongs to the repository.
func OwnName(name string) bool {
	return name == "config" || name == "tmp" || name == layout.ReserveName || slices.Contains([]string{
		layout.KeysDir, layout.ConfigsDir, layout.PacksDir, layout.IndexDir, layout.SnapshotsDir, layout.LocksDir,
		layout.PrunesDir, layout.SecretsDir, layout.RunsDir, layout.ChecksDir, layout.ParityDir,
		layout.CertificatesDir, layout.LedgerDir, layout.HealingDir, layout.MirroredDir,
	}, name+"/")
}
