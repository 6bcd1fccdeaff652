// Package certificate reads and writes certificates: dated files that say what a
// snapshot was found to be worth as a device backup.
//
// A certificate is never changed or replaced. It is removed only after its snapshot, if it
// is damaged, or if it says no more than a newer one. No snapshot needs it. The package
// judges no backup.
package certificate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/internal/store"
	"golang.org/x/sync/errgroup"
)

const (
	magic = layout.CertificateMagic + "01"
	// Version is the version of the JSON form.
	Version = 1
	// MaxSize bounds the bytes of a file, and maxPlain those of its plain form.
	MaxSize  = 16 << 20
	maxPlain = 64 << 20
)

// Kinds of certificates, by what made them.
const (
	Import = "import"
	Verify = "verify"
	Drill  = "drill"
)

// Levels of certificates.
const (
	Quick  = "quick"  // verify: listings, keys and metadata
	Full   = "full"   // verify: every byte
	Device = "device" // drill: the restore to a device
	Folder = "folder" // drill: the backup folder
	// Unchanged is the level of an import that found the backup as it was stored.
	Unchanged = "unchanged"
)

// Results of certificates.
const (
	Passed = "passed"
	Failed = "failed"
)

// Certificate says what a snapshot was found to be worth as a device backup. Its
// counts are of files in the backup folder.
type Certificate struct {
	ID layout.FileID `json:"id,omitzero"` // not stored: it is the hash of the file

	Version  int           `json:"version"`
	Snapshot layout.FileID `json:"snapshot"` // as record.Snapshot.FirstID
	Root     chunk.ID      `json:"root"`     // of the snapshot at that time
	Time     time.Time     `json:"time"`
	Host     string        `json:"host,omitempty"`
	Program  string        `json:"program,omitempty"`
	Kind     string        `json:"kind"`
	Level    string        `json:"level,omitempty"` // none for an import that stored the snapshot
	Result   string        `json:"result"`

	Files       int64   `json:"files"` // of the snapshot
	Bytes       int64   `json:"bytes"`
	ReadFiles   int64   `json:"read_files"`
	ReadBytes   int64   `json:"read_bytes"`
	SharedFiles int64   `json:"shared_files"` // verified earlier, and not read again
	SharedBytes int64   `json:"shared_bytes"`
	DigestFiles int64   `json:"digest_files"` // compared with digests of the manifest
	DigestBytes int64   `json:"digest_bytes"`
	Databases   int64   `json:"databases"` // that were verified
	Seconds     float64 `json:"seconds"`

	// StoppedAt is the last file that a full verify read before it stopped at its
	// time limit; otherwise nil. Level is then Quick if Result is Passed.
	StoppedAt *FileName `json:"stopped_at,omitempty"`

	// Locked says that files could not be decrypted, since the backup password was not
	// known. Such a certificate proves little.
	Locked     bool             `json:"locked,omitempty"`
	NotChecked []string         `json:"not_checked,omitempty"` // for people
	Findings   []record.Finding `json:"findings,omitempty"`    // with all names, as far as they fit

	// CopiedFrom is set in a copy of another repository's certificate.
	CopiedFrom *Origin `json:"copied_from,omitempty"`

	stated  time.Time // the time that the certificate states, if Time was replaced by the time of its file
	undated bool      // Time is in the future, and nobody knows a better one
}

// OlderThan reports whether a certificate is older than a time. One that is dated in the
// future is older than any.
func (c *Certificate) OlderThan(t time.Time) bool { return c.undated || c.Time.Before(t) }

// FileName names a file of a snapshot.
type FileName struct {
	Domain string `json:"domain,omitempty"`
	Name   string `json:"name,omitempty"`
	Path   string `json:"path"`
}

// Origin names the certificate from which another was copied. For a copy of a copy,
// it names the original certificate.
type Origin struct {
	Repository  string        `json:"repository"` // its ID, as in its Config
	Certificate layout.FileID `json:"certificate"`
	Snapshot    layout.FileID `json:"snapshot"`
	Root        chunk.ID      `json:"root"`
}

