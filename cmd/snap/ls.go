package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

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

func (a *app) lsCommand() *cobra.Command {
	var recursive bool
	cmd := &cobra.Command{
		Use:   "ls SNAPSHOT [DOMAIN[/PATH]]",
		Short: "List the files of a snapshot by domain and path",
		Long: `Without DOMAIN it lists the domains of the device; "-" stands for files of the backup
folder that belong to no domain. With DOMAIN or DOMAIN/PATH it lists the files and folders
in it; -R lists everything below. SNAPSHOT is the beginning of an ID, "latest", or
"latest:DEVICE".

Snapshots that were stored locked have no domains; all files are in "-".`,
		Example: "  snap ls latest\n  snap ls \"latest:Anna's iPhone\" HomeDomain/Library/SMS\n  snap ls 1a2b3c4d -R CameraRollDomain",
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, argv []string) error {
			ctx := cmd.Context()
			r, found, err := a.openToRead(cmd, argv[0])
			if err != nil {
				return err
			}
			s := found[0]
			l := lister{recursive: recursive, items: []lsItem{}}
			if len(argv) > 1 {
				l.domain, l.below, _ = strings.Cut(argv[1], "/")
				l.below = strings.Trim(l.below, "/")
				l.inside = true
			}
			only := l.domain
			if only == noDomain {
				only = ""
			}
			if err := r.Walk(ctx, s, only, l.add); err != nil {
				return err
			}
			if l.inside && len(l.items) == 0 {
				return fmt.Errorf("%q in snapshot %s: %w", argv[1], s.ID.Short(), errNoFiles)
			}
			return a.print(l.items, func(w io.Writer) { l.print(w) })
		},
	}
	cmd.Flags().BoolVarP(&recursive, "recursive", "R", false, "list everything below")
	return cmd
}

var errNoFiles = errors.New("no such file or folder")

// noDomain stands for files that belong to no domain.
const noDomain = "-"

// lister collects the lines of ls. Entries come sorted by domain and path, so the
// entries of a folder are consecutive.
type lister struct {
	recursive     bool
	inside        bool // a domain was given
	domain, below string
	items         []lsItem
}

func (l *lister) add(e *tree.Entry) error {
	domain, name := e.Domain, e.Name
	if domain == "" {
		domain, name = noDomain, e.Path
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
	item := lsItem{Type: "file", Domain: domain, Name: name, Path: e.Path, Files: 1, Size: e.Content.Size, Mode: fs.FileMode(e.Mode).String()}
	if e.Kind == tree.Dir {
		item.Type, item.Files = "folder", 0
	}
	t := time.Unix(0, e.ModTime).UTC()
	if e.Record != nil {
		t = time.Unix(e.Record.ModTime, 0).UTC()
	}
	item.ModTime = &t
	if n := len(l.items); n > 0 && l.items[n-1].Type == "folder" && l.items[n-1].Name == name && item.Type == "folder" {
		return nil
	}
	l.items = append(l.items, item)
	return nil
}

// under returns a name relative to the folder below, or false if it is not in this
// folder. If both are equal, it returns their last element.
func under(name, below string) (string, bool) {
	if below == "" {
		return name, true
	}
	if name == below {
		return name[strings.LastIndexByte(name, '/')+1:], true
	}
	return strings.CutPrefix(name, below+"/")
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

// displayName returns the name of a line, with its domain if several are listed.
func (l *lister) displayName(it *lsItem) string {
	if l.inside || it.Domain == noDomain {
		return it.Name
	}
	return it.Domain + "/" + it.Name
}

func (l *lister) print(w io.Writer) {
	for i := range l.items {
		it := &l.items[i]
		switch it.Type {
		case "domain":
			fmt.Fprintf(w, "%10s  %16s  %s\n", bytesText(it.Size), plural(it.Files, "file"), clean(it.Domain))
		case "folder":
			fmt.Fprintf(w, "%10s  %16s  %s/\n", bytesText(it.Size), plural(it.Files, "file"), clean(l.displayName(it)))
		default:
			fmt.Fprintf(w, "%10s  %16s  %s\n", bytesText(it.Size), timeText(*it.ModTime), clean(l.displayName(it)))
		}
	}
}
