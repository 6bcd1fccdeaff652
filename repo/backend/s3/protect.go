package s3

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/wire"
)

// protectionName is the object that says how long files are protected. Names in tmp are
// reserved for implementations, so it is no file of the repository, and no copy of the
// repository has it.
const protectionName = "tmp/object-lock"

const maxProtectionSize = 4 << 10

// maxVersions bounds the memory that a listing of versions takes. A repository of a terabyte
// has a hundred thousand files.
const maxVersions = 2_000_000

// ErrNoObjectLock says that the bucket cannot protect objects.
var ErrNoObjectLock = errors.New("the bucket has no Object Lock, or no versioning")

var _ backend.Protector = (*Backend)(nil)

// protectionFile is the content of the object [protectionName].
type protectionFile struct {
	Note    string `json:"note"`
	Seconds int64  `json:"seconds"`
	Mode    string `json:"mode"`
}

const protectionNote = "snap protects each file that it puts for this time; see snap help protect"

// The limits of a period. Whoever may put files can put a note with another one, so a note
// with a period that nobody sets is not obeyed. Stores refuse more than a hundred years.
const (
	minProtection = time.Hour
	maxProtection = 100 * 365 * 24 * time.Hour
)

func encodeProtection(p backend.Protection) []byte {
	data, err := json.Marshal(protectionFile{protectionNote, int64(p.Period / time.Second), strings.ToLower(string(mode(p.Compliance)))})
	if err != nil {
		panic("s3: " + err.Error()) // texts and numbers can always be encoded
	}
	return append(data, '\n')
}

func parseProtection(data []byte) (backend.Protection, error) {
	var f protectionFile
	if err := json.Unmarshal(data, &f); err != nil {
		return backend.Protection{}, err
	}
	if f.Seconds < int64(minProtection/time.Second) || f.Seconds > int64(maxProtection/time.Second) {
		return backend.Protection{}, fmt.Errorf("%d seconds are no time for a protection", f.Seconds)
	}
	p := backend.Protection{Period: time.Duration(f.Seconds) * time.Second}
	switch f.Mode {
	case "governance":
	case "compliance":
		p.Compliance = true
	default:
		return backend.Protection{}, fmt.Errorf("unknown mode %.40q", f.Mode)
	}
	return p, nil
}

func mode(compliance bool) minio.RetentionMode {
	if compliance {
		return minio.Compliance
	}
	return minio.Governance
}

// Protection implements [backend.Protector]. It asks the store once.
func (b *Backend) Protection(ctx context.Context) (backend.Protection, error) {
	select {
	case b.learning <- struct{}{}:
		defer func() { <-b.learning }()
	case <-ctx.Done():
		return backend.Protection{}, ctx.Err()
	}
	if p := b.protection.Load(); p != nil {
		return *p, nil
	}
	p, err := b.readProtection(ctx)
	if err != nil {
		return backend.Protection{}, b.opError("read", protectionName, fmt.Errorf("find out how long files are to be protected: %w", err))
	}
	b.protection.Store(&p)
	return p, nil
}

func (b *Backend) readProtection(ctx context.Context) (backend.Protection, error) {
	data, err := b.readObject(ctx, protectionName, "", maxProtectionSize)
	if errors.Is(err, backend.ErrNotExist) {
		return backend.Protection{}, nil
	}
	if err != nil {
		return backend.Protection{}, err
	}
	p, err := parseProtection(data)
	if err != nil {
		return p, fmt.Errorf("the object is damaged: %w (write it again with \"snap protect --lock 30d\")", err)
	}
	return p, nil
}

