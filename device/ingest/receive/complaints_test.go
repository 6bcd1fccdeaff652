package receive

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/device/protocol/backup2"
	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
)

// begin begins a backup of a phone.
func begin(t testing.TB, be backend.Backend, as seed, p *phone) *Receiver {
	t.Helper()
	n, err := New(context.Background(), mustOpen(t, be, as), Options{UDID: p.udid})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.SetInfo(p.read("Info.plist")); err != nil {
		t.Fatal(err)
	}
	return n
}

// complained returns what a snapshot says of the device's errors.
func complained(s *repo.Snapshot) (names []string, texts string) {
	for _, f := range s.Findings {
		if f.Kind == finding.DeviceError {
			names, texts = append(names, f.Names...), texts+f.Text+"\n"
		}
	}
	return names, texts
}

// What the device says about its own errors is in the snapshot's record, with the names
// of the files, until the device has sent them completely.
func TestComplaints(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s, be := newSeries(t, synthetic.Config{Seed: 5}), memory.New()
	s.next()
	createRepo(t, be)
	blobs := s.phone.blobs()
	about := func(i int) backup2.Complaint {
		return backup2.Complaint{Path: s.phone.udid + "/Snapshot/" + blobs[i], Origin: "/private/x", Text: "input/output error"}
	}
	publish := func(n *Receiver) *repo.Snapshot {
		t.Helper()
		res, err := n.Publish(ctx, PublishOptions{Workers: 1})
		if err != nil {
			t.Fatal(err)
		}
		return res.Snapshot
	}

	// The first run is interrupted; its record keeps the complaints.
	n := begin(t, be, 2, s.phone)
	stop := errors.New("stop")
	s.phone.step = func(name string) error {
		if name != "manifests" {
			return nil
		}
		for _, i := range []int{1, 3, 5} {
			n.Complain(about(i))
		}
		n.Complain(backup2.Complaint{Path: "elsewhere/x", Text: "ignored"})
		return stop
	}
	if err := s.phone.backup(ctx, n, nil); !errors.Is(err, stop) {
		t.Fatal(err)
	}
	if err := n.Close(ctx); err != nil {
		t.Fatal(err)
	}
	s.phone.step = nil
	n = begin(t, be, 3, s.phone)
	if n.Resumed().Files == 0 {
		t.Fatal("the backup is not continued")
	}
	if err := s.phone.backup(ctx, n, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.phone.put(ctx, n, blobs[5], s.phone.read(blobs[5])); err != nil { // sent again
		t.Fatal(err)
	}
	n.Complain(backup2.Complaint{Text: "one of my disks is full"})
	first := publish(n)
	names, texts := complained(first)
	if len(names) != 2 || !strings.Contains(names[0]+names[1], blobs[1][3:]) || !strings.Contains(names[0]+names[1], blobs[3][3:]) || !strings.Contains(names[0], "Domain") {
		t.Errorf("files that the device could not read: %q", names)
	}
	if !strings.Contains(texts, "2 files that the device could not read to their end") || !strings.Contains(texts, ": input/output error\n") || !strings.Contains(texts, "the device said: one of my disks is full\n") {
		t.Errorf("texts: %q", texts)
	}
	if !first.Complete {
		t.Errorf("all files are there, but the snapshot is incomplete: %+v", first.Findings)
	}

	// Files that are not sent again are still those that the device could not read.
	n = begin(t, be, 4, s.phone)
	if err := s.phone.backup(ctx, n, s.phone.state()); err != nil {
		t.Fatal(err)
	}
	second := publish(n)
	if again, _ := complained(second); !slices.Equal(again, names) {
		t.Errorf("the day after: %q, not %q", again, names)
	}
	// All files are sent again.
	n = begin(t, be, 5, s.phone)
	if err := s.phone.backup(ctx, n, map[string]string{}); err != nil {
		t.Fatal(err)
	}
	if again, _ := complained(publish(n)); len(again) > 0 {
		t.Errorf("after all files were sent: %q", again)
	}
}

// A complaint about a listed file that is not there is damage.
func TestComplaintAboutMissingFile(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	p, be := newPhone(firstDay(t, synthetic.EncryptNone).dir), memory.New()
	createRepo(t, be)
	n := begin(t, be, 2, p)
	if err := p.backup(ctx, n, nil); err != nil {
		t.Fatal(err)
	}
	path := p.udid + "/" + p.blobs()[3]
	if err := n.Remove(ctx, path); err != nil {
		t.Fatal(err)
	}
	n.Complain(backup2.Complaint{Path: path, Text: "no such file"})
	res, err := n.Publish(ctx, PublishOptions{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	if names, texts := complained(res.Snapshot); len(names) != 1 || res.Snapshot.Complete || !strings.Contains(texts, "the device could not read all of a file, which is not in the backup: ") {
		t.Errorf("%q, %q, complete is %v", names, texts, res.Snapshot.Complete)
	}
}

// Complaints of an endless number do not fill memory or the record.
func TestManyComplaints(t *testing.T) {
	t.Parallel()
	var c complaints
	for i := range maxComplaints + 10 {
		c.add(strings.Repeat("x", i%7)+string(rune(i)), repo.Complaint{})
	}
	if len(c) > maxComplaints {
		t.Errorf("%d complaints", len(c))
	}
}
