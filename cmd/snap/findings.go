package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/snap-backup/snap/repo"
)

// errStoredDamaged says that a backup was stored although files of it are missing or
// damaged.
var errStoredDamaged = errors.New("files of the backup are missing or damaged")

func storedDamaged(s *repo.Snapshot) error {
	return fmt.Errorf("snapshot %s: %w", s.ID.Short(), errStoredDamaged)
}

// damagedBesides reports whether a snapshot has damage of any kind besides the allowed
// one.
func damagedBesides(s *repo.Snapshot, allowed string) bool {
	rest := *s
	rest.Findings = slices.DeleteFunc(slices.Clone(s.Findings), func(f repo.Finding) bool { return f.Kind == allowed })
	return rest.Damaged()
}

// maxNamed is how many affected files a message names.
const maxNamed = 10

// describeFindings prints what was found in a backup: a warning for what has
// consequences, also with --quiet, and a note for a remark. about names the backup.
func (a *app) describeFindings(about string, findings []repo.Finding) {
	for _, f := range findings {
		if f.Consequence == repo.Remark {
			a.remark("          note: %s", clean(f.Text))
			continue
		}
		a.warn("%s: %s", about, clean(f.Text))
		if len(f.Names) > 1 {
			a.listNames(f.Names[1:], f.Count-1)
		}
	}
}

// listNames prints the names of affected files, at most maxNamed, and how many of total
// are left.
func (a *app) listNames(names []string, total int64) {
	if a.json {
		return
	}
	names = names[:min(len(names), maxNamed)]
	for _, name := range names {
		fmt.Fprintf(verbatim(a.messages()), "               %s\n", clean(name))
	}
	if more := total - int64(len(names)); more > 0 {
		fmt.Fprintf(a.messages(), "               and %s more\n", count(more))
	}
}