// Write stores a certificate and sets its ID, its Version and, if it is zero, its
// Time. The snapshot must be durable. If this process may not write to the
// repository, the error is store.ErrReadOnly.
func Write(ctx context.Context, r *store.Store, c *Certificate) (layout.FileID, error) {
	c.Version = Version
	if c.Time.IsZero() {
		c.Time = r.Options.Now().UTC()
	}
	if c.Snapshot == (layout.FileID{}) || c.Kind == "" || c.Result == "" {
		return c.ID, errors.New("store a certificate: it names no snapshot, kind or result")
	}
	b, err := seal(c, r.CertificateSealer, MaxSize, maxPlain)
	if err != nil {
		return c.ID, fmt.Errorf("store a certificate: %w", err)
	}
	id, err := r.PutNamed(ctx, layout.CertificatesDir, b)
	if backend.IsReadOnly(err) {
		err = fmt.Errorf("%w: %w", store.ErrReadOnly, err)
	}
	if err != nil {
		return c.ID, fmt.Errorf("store a certificate: %w", err)
	}
	c.ID = id
	return id, nil
}

// seal returns the bytes of a certificate file. If they would be too many, it leaves
// out names.
func seal(c *Certificate, sealer *crypto.Sealer, maxSize, maxPlain int) ([]byte, error) {
	plain := *c
	plain.ID = layout.FileID{} // it is the hash of these bytes
	if !c.stated.IsZero() {
		plain.Time = c.stated
	}
	names := 0
	for _, f := range c.Findings {
		names = max(names, len(f.Names))
	}
	for ; ; names /= 2 {
		plain.Findings = record.Clip(c.Findings, names)
		b, err := json.Marshal(&plain)
		if err != nil {
			return nil, err
		}
		fits := len(b) <= maxPlain
		if fits {
			if b, err = pack.Compress(append([]byte{pack.PlainVersion}, b...)); err != nil {
				return nil, err
			}
			if b, err = sealer.Seal([]byte(magic), b, nil); err != nil {
				return nil, err
			}
			fits = len(b) <= maxSize
		}
		switch {
		case fits:
			return b, nil
		case names == 0:
			return nil, fmt.Errorf("%d bytes are too many", len(b))
		}
	}
}

// open is the inverse of seal.
func open(b []byte, sealer *crypto.Sealer) (*Certificate, error) {
	sealed, ok := store.CutMagic(b, magic)
	if !ok {
		return nil, errors.New("bad magic")
	}
	form, err := sealer.Open(nil, sealed, nil)
	if err != nil {
		return nil, err
	}
	return parse(form)
}

func parse(form []byte) (*Certificate, error) {
	b, err := pack.Expand(form, maxPlain)
	if err != nil {
		return nil, err
	}
	if len(b) == 0 || b[0] != pack.PlainVersion {
		return nil, errors.New("unknown form")
	}
	var c Certificate
	if err := json.Unmarshal(b[1:], &c); err != nil {
		return nil, err
	}
	if c.Version != Version {
		return nil, fmt.Errorf("certificate version %d: %w", c.Version, store.ErrUnsupported)
	}
	return &c, nil
}

