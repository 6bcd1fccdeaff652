package ingest

import (
	"fmt"
	"slices"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/repo"
)

// unread are files that the device could not read to their end.
type unread struct {
	before map[string]bool // names of such files of the parent
	kept   []string        // names of those that the device has not sent again
}

func unreadIn(parent *repo.Snapshot) unread {
	u := unread{before: map[string]bool{}}
	if parent == nil {
		return u
	}
	for _, f := range parent.Findings {
		if f.Kind == finding.DeviceError {
			for _, name := range f.Names {
				u.before[name] = true
			}
		}
	}
	return u
}

// keep remembers a file that is taken from the parent, if the device could not read it to
// its end when the parent was made.
func (u *unread) keep(f *file) {
	if len(u.before) == 0 || f.parent == nil {
		return
	}
	if name := nameOf(&f.entry); u.before[name] {
		u.kept = append(u.kept, name)
	}
}

// noteComplaints adds what the device said about its own errors. It is damage if a file
// is not there at all.
func (j *job) noteComplaints() {
	missing := map[string]bool{}
	for _, c := range j.opts.Complaints {
		if c.Path != "" {
			missing[c.Path] = true
		}
	}
	for i := range j.items.len() {
		if len(missing) == 0 {
			break
		}
		if it := j.items.at(i); !it.odd {
			delete(missing, j.items.path(it))
		}
	}
	reasons := map[string]string{}
	for _, name := range j.unread.kept {
		reasons[name] = ""
	}
	consequence := repo.Remark
	for _, c := range j.opts.Complaints {
		if c.Path == "" {
			j.log.Note(finding.DeviceError, repo.Remark, "the device said: "+c.Text)
			continue
		}
		name, listed := j.nameOfComplaint(c)
		if listed && missing[c.Path] {
			consequence = repo.Damage
		}
		reasons[name] = c.Text
	}
	if len(reasons) > 0 {
		j.log.Add(unreadFinding(consequence, reasons, len(missing)))
	}
}

// nameOfComplaint names the file of a complaint, and reports whether the manifest lists
// it.
func (j *job) nameOfComplaint(c repo.Complaint) (name string, listed bool) {
	id, ok := blob.ParsePath(c.Path, j.b.Layout() == mobilesync.Flat)
	if ok && j.records != nil {
		if row, ok := j.records.ByFileID(id); ok {
			return j.judge.RowName(row), j.records.ListsFile(row)
		}
	}
	if ok && c.Origin != "" {
		return fmt.Sprintf("%s (%x)", c.Origin, id), false
	}
	return c.Path, false
}

// unreadFinding describes files that the device could not read to their end, with the
// reasons by name. missing counts those that are not in the backup.
func unreadFinding(c repo.Consequence, reasons map[string]string, missing int) repo.Finding {
	f := repo.Finding{Kind: finding.DeviceError, Consequence: c, Count: int64(len(reasons))}
	for name := range reasons {
		f.Names = append(f.Names, name)
	}
	slices.Sort(f.Names)
	f.Text = "the device could not read all of a file"
	if f.Count > 1 {
		f.Text = fmt.Sprintf("%d files that the device could not read to their end", f.Count)
	}
	switch {
	case missing > 0 && f.Count == 1:
		f.Text += ", which is not in the backup: "
	case missing > 0:
		f.Text += fmt.Sprintf(" (the backup lacks %d of them), such as ", missing)
	case f.Count == 1:
		f.Text += ": "
	default:
		f.Text += ", such as "
	}
	f.Text += f.Names[0]
	if why := reasons[f.Names[0]]; why != "" {
		f.Text += ": " + why
	}
	return f
}
