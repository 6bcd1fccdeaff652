// Package judge says what follows if the files of a backup differ from what its
// manifest says of them. Imports and verifications share its rules.
//
// It adds findings to a log. It reads no files, and writes nothing.
package judge

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// Judge judges one backup. Its fields are set before its methods are called.
type Judge struct {
	Log     *finding.Log
	Backup  *mobilesync.Backup // not needed for Missing if the layout is Hashed
	Records *manifest.Records
	// DigestsDecide says that the caller compares files with their digests. A wrong size
	// of a file with a digest is then only a remark.
	DigestsDecide bool
	// Unreadable, if not nil, reports whether the file at a path of the backup folder
	// is not there because it could not be read.
	Unreadable func(path string) bool
	// Replaced, if not nil, reports whether something other than a file is where the file
	// at a path should be.
	Replaced func(path string) bool

	missing []int    // rows whose blob is missing
	extra   []string // paths of blobs that no row lists, at most maxExtra
	extras  int      // number of such blobs
	plain   []int    // rows with a key whose blob is not encrypted
}

// Name names an entry in findings.
func Name(e *tree.Entry) string { return finding.Name(e.Domain, e.Name, e.Path) }

// RowName names the file of a row in findings.
func (j *Judge) RowName(row int) string {
	rec := j.Records.At(row)
	return finding.Name(rec.Domain, rec.RelativePath, mobilesync.BlobPath(j.layout(), rec.FileID))
}

func (j *Judge) layout() mobilesync.Layout {
	if j.Backup == nil {
		return mobilesync.Hashed
	}
	return j.Backup.Layout()
}

// Difference judges a difference that a mobilesync.Comparison has found. Missing
// files are only remembered; see Missing.
func (j *Judge) Difference(d mobilesync.Difference, row int, path string) {
	switch d {
	case mobilesync.DiffMissing:
		j.missing = append(j.missing, row)
	case mobilesync.DiffEmptied:
		j.Log.File(finding.Emptied, j.RowName(row))
	case mobilesync.DiffSize:
		if rec := j.Records.At(row); rec.HasDigest && j.DigestsDecide {
			j.Log.Remark(finding.Size, j.RowName(row))
			return
		}
		j.Log.File(finding.Size, j.RowName(row))
	case mobilesync.DiffNotBlocks:
		j.noCipher(row)
	case mobilesync.DiffPlain:
		j.plain = append(j.plain, row)
	case mobilesync.DiffExtra:
		if j.extras++; len(j.extra) < maxExtra {
			j.extra = append(j.extra, path)
		}
	case mobilesync.DiffNotFile:
		// The row says that it is a folder or a link, so it would not be restored.
		j.Log.File(finding.Anomaly, j.RowName(row))
	}
}

func (j *Judge) noCipher(row int) {
	if !j.Backup.Unlocked() { // otherwise it is found when the file is decrypted
		j.Log.File(finding.Cipher, j.RowName(row))
	}
}

// Decrypted reports whether a program has decrypted the files of a backup in place,
// and adds a finding. It is called after all differences. It returns true if the blobs
// that are not encrypted are at least half as many as the files whose length can show
// this (a length that is not a multiple of 16).
func (j *Judge) Decrypted() bool {
	if len(j.plain) == 0 {
		return false
	}
	tells := 0
	for i, rec := range j.Records.All() {
		if rec.EncryptionKey != nil && rec.Size > 0 && rec.Size%16 != 0 && j.Records.ListsFile(i) {
			tells++
		}
	}
	if 2*len(j.plain) < tells {
		for _, row := range j.plain {
			j.noCipher(row)
		}
		return false
	}
	j.Log.Note(finding.Decrypted, repo.Damage, "a program has decrypted the files in the backup folder: their contents are usable, but no device can be restored from it")
	return true
}