// Load reads one certificate, given the name of its file. The error is
// store.ErrUnsupported, not store.ErrDamaged, if this program is too old for it.
func Load(ctx context.Context, r *store.Store, name string) (*Certificate, error) {
	b, err := r.ReadNamed(ctx, name, MaxSize)
	if err != nil {
		return nil, err
	}
	c, err := open(b, r.CertificateSealer)
	if errors.Is(err, store.ErrUnsupported) {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err != nil {
		return nil, &store.DamageError{File: name, Err: err}
	}
	if c.ID, err = layout.ParseFileID(name); err != nil {
		return c, err
	}
	return c, dateByFile(ctx, r, name, c)
}

// Find returns the certificate whose ID begins with prefix.
func Find(ctx context.Context, r *store.Store, prefix string) (*Certificate, error) {
	id, err := r.Resolve(ctx, layout.CertificatesDir, prefix)
	if err != nil {
		return nil, fmt.Errorf("certificate %q: %w", prefix, err)
	}
	return Load(ctx, r, layout.CertificatesDir+id.String())
}

// List reads all certificates, oldest first. One that is dated in the future gets the
// date of its file. If that is in the future, too, it is listed first: it counts as older
// than all others. damaged has an error for each that cannot be used. If several
// processes have copied a certificate at the same time, List returns one of the equal
// copies. If the folder cannot be listed, damaged has an error for it: no snapshot needs it.
func List(ctx context.Context, r *store.Store) (list []*Certificate, damaged []error, err error) {
	list, damaged, err = readAll(ctx, r)
	list, _ = unique(list)
	return list, damaged, err
}

// unique divides a sorted list. Of several copies of the same original about the same
// snapshot, the first is in first and the others are in again. All other certificates are
// in first.
func unique(list []*Certificate) (first, again []*Certificate) {
	type copied struct {
		from     Origin
		snapshot layout.FileID
	}
	seen := map[copied]bool{}
	for _, c := range list {
		if c.CopiedFrom != nil {
			key := copied{*c.CopiedFrom, c.Snapshot}
			if seen[key] {
				again = append(again, c)
				continue
			}
			seen[key] = true
		}
		first = append(first, c)
	}
	return first, again
}

// readAll is like List, but returns all equal copies.
func readAll(ctx context.Context, r *store.Store) (list []*Certificate, damaged []error, err error) {
	names, err := r.NamesIn(ctx, layout.CertificatesDir)
	if err != nil {
		if err = store.Judge(ctx, r.Backend, layout.CertificatesDir, err); errors.Is(err, store.ErrDamaged) {
			return nil, []error{err}, nil
		}
		return nil, nil, err
	}
	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for _, name := range names {
		g.Go(func() error {
			c, err := Load(gctx, r, name)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case errors.Is(err, backend.ErrNotExist): // removed since it was listed
			case errors.Is(err, store.ErrDamaged), errors.Is(err, store.ErrUnsupported):
				damaged = append(damaged, err)
			case err != nil:
				return err
			default:
				list = append(list, c)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, nil, fmt.Errorf("read certificates: %w", err)
	}
	slices.SortFunc(list, func(a, b *Certificate) int {
		if a.undated != b.undated {
			if a.undated {
				return -1
			}
			return 1
		}
		if c := a.Time.Compare(b.Time); c != 0 {
			return c
		}
		return slices.Compare(a.ID[:], b.ID[:])
	})
	slices.SortFunc(damaged, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return list, damaged, nil
}

// dateByFile sets the time of a certificate to that of its file, if the certificate is
// dated in the future and its file is not.
func dateByFile(ctx context.Context, r *store.Store, name string, c *Certificate) error {
	now := r.Options.Now()
	if !record.Ahead(c.Time, now) {
		return nil
	}
	f, err := r.Backend.Stat(ctx, name)
	if c.undated = f.Modified.IsZero() || record.Ahead(f.Modified, now); !c.undated {
		c.Time, c.stated = f.Modified.UTC(), c.Time
	}
	return err
}

// Of returns the certificates of a snapshot, in the order of the list.
func Of(list []*Certificate, s *record.Snapshot) []*Certificate {
	var out []*Certificate
	for _, c := range list {
		if s.Has(c.Snapshot) {
			out = append(out, c)
		}
	}
	return out
}

// Refuted returns the newest certificate of a verify or drill that the snapshot failed
// and has not passed since; nil if there is none. A drill looks at what a verify does
// not, and the other way round. So a pass counts only against an earlier failure of the
// same kind, and only if it was at least as thorough. Certificates of the time before the
// repository lost a part of the snapshot do not count.
func Refuted(list []*Certificate, s *record.Snapshot) *Certificate {
	failed := map[string]*Certificate{} // by kind
	for _, c := range Of(list, s) {
		before := failed[c.Kind]
		switch {
		case c.Kind == Import || c.Root != s.Root:
		case c.Result == Failed:
			if before == nil || deep(c) || !deep(before) {
				failed[c.Kind] = c
			}
		case c.Locked: // the files could not be judged
		case before != nil && (deep(c) || !deep(before)):
			delete(failed, c.Kind)
		}
	}
	v, d := failed[Verify], failed[Drill]
	if v == nil || d != nil && !d.undated && v.OlderThan(d.Time) {
		return d
	}
	return v
}

// deep reports whether a certificate has the more thorough of the two levels of its kind.
func deep(c *Certificate) bool { return c.Level == Full || c.Level == Device }

// LastPassed returns when a snapshot last passed a full verify and a drill; zero if it
// never did, if it has failed one since, or if it is not complete. Certificates do not
// count if they are locked, or of the time before the repository lost a part of the
// snapshot.
func LastPassed(list []*Certificate, s *record.Snapshot) (verified, drilled time.Time) {
	if !s.Complete || Refuted(list, s) != nil {
		return verified, drilled
	}
	for _, c := range Of(list, s) {
		if c.Result != Passed || c.Root != s.Root || c.Locked {
			continue
		}
		switch {
		case c.Kind == Drill && c.Time.After(drilled):
			drilled = c.Time
		case c.Kind == Verify && c.Level == Full && c.Time.After(verified):
			verified = c.Time
		}
	}
	return verified, drilled
}
