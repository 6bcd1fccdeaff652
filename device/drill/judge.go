package drill

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"io"

	"github.com/snap-backup/snap/device/finding"
	rules "github.com/snap-backup/snap/device/judge"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/database"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/protocol/plist"
	"github.com/snap-backup/snap/repo"
)

// judge judges the files of a backup as they arrive. One goroutine at a time calls its
// methods.
type judge struct {
	ctx    context.Context
	opts   *Options
	layout mobilesync.Layout
	log    finding.Log

	encrypted bool
	keys      *keybag.Keys // nil if the backup is not encrypted, or stays locked
	records   *manifest.Records
	buf       *bufio.Reader

	files, bytes, digestFiles, digestBytes int64
	databases                              int64 // that were verified
	unjudged                               int64 // databases that could not be verified, or only in part
	large                                  int64 // property lists that were too large to check
	scratch                                int64 // most bytes on disk at one time
	missing                                []int // rows
}

// name names the file of a record in findings.
func (j *judge) name(rec *manifest.Record) string {
	return finding.Name(rec.Domain, rec.RelativePath, mobilesync.BlobPath(j.layout, rec.FileID))
}

// source is the bytes of a file in the backup folder.
type source struct {
	r   io.Reader
	n   int64
	err error // the first error of r
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) && s.err == nil {
		s.err = err
	}
	return n, err
}

// readError says that a file could not be read to its end.
type readError struct{ error }

func (e readError) Unwrap() error { return e.error }

func isReadError(err error) bool {
	var e readError
	return errors.As(err, &e)
}

// file judges a file and returns the kind of damage; "" if there is none. The error is a
// readError, or one of the drill itself.
func (j *judge) file(rec *manifest.Record, stored io.Reader) (damage string, err error) {
	src := &source{r: stored}
	sum := sha1.New()
	if j.buf == nil {
		j.buf = bufio.NewReaderSize(nil, 128<<10)
	}
	j.buf.Reset(io.TeeReader(src, sum))
	found, err := j.content(rec, j.buf)
	if err == nil && src.err == nil {
		_, err = io.Copy(io.Discard, j.buf) // for the digest
	}
	if j.ctx.Err() != nil {
		return "", j.ctx.Err()
	}
	if src.err != nil {
		return "", readError{src.err}
	}
	if err != nil {
		return "", err
	}
	j.files, j.bytes = j.files+1, j.bytes+src.n
	differs := false
	if rec.HasDigest {
		j.digestFiles, j.digestBytes = j.digestFiles+1, j.digestBytes+src.n
		differs = !bytes.Equal(sum.Sum(nil), rec.Digest[:])
	}
	if damage = j.judge(rec, found, differs); damage != "" {
		j.log.File(damage, j.name(rec))
	}
	return damage, nil
}

// judge returns the kind of damage of a file; "" if there is none.
func (j *judge) judge(rec *manifest.Record, found content, differs bool) string {
	switch {
	case found.kind == finding.NoKey:
		return found.kind
	case found.kind == finding.Cipher && (differs || !rec.HasDigest):
		return found.kind
	}
	switch {
	case differs:
		return finding.Digest
	case found.kind != "" && rec.HasDigest, found.remark && found.kind != "":
		j.log.Remark(found.kind, j.name(rec)) // the device wrote these bytes, or only a rule of an app is broken
	case found.kind != "":
		return found.kind
	}
	if found.size >= 0 {
		return j.size(rec, found.size)
	}
	return ""
}

// content is what was found in the content of a file.
type content struct {
	size   int64  // -1 if it cannot be known, or if it may differ from that in the manifest
	kind   string // of finding; "" if there is none
	remark bool   // the finding has no consequence
}

// content reads the content of a file to its end. It verifies databases and property
// lists.
func (j *judge) content(rec *manifest.Record, stored *bufio.Reader) (content, error) {
	if !j.encrypted || rec.EncryptionKey == nil {
		return j.plain(rec, stored)
	}
	if j.keys == nil {
		return content{size: -1}, nil
	}
	key, err := j.keys.Unwrap(rec.EncryptionKey)
	if err != nil {
		return content{size: -1, kind: finding.NoKey}, nil
	}
	// Some versions of iOS store an empty file without padding.
	if _, err := stored.Peek(1); errors.Is(err, io.EOF) {
		return content{}, nil
	}
	found, err := j.plain(rec, keybag.NewDecrypter(stored, key))
	if errors.Is(err, keybag.ErrPadding) {
		return content{size: -1, kind: finding.Cipher}, nil
	}
	return found, err
}

