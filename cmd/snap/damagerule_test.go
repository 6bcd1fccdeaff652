package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/repotest"
	"github.com/snap-backup/snap/repo/tree"
)

// damageLoses says how many snapshots, and how many files of the newest one, need the
// file of a kind. Nothing else needs a file of the other kinds to be given back.
var damageLoses = map[string]int{"snapshot record": 1, "pack of content": 1, "pack of file lists": 1}

// damageGoesOn are the commands that do all of their work beside any damaged file, so
// that their exit code is the same as without damage.
var damageGoesOn = []string{"snapshots", "key list", "unlock", "import", "tag", "forget", "prune", "copy into it", "parity", "repair --from"}

// damageTold reports whether a command mends what depends on a damaged file of a kind, and
// then tells by its exit code whether something is lost. It does all of its work, too.
func damageTold(kind int, title string) bool {
	return title == "repair snapshots" || title == "repair packs" && strings.HasPrefix(damageKinds[kind].name, "pack of")
}

// damageExceptions are the cells that may break a rule of brokenRule, and why. An empty
// way stands for all ways.
var damageExceptions = []struct{ kind, way, command, reason string }{
	{"snapshot record", "", "prune", "it is not known what the snapshot needs, so nothing may be removed"},
	{"file of the ledger", "", "prune", "it may know of snapshots that were lost, so nothing may be removed"},
	{"index file", "", "prune", "the packs that it lists look unused, so nothing may be removed"},
	{"pack of file lists", "", "prune", "it is not known what the snapshot needs, so nothing may be removed"},
	{"pack of content", "missing", "prune", "a content list may be in the pack, so it is not known what the snapshot needs"},
	{"unfinished backup", "unreadable", "prune", "another computer may be able to read the record and continue the backup, and then needs what the record names"},
	{"unfinished backup", "denied", "prune", "another user may be able to read the record and continue the backup, and then needs what the record names"},
	{"unfinished backup", "a folder", "prune", "the record may be found again; the message names `snap repair snapshots`, which moves the folder aside"},
	{"index file", "", "parity", "missing packs are not known, and their parity would be removed; the message names `snap repair index`"},
	{"lock", "", "prune", "the process of the lock may be at work; the message names `snap unlock`"},
	{"lock", "", "repair --from", "the process of the lock may be at work"},
	{"lock", "", "repair index", "the process of the lock may be at work"},
	{"lock", "", "repair packs", "the process of the lock may be at work"},
	{"lock", "", "repair snapshots", "the process of the lock may be at work"},
	{"pack of file lists", "", "materialize", "all names of the snapshot are in this pack"},
	{"pack of file lists", "", "materialize --decrypt", "all names of the snapshot are in this pack"},
	{"pack of content", "16 bytes overwritten", "import", "an import does not read again what is stored already; `check --read-data` finds the damage, and `repair packs` and then `import --rescan` store the content again"},
	{"pack of content", "denied", "import", "an import does not read again what is stored already"},
	{"pack of content", "unreadable", "import", "an import does not read again what is stored already; `check --read-data` finds the damage, and `repair packs` and then `import --rescan` store the content again"},
	{"interrupted repair", "missing", "check", "without damage, `check` reports this file as the rest of an interrupted repair; without the file, there is nothing to report"},
	{"interrupted repair", "missing", "check --read-data", "without damage, `check` reports this file as the rest of an interrupted repair; without the file, there is nothing to report"},
	{"pack of content", "", "repair snapshots", "the files of the backup are named instead, since they are lost"},
	{"pack of file lists", "", "repair snapshots", "the snapshot is named instead, since nobody knows what was in its list"},
	{"pack of content", "", "verify", "the file of the backup is named instead, since that is what is lost"},
	{"index file", "missing", "check", "no file says what the missing one was called; the message counts the packs that it listed"},
	{"index file", "missing", "check --read-data", "no file says what the missing one was called; the message counts the packs that it listed"},
	{"index file", "missing", "mirror", "no file says what the missing one was called; the message counts the packs that it listed"},
	{"", "missing", "mirror --check", "the mirror is sound, but has a file that the repository lacks"},
	{"log of checks", "", "check --read-data", "it only says what was read last; `check` passes over it"},
	{"lock", "", "check --read-data", "a check needs nothing that is in a lock; `unlock` names the damaged lock"},
	{"reserve", "", "check --read-data", "its bytes mean nothing"},
}

// exceptionsText returns damageExceptions as a table, with all commands that share a
// reason in one row.
func exceptionsText() string {
	var b strings.Builder
	b.WriteString("| file | damage | command | reason |\n|---|---|---|---|\n")
	any := func(s string) string {
		if s == "" {
			return "any"
		}
		return s
	}
	for i := 0; i < len(damageExceptions); i++ {
		e := damageExceptions[i]
		commands := "`" + e.command + "`"
		for i+1 < len(damageExceptions) && damageExceptions[i+1].kind == e.kind && damageExceptions[i+1].way == e.way && damageExceptions[i+1].reason == e.reason {
			i++
			commands += ", `" + damageExceptions[i].command + "`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", any(e.kind), any(e.way), commands, e.reason)
	}
	return b.String()
}

// damageException returns the number of a cell's exception, or -1.
func damageException(kind, way, command int) int {
	for i, e := range damageExceptions {
		if (e.kind == "" || e.kind == damageKinds[kind].name) && (e.way == "" || e.way == damageWays[way]) && e.command == damageCommands[command].title {
			return i
		}
	}
	return -1
}

