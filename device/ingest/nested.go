package ingest

import (
	"context"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/repo"
)

// nested finds backup folders inside the backup folder. People make them when they
// copy a folder into itself.
type nested map[string]int // how many files of a backup are at the top of a folder

// add looks at a path in the backup folder.
func (n nested) add(name string) {
	dir, base := path.Split(name)
	switch base {
	case mobilesync.ManifestDB, mobilesync.ManifestMBDB, mobilesync.ManifestPlist, mobilesync.StatusPlist:
	default:
		return
	}
	// A device that is writing a backup may put its manifest into Snapshot.
	if dir != "" && !strings.HasPrefix(dir, "Snapshot/") {
		n[strings.TrimSuffix(dir, "/")]++
	}
}

// judgeNested adds a finding for each backup inside this one.
func (j *job) judgeNested(ctx context.Context, n nested) {
	if !filepath.IsAbs(j.b.Dir()) {
		return // it is no folder on a disk
	}
	var dirs []string
	for dir, files := range n {
		if files > 1 {
			dirs = append(dirs, dir)
		}
	}
	slices.Sort(dirs)
	for _, dir := range dirs {
		inner := filepath.Join(j.b.Dir(), filepath.FromSlash(dir))
		text := fmt.Sprintf("another backup is in this folder; import it, too: %s", inner)
		if b, err := mobilesync.Open(ctx, inner); err == nil {
			text = fmt.Sprintf("%s backup is in this folder%s; import it, too: %s", j.compared(b), dated(b), inner)
			b.Close()
		}
		j.log.Note(finding.Nested, repo.Remark, text)
	}
}

// compared says how an inner backup differs from this one.
func (j *job) compared(inner *mobilesync.Backup) string {
	a, b := firstDate(j.b), firstDate(inner)
	switch {
	case !repo.SameDevice(inner.Device().UDID, j.b.Device().UDID):
		return "another device's"
	case !a.IsZero() && b.After(a):
		return "a newer"
	case b.IsZero() || !b.Before(a):
		return "another"
	}
	return "an older"
}

func dated(b *mobilesync.Backup) string {
	if t := firstDate(b); !t.IsZero() {
		return " (" + t.UTC().Format(time.DateOnly) + ")"
	}
	return ""
}

func firstDate(b *mobilesync.Backup) time.Time {
	if dates := b.Dates(); len(dates) > 0 {
		return dates[0]
	}
	return time.Time{}
}
