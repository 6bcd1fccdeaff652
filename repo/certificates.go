package repo

import (
	"context"
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