// Keybag adds findings about the keybag of an encrypted backup, and about the key of
// Manifest.db. It needs no password. classes are those of the keybag; nil if it cannot be
// read. sound reports whether the key of Manifest.db has the right length and, if the
// keybag can be read, a class that the keybag has.
func (j *Judge) Keybag() (classes map[uint32]bool, sound bool) {
	damage := func(format string, args ...any) {
		j.Log.Note(finding.NoKey, repo.Damage, fmt.Sprintf(format, args...))
	}
	bag, err := keybag.Parse(j.Backup.KeyBag())
	if err == nil {
		classes = map[uint32]bool{}
		for _, c := range bag.Classes {
			classes[c.Number] = true
		}
		err = bag.Check()
	}
	if err != nil {
		damage("no password can open the keybag in Manifest.plist: %v", err)
	}
	key := j.Backup.ManifestKey()
	switch {
	case len(key) == 0: // if this is a problem, mobilesync.Backup.Problems reports it
		return classes, false
	case len(key) != keybag.WrappedFileKeyLen:
		damage("the key of Manifest.db in Manifest.plist has %d bytes instead of %d", len(key), keybag.WrappedFileKeyLen)
		return classes, false
	}
	if class := binary.LittleEndian.Uint32(key); classes != nil && !classes[class] {
		damage("the keybag has no key of class %d, which the key of Manifest.db needs", class)
		return classes, false
	}
	return classes, true
}

// Keys adds a finding if many keys of files do not fit the keybag. unfit is the number of
// keys that do not fit, keyed the number of files with a key.
func (j *Judge) Keys(unfit, keyed int64) {
	if unfit > 1 && unfit*20 > keyed {
		j.Log.Note(finding.Keys, repo.Damage, fmt.Sprintf("the keybag does not fit the keys of %d of %d files: the backup has parts of two backups with different keys", unfit, keyed))
	}
}

// Devices leave out a handful of listed files: 14 of 506,993 were seen in a
// backup that was sound otherwise.
const (
	handful      = 20
	handfulShare = 50 // at most 1 in handfulShare listed files
)

// maxExtra bounds the names of blobs that no row lists.
const maxExtra = 1 << 16

// Missing judges the files that the manifest lists and that are not there, and those that
// are there and not listed. listed is the number of all files in the manifest. A few
// missing files are a remark if they are no databases, nothing else is in their place and
// no earlier snapshot has them. All others are damage, as are files that could not be read.
//
// A manifest that lists fewer files than it leaves out is not that of the backup.
func (j *Judge) Missing(ctx context.Context, listed int, earlier *Earlier) error {
	if found := listed - len(j.missing); j.extras > found {
		j.Log.Note(finding.Manifest, repo.Damage, fmt.Sprintf("the manifest does not fit the files: it lists %d of them and leaves out %d", found, j.extras))
	}
	if err := j.unlisted(ctx, earlier); err != nil {
		return err
	}
	j.missing = slices.DeleteFunc(j.missing, func(row int) bool {
		rec := j.Records.At(row)
		unreadable := j.Unreadable != nil && j.Unreadable(mobilesync.BlobPath(j.layout(), rec.FileID))
		if unreadable {
			j.Log.File(finding.Unreadable, j.RowName(row))
		}
		return unreadable
	})
	few := len(j.missing) <= max(1, min(handful, listed/handfulShare))
	for _, row := range j.missing {
		if err := ctx.Err(); err != nil {
			return err
		}
		rec := j.Records.At(row)
		replaced := j.Replaced != nil && j.Replaced(mobilesync.BlobPath(j.layout(), rec.FileID))
		damage := !few || replaced || holdsDatabase(rec.RelativePath)
		if !damage {
			var err error
			if damage, err = earlier.Had(ctx, &rec); err != nil {
				return err
			}
		}
		if damage {
			j.Log.File(finding.Missing, j.RowName(row))
		} else {
			j.Log.Remark(finding.Missing, j.RowName(row))
		}
	}
	return nil
}

// unlisted adds a finding about blobs that no row lists. An interrupted backup leaves some
// behind, and so does damage that removes a row. The finding takes the names of blobs
// from the last earlier snapshot of the device.
func (j *Judge) unlisted(ctx context.Context, earlier *Earlier) error {
	if len(j.extra) == 0 {
		return nil
	}
	known, err := earlier.names(ctx, j.extra)
	if err != nil {
		return err
	}
	names := make([]string, len(j.extra))
	for i, path := range j.extra {
		names[i] = cmp.Or(known[path], path)
	}
	slices.Sort(names)
	text := "a file is named like a backup file, but is not in the manifest (kept)"
	if j.extras > 1 {
		text = fmt.Sprintf("%d files are named like backup files, but are not in the manifest (kept)", j.extras)
	}
	if len(known) > 0 {
		text += fmt.Sprintf("; the previous snapshot has %d of them, so the device has deleted them, or the manifest has lost their rows", len(known))
	}
	j.Log.Add(repo.Finding{Kind: finding.Extra, Consequence: repo.Remark, Count: int64(j.extras), Names: names, Text: text + ": " + names[0]})
	return nil
}