// outcome is a cell in parts.
type outcome struct {
	code  int
	named bool
	given int // -1 if the cell does not say
}

func parseCell(cell string) (o outcome, err error) {
	words := strings.Fields(cell)
	words = slices.DeleteFunc(words, func(w string) bool { o.named = o.named || w == "named"; return w == "named" })
	o.given = -1
	if _, err = fmt.Sscan(words[0], &o.code); err == nil && len(words) > 1 {
		_, err = fmt.Sscan(words[1], &o.given)
	}
	return o, err
}

// brokenRule says which rule a cell breaks, given the cell of the same command without
// damage. The rules are those of docs/damage.md.
func brokenRule(kind, way, command int, cell, none string) string {
	if damageWays[way] == "foreign files beside" && cell != none {
		return "files of other programs are not passed over"
	}
	got, err := parseCell(cell)
	if err != nil {
		return err.Error()
	}
	want, err := parseCell(none)
	if err != nil {
		return err.Error()
	}
	title := damageCommands[command].title
	damaged := !slices.Contains([]string{"none", "missing", "foreign files beside"}, damageWays[way])
	switch {
	case got.code != want.code && got.code != exitDamaged:
		return fmt.Sprintf("the exit code is neither %d nor %d", want.code, exitDamaged)
	case got.code != want.code && !got.named:
		return "the file is not named"
	case got.code != want.code && slices.Contains(damageGoesOn, title):
		return "the command does not do its work"
	case damaged && damageTold(kind, title) && got.code == want.code && got.given < want.given:
		return "the exit code does not say that something is lost"
	case got.given < want.given-damageLoses[damageKinds[kind].name]:
		return fmt.Sprintf("%d come back, and without damage %d do", got.given, want.given)
	case damaged && title == "check --read-data" && !got.named:
		return "check does not name the file"
	}
	return ""
}

// TestDamageRules verifies that in no cell of docs/damage.md one damaged file makes
// everything fail, that each exception is needed, and that the page has this text.
func TestDamageRules(t *testing.T) {
	doc := readDamageDoc(t)
	page, err := os.ReadFile(damageDoc)
	if err != nil {
		t.Fatal(err)
	}
	if text := damageText(doc); !*updateDamage && text != string(page) {
		t.Errorf("docs/damage.md has another text than this:\n%s", text)
	}
	used := make([]bool, len(damageExceptions))
	for kind := range damageKinds {
		for command := range damageCommands {
			none := doc[damageKey(kind, 0, command)]
			for way := range damageWays {
				broken := brokenRule(kind, way, command, doc[damageKey(kind, way, command)], none)
				if broken == "" {
					continue
				}
				if i := damageException(kind, way, command); i >= 0 {
					used[i] = true
				} else {
					t.Errorf("%s: %q: %s", damageKey(kind, way, command), doc[damageKey(kind, way, command)], broken)
				}
			}
		}
	}
	for i, e := range damageExceptions {
		if !used[i] {
			t.Errorf("no cell needs the exception %q", e)
		}
	}
}

// damageLists are the commands whose lines are compared, as lines of a list.
var damageLists = []string{"snapshots", "ls", "diff", "key list"}

// missingLines returns the lines that a command prints without damage, but did not print
// in text. If the file stands for lines of its own, they are not expected.
func (p *patient) missingLines(base map[string]backend.Backend, kind, way, command int, file, text string) (missing []string) {
	if !slices.Contains(damageLists, damageCommands[command].title) || damageKinds[kind].name == "pack of file lists" {
		return nil // all names of the snapshot are in this pack
	}
	whole := "none"
	if lost := damageWays[way] != "none" && damageWays[way] != "foreign files beside"; lost && slices.Contains([]string{"snapshot record", "key", "certificate"}, damageKinds[kind].name) {
		whole = "missing"
	}
	_, want := p.cell(base, file, whole, command)
	have := printedLines(text)
	for line := range printedLines(want) {
		if !have[line] {
			missing = append(missing, line)
		}
	}
	return missing
}

// printedLines returns the lines of an output without warnings. Space is collapsed, since
// the width of columns may differ.
func printedLines(text string) map[string]bool {
	all := map[string]bool{}
	for line := range strings.Lines(text) {
		if line = strings.Join(strings.Fields(line), " "); line != "" && !strings.HasPrefix(line, "snap: ") {
			all[line] = true
		}
	}
	return all
}

// filesInOut counts the files that materialize has written.
func filesInOut(p *patient) (n int) {
	_ = filepath.WalkDir(filepath.Join(p.dir, "out"), func(_ string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			n++
		}
		return nil
	})
	return n
}

// wholeIn returns a function that counts the snapshots of a store that can be read
// completely.
func wholeIn(store string) func(p *patient) int {
	return func(p *patient) (n int) {
		ctx := context.Background()
		r, err := repotest.Open(ctx, p.stores[store], []byte("pw"), repotest.Options(204))
		if err != nil {
			return 0
		}
		list, _, err := r.Snapshots(ctx)
		if err != nil {
			return 0
		}
		for _, s := range list {
			err := r.Walk(ctx, s, "", func(e *tree.Entry) error { return r.WriteContent(ctx, io.Discard, &e.Content) })
			if err == nil {
				n++
			}
		}
		return n
	}
}
