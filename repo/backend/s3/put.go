package s3

import (
	"context"
	"crypto/md5" // the protocol's checksum
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/wire"
)

// learnName is the object by which a Backend finds out about conditional requests. Names in
// tmp are reserved for implementations, so it is no file of the repository.
const learnName = "tmp/if-none-match"

const learnText = "snap put this object to find out whether the store can refuse to overwrite. It is put again if it is removed.\n"

// packsPrefix begins the names of packs.
const packsPrefix = "packs/"

// Put implements [backend.Backend].
func (b *Backend) Put(ctx context.Context, name string, data []byte) error {
	if err := b.checkCall(ctx, "put", name); err != nil {
		return err
	}
	conditional, err := b.knowConditional(ctx)
	if err == nil && !conditional {
		if _, err = b.stat(ctx, name); err == nil {
			err = backend.ErrExist
		} else if errors.Is(err, backend.ErrNotExist) {
			err = nil
		}
	}
	if err == nil {
		err = b.put(ctx, name, data, conditional)
		if errors.Is(err, backend.ErrExist) {
			err = b.replaceGhost(ctx, name, data, err)
		}
	}
	if err != nil {
		return b.opError("put", name, err)
	}
	return nil
}

// replaceGhost returns exists, the error for an object that exists, if the store can show that
// object. A gateway that was killed, such as versitygw, can leave one that it refuses to
// overwrite and does not show. Callers take a file that is named by its hash for stored,
// so such an object must not count as one. It can only be one with the same bytes, and is
// overwritten.
func (b *Backend) replaceGhost(ctx context.Context, name string, data []byte, exists error) error {
	switch _, err := b.stat(ctx, name); {
	case err == nil:
		return exists
	case !errors.Is(err, backend.ErrNotExist):
		return err
	case !backend.IsHashed(name):
		// Some gateways also refuse the name of a folder, which they do not show.
		return fmt.Errorf("%w, but the store shows no object of this name; if it is not a folder, delete it with a program of the store", exists)
	}
	return b.put(ctx, name, data, false)
}

// knowConditional reports whether the store supports conditional requests.
func (b *Backend) knowConditional(ctx context.Context) (bool, error) {
	select {
	case b.learning <- struct{}{}:
		defer func() { <-b.learning }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	if b.conditional.Load() == conditionalUnknown {
		supported, err := b.learnConditional(ctx)
		if err != nil {
			return false, fmt.Errorf("find out whether the store can refuse to overwrite: %w", err)
		}
		b.conditional.Store(conditionalUnsupported)
		if supported {
			b.conditional.Store(conditionalSupported)
		}
	}
	return b.conditional.Load() == conditionalSupported, nil
}

// learnConditional puts an object until it exists, and then once more. The store must
// refuse that.
func (b *Backend) learnConditional(ctx context.Context) (bool, error) {
	for range 2 {
		err := b.put(ctx, learnName, []byte(learnText), true)
		switch {
		case err == nil:
		case errors.Is(err, backend.ErrExist):
			return true, nil
		case errors.Is(err, errors.ErrUnsupported), code(err) == "InvalidArgument", code(err) == "InvalidRequest":
			return false, nil
		default:
			return false, err
		}
	}
	return false, nil // it overwrote
}

// put stores an object with the protection of its name.
func (b *Backend) put(ctx context.Context, name string, data []byte, conditional bool) error {
	p, err := b.protectionOf(ctx, name)
	if err != nil {
		return err
	}
	err = b.putAs(ctx, name, data, conditional, p)
	if p.Period > 0 && backend.IsDenied(err) {
		err = fmt.Errorf("%w; files are protected here, so it also needs the right to do that, such as s3:PutObjectRetention", err)
	}
	return err
}

// putAs stores an object, and makes sure that the store has all bytes.
func (b *Backend) putAs(ctx context.Context, name string, data []byte, conditional bool, p backend.Protection) error {
	md5sum, sha := md5.Sum(data), sha256.Sum256(data)
	opts := minio.PutObjectOptions{DisableContentSha256: true}
	if conditional {
		opts.SetMatchETagExcept("*")
	}
	if strings.HasPrefix(name, packsPrefix) {
		opts.StorageClass = b.opts.PackClass
	}
	if p.Period > 0 {
		opts.Mode, opts.RetainUntilDate = mode(p.Compliance), time.Now().Add(p.Period).UTC()
	}
	body := wire.NewBody(data)
	defer body.Revoke()
	var info minio.UploadInfo
	err := b.call(ctx, func(ctx context.Context) (err error) {
		info, err = minio.Core{Client: b.client}.PutObject(ctx, b.cfg.Bucket, b.key(name), body, int64(len(data)),
			base64.StdEncoding.EncodeToString(md5sum[:]), hex.EncodeToString(sha[:]), opts)
		return err
	})
	want := hex.EncodeToString(md5sum[:])
	switch {
	case err == nil && strings.EqualFold(info.ETag, want):
		return nil
	case err == nil:
		return b.verifyPut(ctx, name, len(data))
	case answerLost(err) && b.arrived(ctx, name, len(data), want):
		return nil
	}
	return err
}

// verifyPut compares the size of an object with the number of bytes that were put. An object
// that lost bytes is removed: a file must never be partial.
func (b *Backend) verifyPut(ctx context.Context, name string, size int) error {
	info, err := b.stat(ctx, name)
	if err != nil {
		return fmt.Errorf("verify what was stored: %w", err)
	}
	if info.Size == int64(size) {
		return nil
	}
	err = fmt.Errorf("the store has accepted %d bytes and kept %d (something between this computer and the store changes files; do not use it)", size, info.Size)
	if rerr := b.remove(ctx, name); rerr != nil {
		return fmt.Errorf("%w; the incomplete object is still there: %w", err, rerr)
	}
	return err
}

// answerLost reports whether a request may have been carried out although it failed.
func answerLost(err error) bool {
	if !backend.Temporary(err) {
		return false
	}
	switch code(err) {
	case "": // no answer, or one of a proxy without a code
		return true
	case "InternalError":
		return true
	}
	return strings.HasPrefix(code(err), "5") && !strings.HasPrefix(code(err), "503") // a status in the place of a code
}

// arrived reports whether an object has these bytes. Without an ETag that is an MD5, the
// size suffices if the name is a hash.
func (b *Backend) arrived(ctx context.Context, name string, size int, md5sum string) bool {
	info, err := b.statObject(ctx, name)
	if err != nil || info.Size != int64(size) {
		return false
	}
	return strings.EqualFold(info.ETag, md5sum) || !isMD5(info.ETag) && backend.IsHashed(name)
}

func isMD5(etag string) bool {
	b, err := hex.DecodeString(etag)
	return err == nil && len(b) == md5.Size
}

// Delete implements [backend.Backend].
func (b *Backend) Delete(ctx context.Context, name string) error {
	if err := b.checkCall(ctx, "delete", name); err != nil {
		return err
	}
	_, err := b.stat(ctx, name)
	if err == nil {
		err = b.remove(ctx, name)
	}
	if err != nil {
		return b.opError("delete", name, err)
	}
	return nil
}

func (b *Backend) remove(ctx context.Context, name string) error {
	return b.call(ctx, func(ctx context.Context) error {
		return b.client.RemoveObject(ctx, b.cfg.Bucket, b.key(name), minio.RemoveObjectOptions{})
	})
}
