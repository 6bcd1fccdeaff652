package ingest

import (
	"context"
	"crypto/sha1"
	"errors"
	"hash"

	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/device/judge"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// nameOf names a file in findings.
func nameOf(e *tree.Entry) string { return judge.Name(e) }

// judgeMissing judges the files that the manifest lists and that are not there.
func (j *job) judgeMissing(ctx context.Context) error {
	if j.records == nil {
		return nil
	}
	earlier := &judge.Earlier{Repo: j.r, UDID: j.b.Device().UDID, Layout: j.b.Layout()}
	return j.judge.Missing(ctx, j.res.Report.Listed, earlier)
}

// newDigest returns a hash for a file that has a digest in the manifest, or nil.
func (j *job) newDigest(f *file) hash.Hash {
	if f.row < 0 || f.size == 0 {
		return nil
	}
	if rec := j.records.At(int(f.row)); !rec.HasDigest || j.decryptedFile(&rec, f.size) {
		return nil
	}
	return sha1.New()
}

// judgeDigest compares the bytes that were read with the digest in the manifest.
// Then it judges the doubts about the content: if the digest proves that the device wrote
// these bytes, they are only remarks.
func (j *job) judgeDigest(f *file, src *sourceReader) {
	proven := false
	if src.sum != nil && src.left == 0 {
		rec := j.records.At(int(f.row))
		proven = j.judge.Digest(nameOf(&f.entry), &rec, src.sum.Sum(nil))
	}
	j.judgeDoubts(f, proven)
}

// judgeDoubts adds findings about the content of a file.
func (j *job) judgeDoubts(f *file, proven bool) {
	var rec *manifest.Record
	if f.row >= 0 {
		row := j.records.At(int(f.row))
		rec = &row
	}
	for _, kind := range f.doubts {
		known := kind == finding.Cipher && !f.read && j.suspect.odd[nameOf(&f.entry)]
		j.judge.Content(kind, nameOf(&f.entry), rec, proven || known)
	}
	f.doubts = nil
}

// doubtful reports whether only the content can tell whether a file is damaged: its size is
// not that in the manifest, and it has a digest or is probably a database.
func (j *job) doubtful(f *file) bool {
	if f.row < 0 || f.size == 0 {
		return false
	}
	rec := j.records.At(int(f.row))
	return rec.HasMeta && rec.Size != f.size && (rec.HasDigest || mobilesync.NamedLikeDatabase(rec.RelativePath))
}

// judgeStored judges a file that is not read, as far as that is possible.
func (j *job) judgeStored(f *file, s *Stored) {
	if !s.Sent {
		j.unread.keep(f)
		j.judgeDoubts(f, false)
		return
	}
	if s.Short || s.Zeros && mobilesync.NamedLikeDatabase(f.entry.Name) {
		f.doubts = append(f.doubts, finding.Database)
	}
	proven := false
	if s.Sum != nil && f.row >= 0 && f.size > 0 {
		rec := j.records.At(int(f.row))
		proven = j.judge.Digest(nameOf(&f.entry), &rec, s.Sum[:])
	}
	j.judgeDoubts(f, proven)
}

// judgeDatabase adds a doubt if a file that was read is an SQLite database that is cut off
// or broken. The manifest has been judged before.
func (j *job) judgeDatabase(f *file, ends *judge.Ends) {
	if f.entry.Path != mobilesync.ManifestDB && ends.CutDatabase(f.entry.Name) {
		f.doubts = append(f.doubts, finding.Database)
	}
}

// suspects are the files in which the import of the parent found damage. They are
// read and judged again, even if they look unchanged.
type suspects struct {
	all   bool // every file is suspect, since the record does not name all damaged files
	names map[string]bool
	odd   map[string]bool // cannot be decrypted, but the device wrote them like that
}

func suspectsOf(parent *repo.Snapshot) suspects {
	s := suspects{names: map[string]bool{}, odd: map[string]bool{}}
	if parent == nil {
		return s
	}
	for _, f := range parent.Findings {
		names := s.names
		switch {
		case f.Kind == finding.Cipher && f.Consequence == repo.Remark:
			names = s.odd
		case f.Kind == finding.Digest, f.Kind == finding.Database:
		default:
			continue
		}
		s.all = s.all || f.Count > int64(len(f.Names))
		for _, name := range f.Names {
			names[name] = true
		}
	}
	return s
}

func (s *suspects) has(e *tree.Entry) bool {
	return s.all || len(s.names) > 0 && s.names[nameOf(e)]
}

// inherit takes over the parent's findings about the same files.
func (j *job) inherit() {
	for _, f := range j.parent.Findings {
		switch f.Kind {
		case finding.Date, finding.DeviceError:
		default:
			j.log.Add(f)
		}
	}
}

// asCompleteAsParent reports whether this backup and the parent are both complete, or
// both not.
func (j *job) asCompleteAsParent() bool {
	return j.parent.Complete == (finding.Worst(j.res.Findings) == repo.Remark)
}

// judgeKeybag adds findings if no password can open the backup, or if the right one does
// not open all that it should. Such a backup is stored locked.
func (j *job) judgeKeybag() {
	if !j.b.Encrypted() {
		return
	}
	_, sound := j.judge.Keybag()
	switch err := j.b.UnlockErr(); {
	case err == nil || !sound:
	case errors.Is(err, manifest.ErrCorrupt):
		j.log.Note(finding.Manifest, repo.Incomplete, err.Error())
	case errors.Is(err, keybag.ErrNoClass), errors.Is(err, keybag.ErrUnwrap), errors.Is(err, keybag.ErrUnsupportedKey):
		j.log.Note(finding.NoKey, repo.Damage, err.Error())
	}
}

// judgeKeys adds a finding if the backup has two sets of keys.
func (j *job) judgeKeys() {
	keyed := j.res.Decrypted
	for reason, n := range j.res.Raw {
		if reason != RawNoKey && reason != RawDecrypted {
			keyed += n
		}
	}
	j.judge.Keys(j.res.Raw[RawBadKey], keyed)
}
