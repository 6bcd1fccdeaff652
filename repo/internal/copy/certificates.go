package copy

import (
	"context"
	"fmt"

	"github.com/snap-backup/snap/repo/internal/certificate"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/internal/store"
)

// made identifies a certificate by the repository that it was made in and its ID
// there, together with the target's snapshot that it, or its copy, is about.
type made struct {
	repository            string
	certificate, snapshot layout.FileID
}

// madeAt identifies a certificate across all of its copies.
func madeAt(r *store.Store, c *certificate.Certificate, snapshot layout.FileID) made {
	if c.CopiedFrom != nil {
		return made{c.CopiedFrom.Repository, c.CopiedFrom.Certificate, snapshot}
	}
	return made{r.Config.ID, c.ID, snapshot}
}

// readCertificates reads the certificates of both repositories. It skips damaged
// ones, and reports those of the source.
func (c *copying) readCertificates(ctx context.Context) (err error) {
	var damaged []error
	if c.certified, damaged, err = certificate.List(ctx, c.from); err != nil {
		return err
	}
	for _, err := range damaged {
		c.report.Unread = append(c.report.Unread, err.Error())
	}
	present, _, err := certificate.List(ctx, c.to)
	if err != nil {
		return fmt.Errorf("target: %w", err)
	}
	c.hasCertificate = map[made]bool{}
	for _, o := range present {
		c.hasCertificate[madeAt(c.to, o, o.Snapshot)] = true
	}
	return nil
}

// copyCertificates copies the certificates of a snapshot to its copy, unless the target has
// them. Each copy names the target's snapshot and says where the original was made.
func (c *copying) copyCertificates(ctx context.Context, s, copied *record.Snapshot) error {
	for _, o := range certificate.Of(c.certified, s) {
		from := madeAt(c.from, o, copied.FirstID())
		if c.opts.DryRun || c.hasCertificate[from] {
			continue
		}
		n := *o
		if n.CopiedFrom == nil {
			n.CopiedFrom = &certificate.Origin{Repository: c.from.Config.ID, Certificate: o.ID, Snapshot: o.Snapshot, Root: o.Root}
		}
		n.Snapshot = copied.FirstID()
		// The certificate counts only for a copy of the content that it is about.
		if o.Root == s.Root && copied.Lost == nil {
			n.Root = copied.Root
		}
		if _, err := certificate.Write(ctx, c.to, &n); err != nil {
			return fmt.Errorf("target: %w", err)
		}
		c.hasCertificate[from] = true
		c.report.Certificates++
	}
	return nil
}
