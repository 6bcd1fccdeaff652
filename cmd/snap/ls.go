package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/snap-backup/snap/device/materialize"
	"github.com/snap-backup/snap/internal/words"
	"github.com/snap-backup/snap/look"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
	"github.com/spf13/cobra"
)

// lsItem is one line of ls: a domain, a folder or a file.
type lsItem struct {
	Type    string     `json:"type"` // domain, folder or file
	Domain  string     `json:"domain"`
	Name    string     `json:"name"`           // path in the domain
	Path    string     `json:"path,omitempty"` // path in the backup folder; only of files
	Files   int64      `json:"files"`          // number of files in it; 1 for a file
	Size    int64      `json:"size"`
	Mode    string     `json:"mode,omitempty"`
	ModTime *time.Time `json:"mtime,omitempty"` // time on the device if known, otherwise in the backup folder
}

// timeText returns the item's time for people.
func (it *lsItem) timeText() string {
	if it.ModTime == nil {
		return "unknown"
	}
	return timeText(*it.ModTime)
}

func (a *app) lsCommand() *cobra.Command {
	var recursive, long bool
	var source backupPassword
	cmd := &cobra.Command{
		Use:   "ls SNAPSHOT [DOMAIN[/PATH]]",
		Short: "List the files of a snapshot by domain and path",
		Long: `Without DOMAIN it lists the domains of the device; "-" stands for files of the
backup folder that belong to no domain. With DOMAIN or DOMAIN/PATH it lists the
files and folders directly in it; -R lists everything below. Each line that it
prints can be given as DOMAIN/PATH; so can paths of the backup folder, such as
Manifest.db. SNAPSHOT is the beginning of an ID, "latest", or "latest:DEVICE".
-l also shows modes, exact sizes, and paths in the backup folder.

In snapshots that were stored locked all files are in "-", unless the backup
password is known: from the flags, SNAP_BACKUP_PASSWORD or the repository.
"snap find" looks for files in all snapshots; "snap dump" and "snap extract"
write them.`,
		Example: "  snap ls latest\n  snap ls \"latest:Anna's iPhone\" HomeDomain/Library/SMS\n  snap ls 1a2b3c4d -R CameraRollDomain",
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, argv []string) error {
			ctx := cmd.Context()
			r, found, err := a.openToRead(cmd, argv[0])
			if err != nil {
				return err
			}
			s := found[0]
			l := lister{recursive: recursive, long: long, items: []lsItem{}}
			if len(argv) > 1 {
				l.domain, l.below, _ = strings.Cut(argv[1], "/")
				l.below = strings.Trim(l.below, "/")
				l.inside = true
			}
			if look.Locked(s) {
				u, err := a.newLookUnlocker(ctx, r, source)
				if err != nil {
					return err
				}
				defer u.close()
				v := look.Open(r, s, u.unlockSilently)
				defer v.Close()
				l.names = v
			}
			lost, err := a.list(ctx, r, s, &l)
			if err != nil {
				return err
			}
			if l.inside && len(l.items) == 0 && lost == nil {
				return l.notListed(argv[1], s)
			}
			l.sort()
			if err := a.print(l.items, func(w io.Writer) { l.print(w) }); err != nil || lost == nil {
				return err
			}
			return fmt.Errorf("the list lacks files of snapshot %s: %w", s.ID.Short(), lost)
		},
	}
	cmd.Flags().BoolVarP(&recursive, "recursive", "R", false, "list everything below")
	cmd.Flags().BoolVarP(&long, "long", "l", false, "also show modes, exact sizes, and paths in the backup folder")
	source.register(cmd)
	return cmd
}