// plain reads a content that is not encrypted.
func (j *judge) plain(rec *manifest.Record, r io.Reader) (found content, err error) {
	var ends rules.Ends
	if _, err := io.CopyN(&ends, r, rules.HeadLen); err != nil && !errors.Is(err, io.EOF) {
		return found, err
	}
	switch ends.MayBe() {
	case rules.Database:
		return j.database(ends.Head(), r)
	case rules.PropertyList:
		err = j.propertyList(&ends, r, &found)
	default:
		_, err = io.Copy(&ends, r)
	}
	if err != nil {
		return found, err
	}
	found.size = ends.Size
	switch form := ends.Form(rec.RelativePath); form {
	case rules.BrokenDatabase:
		found.kind, found.remark = finding.Database, false
	case rules.BrokenPropertyList:
		found.kind, found.remark = finding.Plist, false
	case rules.Misnamed:
		found.kind, found.remark = finding.Plist, true
	case rules.PropertyList:
		if ends.Size > rules.MaxPropertyList {
			j.large++
		}
	default:
		found.kind = ""
	}
	return found, nil
}

// propertyList reads a file that may be a property list, and checks it. ends has its first
// bytes.
func (j *judge) propertyList(ends *rules.Ends, r io.Reader, found *content) error {
	held := bytes.NewBuffer(bytes.Clone(ends.Head()))
	_, err := io.CopyN(io.MultiWriter(ends, held), r, rules.MaxPropertyList+1-int64(held.Len()))
	switch {
	case errors.Is(err, io.EOF):
		if err := plist.Check(held.Bytes()); err != nil {
			found.kind, found.remark = finding.Plist, errors.Is(err, plist.ErrForm)
		}
		return nil
	case err != nil:
		return err
	}
	_, err = io.Copy(ends, r)
	return err
}

// database verifies an SQLite database that begins with head.
func (j *judge) database(head []byte, rest io.Reader) (found content, err error) {
	file := j.opts.newScratch()
	defer func() {
		j.scratch = max(j.scratch, file.OnDisk())
		err = errors.Join(err, file.Close())
	}()
	if _, err := file.Write(head); err != nil {
		return found, err
	}
	n, err := io.Copy(file, rest)
	if err != nil {
		return found, err
	}
	v, err := database.Check(j.ctx, file, n+int64(len(head)))
	switch {
	case err != nil:
	case v.Damage != "":
		found.kind = finding.Database
	case v.Complaint != "":
		found.kind, found.remark = finding.Database, true
	case v.Unjudged != "":
		j.unjudged++
	default:
		j.databases++
	}
	found.size = -1 // devices compact databases, so the size may differ
	return found, err
}

// manifest judges Manifest.db.
func (j *judge) manifest(db io.ReaderAt, size int64) (damaged bool, err error) {
	v, err := database.Check(j.ctx, db, size)
	if err != nil {
		return false, err
	}
	(&rules.Judge{Log: &j.log}).Verdict(v, mobilesync.ManifestDB, nil, false)
	return v.Damage != "", nil
}

// fileID parses the name of a blob.
func fileID(name string) (id [sha1.Size]byte, err error) {
	if len(name) != hex.EncodedLen(len(id)) {
		return id, hex.ErrLength
	}
	_, err = hex.Decode(id[:], []byte(name))
	return id, err
}

// size compares the length of a content with its record.
func (j *judge) size(rec *manifest.Record, n int64) string {
	switch {
	case !rec.HasMeta, n == rec.Size, n == 0 && rec.Dataless():
		return ""
	case n == 0:
		return finding.Emptied
	case rec.HasDigest: // the digest matched, so the device wrote these bytes
		j.log.Remark(finding.Size, j.name(rec))
		return ""
	}
	return finding.Size
}

// noteAnomalies adds a finding about rows that no device writes.
func (j *judge) noteAnomalies() {
	(&rules.Judge{Log: &j.log, Records: j.records}).Anomalies()
}

// judgeMissing judges the files that are listed and missing, with the rules of imports.
// It reports whether any of them is damage.
func (j *judge) judgeMissing() (damaged bool, err error) {
	listed := 0
	for i := range j.records.Len() {
		if j.records.ListsFile(i) {
			listed++
		}
	}
	var log finding.Log
	m := rules.Judge{Log: &log, Records: j.records}
	for _, row := range j.missing {
		m.Difference(mobilesync.DiffMissing, row, "")
	}
	s := j.opts.Snapshot
	earlier := &rules.Earlier{Repo: j.opts.Repo, UDID: s.Device.UDID, Layout: j.layout, Before: s}
	err = m.Missing(j.ctx, listed, earlier)
	for _, f := range log.Findings() {
		j.log.Add(f)
		damaged = damaged || f.Consequence != repo.Remark
	}
	return damaged, err
}