// holdsDatabase reports whether a file is a database or a part of one, by its name.
func holdsDatabase(path string) bool {
	for _, part := range []string{"-wal", "-journal"} {
		path = strings.TrimSuffix(path, part)
	}
	return mobilesync.NamedLikeDatabase(path)
}

// Earlier looks for files in the earlier snapshots of a device.
type Earlier struct {
	Repo   *repo.Repo
	UDID   string
	Layout mobilesync.Layout
	// Before, if not nil, is a snapshot: only those that were stored before it count.
	Before *repo.Snapshot

	list []*repo.Snapshot // one for each tree
	read bool
}

// Had reports whether one of the snapshots has the file of a row.
func (e *Earlier) Had(ctx context.Context, rec *manifest.Record) (bool, error) {
	if err := e.find(ctx); err != nil {
		return false, err
	}
	path := mobilesync.BlobPath(e.Layout, rec.FileID)
	for _, s := range e.list {
		// A snapshot that was stored locked knows only paths.
		for _, key := range []tree.Key{{Domain: rec.Domain, Name: rec.RelativePath, Path: path}, {Path: path}} {
			if found, err := e.Repo.Find(ctx, s, key); err == nil && found != nil {
				return true, nil
			}
		}
	}
	return false, nil
}

// names returns the names that the last of the snapshots has for blobs, by their paths.
func (e *Earlier) names(ctx context.Context, paths []string) (map[string]string, error) {
	if err := e.find(ctx); err != nil || len(e.list) == 0 {
		return nil, err
	}
	last := slices.MaxFunc(e.list, func(a, b *repo.Snapshot) int { return a.StoredAt.Compare(b.StoredAt) })
	wanted, known := map[string]bool{}, map[string]string{}
	for _, path := range paths {
		wanted[path] = true
	}
	err := e.Repo.Walk(ctx, last, "", func(entry *tree.Entry) error {
		if entry.Domain != "" && wanted[entry.Path] {
			known[entry.Path] = Name(entry)
		}
		return nil
	})
	if errors.Is(err, repo.ErrDamaged) {
		return known, nil
	}
	return known, err
}

func (e *Earlier) find(ctx context.Context) error {
	if e.read {
		return nil
	}
	list, _, err := e.Repo.Snapshots(ctx)
	if err != nil {
		return err
	}
	seen := map[chunk.ID]bool{}
	for _, s := range list {
		if !repo.SameDevice(s.Device.UDID, e.UDID) || seen[s.Root] || !e.Repo.Index().Has(s.Root) {
			continue
		}
		if e.Before != nil && !s.StoredAt.Before(e.Before.StoredAt) {
			continue
		}
		seen[s.Root] = true
		e.list = append(e.list, s)
	}
	e.read = true
	return nil
}

// Anomalies adds a finding about rows that no device writes. It names them as far as they
// can be named.
func (j *Judge) Anomalies() {
	if j.Records.Odd == 0 {
		return
	}
	var names []string
	for _, row := range j.Records.OddRows {
		path := ""
		if row.HasFileID {
			path = mobilesync.BlobPath(j.layout(), row.FileID)
		}
		switch {
		case row.Domain == "" && row.RelativePath == "" && path == "":
			names = append(names, "a row without names")
		case path == "":
			names = append(names, row.Domain+"/"+row.RelativePath)
		case row.Domain == "" && row.RelativePath == "":
			names = append(names, path)
		default:
			names = append(names, fmt.Sprintf("%s/%s (%s)", row.Domain, row.RelativePath, path[strings.LastIndexByte(path, '/')+1:]))
		}
	}
	j.Log.Add(repo.Finding{
		Kind: finding.Anomaly, Consequence: repo.Remark, Count: int64(j.Records.Odd), Names: names,
		Text: fmt.Sprintf("unusual rows in the manifest: %d (%s), the first is %s", j.Records.Odd, j.Records.Anomalies, names[0]),
	})
}

// Digest compares the SHA-1 of a file's bytes in the backup folder with the digest in
// its row. It reports whether the digest proves that the device wrote these bytes.
func (j *Judge) Digest(name string, rec *manifest.Record, sum []byte) (proven bool) {
	if !rec.HasDigest {
		return false
	}
	proven = bytes.Equal(sum, rec.Digest[:])
	if !proven {
		j.Log.File(finding.Digest, name)
	}
	return proven
}