// SetProtection implements [backend.Protector]. The error is ErrNoObjectLock if the bucket
// cannot protect objects.
func (b *Backend) SetProtection(ctx context.Context, p backend.Protection) error {
	if p.Period < minProtection || p.Period > maxProtection {
		return b.opError("protect", "", fmt.Errorf("%v is no time for a protection", p.Period))
	}
	f, err := b.Probe(ctx)
	if err != nil {
		return err
	}
	if f.Versioning == Off || f.ObjectLock == Off {
		return b.opError("protect", "", fmt.Errorf("%w (most stores let you choose Object Lock only when you make a bucket)", ErrNoObjectLock))
	}
	p.Period = p.Period.Truncate(time.Second)
	if err := b.putAs(ctx, protectionName, encodeProtection(p), false, p); err != nil {
		return b.opError("put", protectionName, err)
	}
	b.protection.Store(&p)
	return nil
}

// protectionOf returns the protection that a file gets when it is put.
func (b *Backend) protectionOf(ctx context.Context, name string) (backend.Protection, error) {
	if name == learnName || b.opts.Protects != nil && !b.opts.Protects(name) {
		return backend.Protection{}, nil
	}
	return b.Protection(ctx)
}

// Versions implements [backend.Protector]. A request shows up to 1000 versions. Some stores
// list the notes that hide objects after all versions of a page, so all are sorted here.
func (b *Backend) Versions(ctx context.Context, fn func(backend.Version) error) error {
	all, err := b.versions(ctx)
	if err != nil {
		return b.opError("list versions of", "", err)
	}
	slices.SortStableFunc(all, func(x, y backend.Version) int { return strings.Compare(x.Name, y.Name) })
	for _, v := range all {
		if err := fn(v); err != nil {
			return err
		}
	}
	return nil
}

func (b *Backend) versions(ctx context.Context) (all []backend.Version, err error) {
	err = b.call(ctx, func(ctx context.Context) error {
		opts, count := b.listing("", 0), 0
		opts.WithVersions = true
		for object := range b.client.ListObjectsIter(ctx, b.cfg.Bucket, opts) {
			if object.Err != nil {
				return object.Err
			}
			name, ok := strings.CutPrefix(object.Key, b.prefix)
			if !ok {
				return fmt.Errorf("the store lists %.200q, which was not asked for", object.Key)
			}
			if count++; count > maxVersions {
				return fmt.Errorf("there are more than %d versions (remove some with a program of the store)", maxVersions)
			}
			if backend.ValidName(name) != nil {
				continue
			}
			all = append(all, backend.Version{
				Name: name, ID: object.VersionID, Size: object.Size, Tag: object.ETag,
				Modified: madeAt(object.VersionID, object.LastModified, time.Now()),
				Latest:   object.IsLatest, Hides: object.IsDeleteMarker,
			})
		}
		return ctx.Err()
	})
	return all, err
}

// ProtectedUntil implements [backend.Protector]. It does not use the request for the
// retention alone, whose answer differs between stores.
func (b *Backend) ProtectedUntil(ctx context.Context, v backend.Version) (time.Time, error) {
	object, err := b.statVersion(ctx, v)
	var until time.Time
	if text := object.Metadata.Get("X-Amz-Object-Lock-Retain-Until-Date"); err == nil && text != "" {
		until, err = time.Parse(time.RFC3339, text)
	}
	if err != nil {
		return time.Time{}, b.opError("ask for the protection of", v.Name, err)
	}
	return until, nil
}

// Protect implements [backend.Protector]. A version that is protected in the mode compliance
// keeps this mode: stores refuse to weaken it, and somebody may have chosen it to stop us.
func (b *Backend) Protect(ctx context.Context, v backend.Version, until time.Time, compliance bool) error {
	err := b.retain(ctx, v, until, mode(compliance))
	if err != nil && !compliance && !backend.Temporary(err) {
		object, serr := b.statVersion(ctx, v)
		if serr == nil && object.Metadata.Get("X-Amz-Object-Lock-Mode") == minio.Compliance.String() {
			err = b.retain(ctx, v, until, minio.Compliance)
		}
	}
	if err != nil {
		return b.opError("protect", v.Name, err)
	}
	return nil
}

