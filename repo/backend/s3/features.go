package s3

import (
	"context"
	"errors"
	"slices"

	"github.com/minio/minio-go/v7"

	"github.com/snap-backup/snap/repo/backend"
)

// Features is what a bucket can do.
type Features struct {
	// ConditionalPut says that the store refuses to overwrite. Otherwise two Puts of one
	// name at the same time can both succeed.
	ConditionalPut bool
	// Versioning says that the bucket keeps what is deleted or overwritten, until a
	// lifecycle rule removes it.
	Versioning State
	// ObjectLock says that the bucket can protect objects from being removed for a time.
	ObjectLock State
}

// State is what is known of a setting of a bucket.
type State int

// The states of a setting.
const (
	Unknown State = iota // the access key may not ask
	Off
	On
)

// Probe finds out what the bucket can do. It puts one small object, unless a Put has done so
// before; see the package comment.
func (b *Backend) Probe(ctx context.Context) (Features, error) {
	conditional, err := b.knowConditional(ctx)
	if err != nil {
		return Features{}, b.opError("probe", "", err)
	}
	f := Features{ConditionalPut: conditional}
	f.Versioning, err = b.setting(ctx, func(ctx context.Context) (bool, error) {
		v, err := b.client.GetBucketVersioning(ctx, b.cfg.Bucket)
		return v.Status == minio.Enabled, err
	})
	if err == nil {
		f.ObjectLock, err = b.setting(ctx, func(ctx context.Context) (bool, error) {
			enabled, _, _, _, err := b.client.GetObjectLockConfig(ctx, b.cfg.Bucket)
			return enabled == "Enabled", err
		})
	}
	if err != nil {
		return Features{}, b.opError("probe", "", err)
	}
	return f, nil
}

// setting asks for a setting of the bucket. A store that does not have the setting says
// that it is not found or not supported.
func (b *Backend) setting(ctx context.Context, ask func(ctx context.Context) (bool, error)) (State, error) {
	var on bool
	err := b.call(ctx, func(ctx context.Context) (err error) {
		on, err = ask(ctx)
		return err
	})
	switch {
	case err == nil && on:
		return On, nil
	case err == nil:
		return Off, nil
	case errors.Is(err, ErrNoBucket):
		return Unknown, err
	case slices.Contains([]string{"ObjectLockConfigurationNotFoundError", "InvalidRequest", "MethodNotAllowed"}, code(err)),
		errors.Is(err, errors.ErrUnsupported):
		return Off, nil
	case backend.IsDenied(err):
		return Unknown, nil
	}
	return Unknown, err
}