// list collects what a lister wants. lost says what of the list cannot be read.
func (a *app) list(ctx context.Context, r *repo.Repo, s *repo.Snapshot, l *lister) (lost, err error) {
	if l.names != nil && l.domain != noDomain {
		lost, err = a.listLocked(ctx, l)
		if !errors.Is(err, look.ErrLocked) && (lost == nil || len(l.items) > 0) {
			return lost, err
		}
		// Without names, list the paths in the backup folder.
		l.names, l.byPath, l.items = nil, false, []lsItem{}
	}
	only := l.domain
	if only == noDomain {
		only = ""
	}
	lost = r.Walk(ctx, s, only, l.add)
	if lost == nil && l.inside && len(l.items) == 0 {
		l.byPath = true
		lost = r.Walk(ctx, s, "", l.add)
	}
	if !errors.Is(lost, repo.ErrDamaged) {
		return nil, lost
	}
	// List what can be read, whatever its domain; add passes over the rest.
	l.items = []lsItem{}
	return lost, r.WalkAll(ctx, s, l.add, func(err error) error { a.warn("%v", err); return nil })
}

// listLocked lists a snapshot that was stored locked with the names that the backup password
// opens. The error is look.ErrLocked if the password is not known.
func (a *app) listLocked(ctx context.Context, l *lister) (lost, err error) {
	for _, l.byPath = range []bool{false, true} {
		for f, err := range l.names.Files(ctx, nil) {
			if errors.Is(err, repo.ErrDamaged) {
				lost = err
				continue
			}
			if err != nil {
				return nil, err
			}
			e := f.Entry
			e.Domain, e.Name, e.Content.Size = f.Domain, f.Name, f.Size
			e.Record = &tree.Record{ModTime: f.ModTime.Unix()}
			if err := l.add(&e); err != nil {
				return nil, err
			}
		}
		if len(l.items) > 0 || !l.inside {
			break
		}
	}
	return lost, nil
}

// notListed returns the error for a file or folder that a snapshot does not have.
func (l *lister) notListed(name string, s *repo.Snapshot) error {
	if locked(s) && l.names == nil && l.domain != noDomain {
		return advised{
			fmt.Errorf("%q in snapshot %s: %w, so the names of its files are not known", name, s.ID.Short(), materialize.ErrLocked),
			fmt.Sprintf(`"snap ls %s -" lists the files of the backup folder; with SNAP_BACKUP_PASSWORD, they have names`, s.ID.Short()),
		}
	}
	return fmt.Errorf("%q in snapshot %s: %w", name, s.ID.Short(), errNoFiles)
}

var errNoFiles = errors.New("no such file or folder")

// noDomain stands for files that belong to no domain.
const noDomain = "-"

// lister collects the lines of ls. Entries come sorted by domain and path, so the
// entries of a folder are consecutive.
type lister struct {
	recursive     bool
	long          bool
	names         *look.Reader // of a snapshot that was stored locked
	inside        bool         // a domain was given
	domain, below string
	byPath        bool // the domain and below are a path of the backup folder
	items         []lsItem
}

func (l *lister) add(e *tree.Entry) error {
	domain, name := e.Domain, e.Name
	if domain == "" {
		domain, name = noDomain, e.Path
	}
	if l.byPath {
		return l.addPath(e, domain, name)
	}
	if l.inside && domain != l.domain {
		return nil
	}
	if !l.inside && !l.recursive {
		l.group("domain", domain, "", e)
		return nil
	}
	rest, ok := under(name, l.below)
	if !ok {
		return nil
	}
	if first, _, deeper := strings.Cut(rest, "/"); deeper && !l.recursive {
		l.group("folder", domain, strings.TrimPrefix(l.below+"/"+first, "/"), e)
		return nil
	}
	l.addLine(e, domain, name)
	return nil
}

// addPath adds an entry if the path that was given leads to it or to a folder above it.
func (l *lister) addPath(e *tree.Entry, domain, name string) error {
	if _, ok := under(e.Path, strings.Trim(l.domain+"/"+l.below, "/")); ok {
		l.addLine(e, domain, name)
	}
	return nil
}

