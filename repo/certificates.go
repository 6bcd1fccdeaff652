package repo

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/snap-backup/snap/repo/internal/certificate"
)

// Certificate says what a snapshot was found to be worth as a device backup: by an
// import, a verify or a drill.
type Certificate = certificate.Certificate

// CertificateOrigin names the certificate in another repository from which a
// certificate was copied. For a copy of a copy, it names the original certificate.
type CertificateOrigin = certificate.Origin

// FileName names a file of a snapshot in a certificate.
type FileName = certificate.FileName

// Kinds of certificates, by what made them.
const (
	CertificateImport = certificate.Import
	CertificateVerify = certificate.Verify
	CertificateDrill  = certificate.Drill
)

// Levels of certificates.
const (
	LevelQuick  = certificate.Quick  // verify: listings, keys and metadata
	LevelFull   = certificate.Full   // verify: every byte
	LevelDevice = certificate.Device // drill: the restore to a device
	LevelFolder = certificate.Folder // drill: the backup folder
	// LevelUnchanged is the level of an import that found the backup as it was stored.
	LevelUnchanged = certificate.Unchanged
)

// Results of certificates.
const (
	ResultPassed = certificate.Passed
	ResultFailed = certificate.Failed
)

// WriteCertificate stores a certificate of a snapshot that is stored already. It sets
// the ID, the version and, if it is zero, the time. It leaves out names of findings if
// there are too many for a file; their counts stay. The caller sets Snapshot to the
// snapshot's FirstID.
//
// If this process may not write to the repository, the error is ErrReadOnly. Then
// callers can go on without a certificate.
func (r *Repo) WriteCertificate(ctx context.Context, c *Certificate) (FileID, error) {
	return certificate.Write(ctx, r.store, c)
}

// Certificates reads all certificates, oldest first. damaged has an error for each that
// cannot be used: because it is damaged, or because this program is too old for it.
func (r *Repo) Certificates(ctx context.Context) (list []*Certificate, damaged []error, err error) {
	return certificate.List(ctx, r.store)
}

// FindCertificate returns the certificate whose ID begins with prefix.
func (r *Repo) FindCertificate(ctx context.Context, prefix string) (*Certificate, error) {
	return certificate.Find(ctx, r.store, prefix)
}

// CertificatesOf returns the certificates of a snapshot, in the order of the list.
func CertificatesOf(list []*Certificate, s *Snapshot) []*Certificate { return certificate.Of(list, s) }

// Refuted returns the newest certificate of a verify or drill that a snapshot failed
// and has not passed since; nil if there is none. A pass counts only if it is of the same
// kind and was at least as thorough.
func Refuted(list []*Certificate, s *Snapshot) *Certificate { return certificate.Refuted(list, s) }

// LastPassed returns when a snapshot last passed a full verify and a drill; zero if it
// never did. Certificates of the time before the repository lost a part of the
// snapshot do not count.
func LastPassed(list []*Certificate, s *Snapshot) (verified, drilled time.Time) {
	return certificate.LastPassed(list, s)
}

// LastLook returns when an import last found the backup of a snapshot unchanged; zero if
// none did.
func LastLook(list []*Certificate, s *Snapshot) time.Time { return certificate.LastLook(list, s) }

// lookInterval is the least time between two certificates that say that a backup is
// unchanged. It is so long that an import each hour does not store one each hour, and so
// short that an import each day does.
const lookInterval = 12 * time.Hour

// looks are the certificates that were stored last, read once.
type looks struct {
	sync.Mutex
	read   bool
	recent []*Certificate
}

// NoteUnchanged stores a certificate of an import that found a backup unchanged, unless
// the snapshot is younger than half a day, or has such a certificate. If this process may
// not write to the repository, it does nothing.
func (r *Repo) NoteUnchanged(ctx context.Context, s *Snapshot, c *Certificate) error {
	now := r.store.Options.Now()
	recently := func(t time.Time) bool { return !t.After(now) && now.Sub(t) < lookInterval }
	if recently(s.StoredAt) {
		return nil
	}
	r.looks.Lock()
	defer r.looks.Unlock()
	if !r.looks.read {
		recent, err := certificate.Recent(ctx, r.store)
		if err != nil {
			return err
		}
		r.looks.recent, r.looks.read = recent, true
	}
	if recently(LastLook(r.looks.recent, s)) {
		return nil
	}
	c.Snapshot, c.Root, c.Kind, c.Level = s.FirstID(), s.Root, CertificateImport, LevelUnchanged
	switch _, err := r.WriteCertificate(ctx, c); {
	case errors.Is(err, ErrReadOnly):
		return nil
	case err != nil:
		return err
	}
	r.looks.recent = append(r.looks.recent, c)
	return nil
}