func (b *Backend) retain(ctx context.Context, v backend.Version, until time.Time, m minio.RetentionMode) error {
	until = until.UTC().Truncate(time.Second)
	return b.call(ctx, func(ctx context.Context) error {
		return b.client.PutObjectRetention(ctx, b.cfg.Bucket, b.key(v.Name),
			minio.PutObjectRetentionOptions{Mode: &m, RetainUntilDate: &until, VersionID: v.ID})
	})
}

func (b *Backend) statVersion(ctx context.Context, v backend.Version) (object minio.ObjectInfo, err error) {
	err = b.call(ctx, func(ctx context.Context) (err error) {
		object, err = b.client.StatObject(ctx, b.cfg.Bucket, b.key(v.Name), minio.StatObjectOptions{VersionID: v.ID})
		return err
	})
	return object, err
}

// ReadVersion implements [backend.Protector].
func (b *Backend) ReadVersion(ctx context.Context, v backend.Version) ([]byte, error) {
	data, err := b.readObject(ctx, v.Name, v.ID, v.Size)
	if err != nil {
		return nil, b.opError("read an old version of", v.Name, err)
	}
	return data, nil
}

// readObject returns the bytes of an object, or of one of its versions.
func (b *Backend) readObject(ctx context.Context, name, version string, limit int64) ([]byte, error) {
	var data []byte
	err := b.call(ctx, func(ctx context.Context) error {
		body, object, _, err := minio.Core{Client: b.client}.GetObject(ctx, b.cfg.Bucket, b.key(name), minio.GetObjectOptions{VersionID: version})
		if err != nil {
			return err
		}
		defer body.Close()
		switch {
		case object.Size < 0:
			return wire.ErrNoSize
		case object.Size > limit:
			return fmt.Errorf("%d bytes, at most %d expected: %w", object.Size, limit, backend.ErrTooLarge)
		}
		whole := make([]byte, object.Size)
		if _, err := io.ReadFull(body, whole); err != nil {
			return wire.Midway(err)
		}
		data = whole
		return nil
	})
	return data, err
}

// BringBack implements [backend.Protector]. If the access key may not remove the notes that
// hide the file, or if a newer version has bytes, the store copies the version.
func (b *Backend) BringBack(ctx context.Context, v backend.Version, newer []backend.Version) error {
	for _, n := range newer {
		if !n.Hides {
			break // its bytes are not removed
		}
		err := b.call(ctx, func(ctx context.Context) error {
			return b.client.RemoveObject(ctx, b.cfg.Bucket, b.key(n.Name), minio.RemoveObjectOptions{VersionID: n.ID})
		})
		if err != nil && !backend.IsDenied(err) {
			return b.opError("bring back", v.Name, err)
		}
		if err != nil {
			break
		}
	}
	shown, err := b.statObject(ctx, v.Name)
	if errors.Is(err, backend.ErrNotExist) || err == nil && (shown.Size != v.Size || shown.ETag != v.Tag) {
		if err = b.copyVersion(ctx, v); err == nil {
			shown, err = b.statObject(ctx, v.Name)
		}
	}
	if err == nil && shown.Size != v.Size {
		err = fmt.Errorf("the store shows %d bytes instead of %d", shown.Size, v.Size)
	}
	if err != nil {
		return b.opError("bring back", v.Name, err)
	}
	return nil
}

// copyVersion makes an old version the newest one again.
func (b *Backend) copyVersion(ctx context.Context, v backend.Version) error {
	p, err := b.protectionOf(ctx, v.Name)
	if err != nil {
		return err
	}
	dst := minio.CopyDestOptions{Bucket: b.cfg.Bucket, Object: b.key(v.Name)}
	if p.Period > 0 {
		dst.Mode, dst.RetainUntilDate = mode(p.Compliance), time.Now().Add(p.Period).UTC()
	}
	return b.call(ctx, func(ctx context.Context) error {
		_, err := b.client.CopyObject(ctx, dst, minio.CopySrcOptions{Bucket: b.cfg.Bucket, Object: b.key(v.Name), VersionID: v.ID})
		return err
	})
}