// addLine adds a line for an entry.
func (l *lister) addLine(e *tree.Entry, domain, name string) {
	item := lsItem{Type: "file", Domain: domain, Name: name, Path: e.Path, Files: 1, Size: e.Content.Size, Mode: fs.FileMode(e.Mode).String()}
	if e.Kind == tree.Dir {
		item.Type, item.Files = "folder", 0
	}
	t := e.ModTime.Time().UTC()
	if e.Record != nil {
		t = time.Unix(e.Record.ModTime, 0).UTC()
	}
	if year := t.Year(); 0 <= year && year <= 9999 { // JSON has no other years
		item.ModTime = &t
	}
	if n := len(l.items); n > 0 && l.items[n-1].Type == "folder" && l.items[n-1].Name == name && item.Type == "folder" {
		return
	}
	l.items = append(l.items, item)
}

// under returns a name relative to a folder, or false if the name is not in that
// folder. If the name is the folder itself, it returns the last element.
func under(name, folder string) (string, bool) {
	if folder == "" {
		return name, true
	}
	if name == folder {
		return name[strings.LastIndexByte(name, '/')+1:], true
	}
	return strings.CutPrefix(name, folder+"/")
}

// group adds an entry to the line of its domain or folder.
func (l *lister) group(typ, domain, name string, e *tree.Entry) {
	n := len(l.items)
	if n == 0 || l.items[n-1].Domain != domain || l.items[n-1].Name != name {
		l.items = append(l.items, lsItem{Type: typ, Domain: domain, Name: name})
		n++
	}
	if e.Kind == tree.File {
		l.items[n-1].Files++
		l.items[n-1].Size += e.Content.Size
	}
}

// sort puts the lines in the order in which people expect names, and what is in a folder
// behind the folder. Files of no domain are the first ones.
func (l *lister) sort() {
	type line struct {
		item lsItem
		path string
	}
	lines := make([]line, len(l.items))
	for i, it := range l.items {
		path := it.Domain + "/" + it.Name
		if it.Domain == noDomain {
			path = "/" + it.Name
		}
		lines[i] = line{it, strings.ReplaceAll(path, "/", "\x00")}
	}
	slices.SortStableFunc(lines, func(a, b line) int { return words.Compare(a.path, b.path) })
	for i := range lines {
		l.items[i] = lines[i].item
	}
}

// displayName returns the name of a line as it can be given as an argument. A name that
// begins with "-/" would look like a flag.
func (*lister) displayName(it *lsItem) string {
	if it.Domain == noDomain {
		return it.Name
	}
	return it.Domain + "/" + it.Name
}

func (l *lister) print(w io.Writer) {
	w = verbatim(w) // so that a path can be copied
	for i := range l.items {
		it := &l.items[i]
		if l.long {
			l.printLong(w, it)
			continue
		}
		switch it.Type {
		case "domain":
			fmt.Fprintf(w, "%10s  %16s  %s\n", bytesText(it.Size), plural(it.Files, "file"), clean(it.Domain))
		case "folder":
			fmt.Fprintf(w, "%10s  %16s  %s/\n", bytesText(it.Size), plural(it.Files, "file"), clean(l.displayName(it)))
		default:
			fmt.Fprintf(w, "%10s  %16s  %s\n", bytesText(it.Size), it.timeText(), clean(l.displayName(it)))
		}
	}
}

// printLong prints a line with mode, size in bytes, time, name, and path in the backup folder.
func (l *lister) printLong(w io.Writer, it *lsItem) {
	mode, when, name := it.Mode, it.timeText(), l.displayName(it)
	switch it.Type {
	case "domain":
		mode, when, name = "", plural(it.Files, "file"), it.Domain
	case "folder":
		mode, when, name = "d", plural(it.Files, "file"), name+"/"
	}
	fmt.Fprintf(w, "%-10s  %15s  %16s  %s", mode, count(it.Size), when, clean(name))
	if it.Path != "" && it.Domain != noDomain {
		fmt.Fprintf(w, "  (%s)", clean(it.Path))
	}
	fmt.Fprintln(w)
}
