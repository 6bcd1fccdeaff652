package receive

import (
	"maps"
	"slices"

	"github.com/snap-backup/snap/device/catalog"
	"github.com/snap-backup/snap/device/protocol/backup2"
	"github.com/snap-backup/snap/repo"
)

// complaints holds the problems that the device has reported in this backup. The key is
// the final path of the file that a complaint is about, or the complaint's text if it is
// about no file.
type complaints map[string]repo.Complaint

// finalPath returns the path to which the device will move a file that it sends. A
// device sends files to the folder Snapshot first.
func finalPath(path string) string {
	if rest, ok := catalog.InSnapshot(path); ok {
		return rest
	}
	return path
}

// maxComplaints bounds the complaints in memory.
const maxComplaints = 1 << 16

func (c *complaints) add(key string, what repo.Complaint) {
	if *c == nil {
		*c = complaints{}
	}
	if _, ok := (*c)[key]; ok || len(*c) < maxComplaints {
		(*c)[key] = what
	}
}

// drop forgets the complaint about a file that the device sends again or removes.
func (c complaints) drop(path string) { delete(c, finalPath(path)) }

func (c complaints) list() []repo.Complaint {
	var out []repo.Complaint
	for _, key := range slices.Sorted(maps.Keys(c)) {
		out = append(out, c[key])
	}
	return out
}

// Complain remembers a complaint of the device, for the snapshot's record.
func (r *Receiver) Complain(c backup2.Complaint) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.Path == "" {
		r.complaints.add("said: "+c.Text, repo.Complaint{Text: c.Text})
		return
	}
	p, err := r.below(c.Path)
	if err != nil {
		return
	}
	p = finalPath(p)
	r.complaints.add(p, repo.Complaint{Path: p, Origin: c.Origin, Text: c.Text})
}

// loadComplaints takes over the complaints about files that an interrupted backup has
// received.
func (r *Receiver) loadComplaints(u *repo.Unfinished) {
	for _, c := range u.Complaints {
		_, waits := r.names.Number(catalog.SnapshotPath(c.Path))
		_, moved := r.names.Number(c.Path)
		if c.Path != "" && (waits || moved) {
			r.complaints.add(c.Path, c)
		}
	}
}
