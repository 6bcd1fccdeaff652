package repotest

import (
	"context"
	"fmt"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
)

// Certify stores a certificate: the snapshot passed a full verify.
func Certify(ctx context.Context, r *repo.Repo, s *repo.Snapshot) (*repo.Certificate, error) {
	c := &repo.Certificate{
		Snapshot: s.FirstID(), Root: s.Root, Host: "host", Program: "snap test",
		Kind: repo.CertificateVerify, Level: repo.LevelFull, Result: repo.ResultPassed,
		Files: s.Files, Bytes: s.Bytes, ReadFiles: s.Files, ReadBytes: s.Bytes,
	}
	_, err := r.WriteCertificate(ctx, c)
	return c, err
}

// CertifyAll opens the repository, as a new process would, and stores a certificate
// of each snapshot.
func CertifyAll(ctx context.Context, be backend.Backend, secret []byte, seed byte) error {
	r, err := repo.Open(ctx, be, secret, SmallPacks(seed))
	if err != nil {
		return err
	}
	list, _, err := r.Snapshots(ctx)
	for _, s := range list {
		if err == nil {
			_, err = Certify(ctx, r, s)
		}
	}
	return err
}

// Certified returns how many certificates each snapshot has, by its day, and how many
// certificates are of no snapshot.
func Certified(ctx context.Context, be backend.Backend, secret []byte) (days map[int]int, orphans int, err error) {
	r, err := repo.Open(ctx, be, secret, SmallPacks(4))
	if err != nil {
		return nil, 0, err
	}
	list, _, err := r.Snapshots(ctx)
	if err != nil {
		return nil, 0, err
	}
	certificates, _, err := r.Certificates(ctx)
	if err != nil {
		return nil, 0, err
	}
	days, orphans = map[int]int{}, len(certificates)
	for _, s := range list {
		n := len(repo.CertificatesOf(certificates, s))
		days[s.Time.Day()] += n
		orphans -= n
	}
	return days, orphans, nil
}

// certified returns an error if a snapshot of days 1 to 3 exists without its
// certificate.
func certified(be backend.Backend) error {
	days, _, err := Certified(context.Background(), be, Secret)
	if err != nil {
		return err
	}
	for day, n := range days {
		if n == 0 && day <= 3 {
			return fmt.Errorf("day %d has no certificate", day)
		}
	}
	return nil
}

// noOrphans returns an error if there are certificates of no snapshot.
func noOrphans(be backend.Backend) error {
	_, orphans, err := Certified(context.Background(), be, Secret)
	if err == nil && orphans > 0 {
		err = fmt.Errorf("%d certificates are of no snapshot", orphans)
	}
	return err
}

// verifyCopied returns an error unless every snapshot has one certificate, which names
// the snapshot's root. The certificate of a copied snapshot must also name the root of
// the snapshot that it was copied from.
func verifyCopied(be backend.Backend) error {
	ctx := context.Background()
	r, err := Open(ctx, be, Secret, SmallPacks(4))
	if err != nil {
		return err
	}
	list, _, err := r.Snapshots(ctx)
	if err != nil {
		return err
	}
	certificates, _, err := r.Certificates(ctx)
	if err != nil {
		return err
	}
	for _, s := range list {
		own := repo.CertificatesOf(certificates, s)
		if len(own) != 1 {
			return fmt.Errorf("snapshot %s has %d certificates", s.ID.Short(), len(own))
		}
		for _, c := range own {
			if c.Root != s.Root || (c.CopiedFrom == nil) != (s.CopiedFrom == nil) || c.CopiedFrom != nil && c.CopiedFrom.Root != s.CopiedFrom.Root {
				return fmt.Errorf("snapshot %s has the certificate %+v", s.ID.Short(), c)
			}
		}
	}
	return nil
}
