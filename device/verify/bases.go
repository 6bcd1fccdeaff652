package verify

import (
	"context"
	"errors"
	"iter"
	"slices"
	"time"

	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/device/stored"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// Base is a snapshot whose files a full verification has read. Files that another
// snapshot shares with it are not read again.
type Base struct {
	Snapshot *repo.Snapshot
	// UpTo, if not nil, is the last file that was read.
	UpTo *tree.Key
	// Findings are what was found. Files that they name are read again.
	Findings []repo.Finding
	locked   bool // files could not be decrypted
}

// BasesOf returns the bases for the verification of a snapshot: its own last
// certificate, and that of the snapshot nearest in time. list has all snapshots.
// Certificates older than since do not count.
func BasesOf(s *repo.Snapshot, list []*repo.Snapshot, certificates []*repo.Certificate, since time.Time) []Base {
	var own, near *Base
	for _, c := range certificates { // oldest first
		if c.Kind != repo.CertificateVerify || c.OlderThan(since) || c.Level != repo.LevelFull && c.StoppedAt == nil {
			continue
		}
		if slices.ContainsFunc(c.Findings, lostList) {
			continue // files whose names could not be read were not verified, and are not known
		}
		i := slices.IndexFunc(list, func(s *repo.Snapshot) bool { return s.Has(c.Snapshot) })
		if i < 0 || list[i].Root != c.Root || !repo.SameDevice(list[i].Device.UDID, s.Device.UDID) {
			continue
		}
		b := &Base{Snapshot: list[i], Findings: c.Findings, locked: c.Locked}
		if at := c.StoppedAt; at != nil {
			b.UpTo = &tree.Key{Domain: at.Domain, Name: at.Name, Path: at.Path}
		}
		switch {
		case list[i].ID == s.ID:
			if own == nil || b.UpTo == nil || own.UpTo != nil {
				own = b
			}
		case b.UpTo == nil && (near == nil || distance(list[i], s) <= distance(near.Snapshot, s)):
			near = b
		}
	}
	var out []Base
	for _, b := range []*Base{own, near} {
		if b != nil {
			out = append(out, *b)
		}
	}
	return out
}

// lostList reports whether a finding is that a part of the file tree is lost.
func lostList(f repo.Finding) bool { return f.Kind == finding.Lost && len(f.Names) == 0 }

func distance(a, b *repo.Snapshot) time.Duration { return a.Time.Sub(b.Time).Abs() }

// contentKinds are findings that need the content of a file.
var contentKinds = []string{finding.Digest, finding.Database, finding.Cipher, finding.Plist, finding.NoKey, finding.Lost}

// openBases are the bases while the tree is walked.
type openBases []*openBase

type openBase struct {
	Base
	same     bool // the base is the snapshot itself
	suspects map[string]bool
	next     func() (change, bool)
	stop     func()
	cur      change
	more     bool
}

// change is an entry of the snapshot that the base lacks, or that differs in the base.
// before is the base's entry, or nil.
type change struct {
	key    tree.Key
	before *tree.Entry
	failed bool // the changes that follow are not known
}

func (j *job) openBases(ctx context.Context) openBases {
	var out openBases
	for _, b := range j.opts.Bases {
		if o := j.openBase(ctx, b); o != nil {
			out = append(out, o)
		}
	}
	return out
}

// openBase returns nil if the base is of no use.
func (j *job) openBase(ctx context.Context, b Base) *openBase {
	readable := j.b != nil && j.b.Readable()
	o := &openBase{Base: b, same: b.Snapshot.Root == j.s.Root, suspects: map[string]bool{}}
	switch {
	case b.locked && readable: // that verification could not decrypt files that can be decrypted now
		return nil
	case b.Snapshot.Encrypted != j.s.Encrypted, b.Snapshot.Unlocked != j.s.Unlocked:
		return nil
	case !o.same && j.s.Encrypted && !j.s.Unlocked && readable:
		// Entries of a locked snapshot do not say whether their rows are the same.
		return nil
	}
	for _, f := range b.Findings {
		if !slices.Contains(contentKinds, f.Kind) {
			continue
		}
		if f.Count > int64(len(f.Names)) {
			return nil
		}
		for _, name := range f.Names {
			o.suspects[name] = true
		}
	}
	if !o.same {
		o.next, o.stop = iter.Pull(j.changes(ctx, b.Snapshot))
		o.cur, o.more = o.next()
	}
	return o
}

// changes goes through the entries that differ from the base's, in order.
func (j *job) changes(ctx context.Context, base *repo.Snapshot) iter.Seq[change] {
	stopped := errors.New("stopped")
	return func(yield func(change) bool) {
		err := j.r.Diff(ctx, base, j.s, func(a, b *tree.Entry) error {
			if b != nil && !yield(change{key: b.Key(), before: a}) {
				return stopped
			}
			return nil
		})
		if err != nil && !errors.Is(err, stopped) {
			yield(change{failed: true})
		}
	}
}

func (o openBases) close() {
	for _, b := range o {
		if b.stop != nil {
			b.stop()
		}
	}
}

// shared reports whether a base has read a file. Files come in the order of the tree.
func (o openBases) shared(j *job, f stored.File) bool {
	shared := false
	for _, b := range o {
		if b.has(j, f) {
			shared = true // the others must advance, too
		}
	}
	return shared
}

func (b *openBase) has(j *job, f stored.File) bool {
	key := f.Entry.Key()
	same := b.same || b.unchanged(j, f, key)
	if !same || b.UpTo != nil && key.Compare(*b.UpTo) > 0 {
		return false
	}
	return len(b.suspects) == 0 || !b.suspects[j.name(f.Entry)]
}

func (b *openBase) unchanged(j *job, f stored.File, key tree.Key) bool {
	for b.more && !b.cur.failed && b.cur.key.Compare(key) < 0 {
		b.cur, b.more = b.next()
	}
	if b.more && b.cur.failed {
		return false
	}
	if !b.more || b.cur.key != key {
		return true
	}
	return unchangedContent(j, b.cur.before, f)
}

// unchangedContent reports whether an entry need not be read although its metadata has
// changed: its content is the same, and so is everything that its row says about the
// content.
func unchangedContent(j *job, before *tree.Entry, f stored.File) bool {
	e := f.Entry
	if before == nil || before.Kind != e.Kind || !before.SameContent(e) || (before.Encryption == nil) != (e.Encryption == nil) {
		return false
	}
	if f.Row < 0 {
		return before.Record == nil && e.Record == nil && e.Encryption == nil
	}
	if before.Record == nil || e.Record == nil {
		return false
	}
	if before.Record.Sum == e.Record.Sum && (e.Encryption == nil || *before.Encryption == *e.Encryption) {
		return true
	}
	rec := j.records.At(f.Row)
	return !rec.HasDigest && j.b.State(e, &rec) != stored.Encrypted
}
