// Package s3 is a backend in a bucket of an object store that speaks the protocol of
// Amazon S3, such as Amazon S3 itself, Backblaze B2, Cloudflare R2, Wasabi, MinIO, Ceph or
// Garage.
//
// # Objects
//
// A repository file named "packs/ab/cd" is the object PREFIX/packs/ab/cd, with exactly the
// bytes that were put. The objects PREFIX/tmp/if-none-match and PREFIX/tmp/object-lock are the
// only other ones that snap makes; see Put and Protection. Objects with other names are neither listed nor changed.
//
// # Put
//
// Put sends one request, never several parts, so no unfinished upload remains. The request
// has the MD5 and the SHA-256 of the bytes, and a store refuses bytes that differ from
// them. After the answer, Put compares the ETag with the MD5. Where the ETag is something
// else, as with keys of AWS KMS, Put asks for the size of the object.
//
// The request is conditional (If-None-Match: *), so that the store refuses it if the name
// is taken. Before the first Put, a Backend finds out whether the store supports that: it
// puts the object tmp/if-none-match, which the store must refuse if it exists. This costs
// one request.
//
// On a store that does not support conditional requests, Put first asks whether the name is
// free. If two Puts of one name run at the same time, both may succeed, and the later one
// replaces the object of the earlier one. That is harmless for names that are hashes or
// random, since equal names mean equal bytes. It is not atomic for config, reserve and
// other names: two processes that make a repository in the same place at the same time can
// replace each other's config.
//
// If the answer to a Put is lost, Put asks for the size and ETag of the object, and succeeds
// if they are those of its bytes.
//
// # Delete
//
// Stores say that a Delete succeeded even if there was no object. So Delete asks first
// whether there is one, which costs the cheapest kind of request: callers then know whether
// they removed a file. If two processes delete a file at the same time, both may succeed.
// In a bucket with versioning, a deleted object remains as an old version, and takes space
// until a lifecycle rule of the bucket removes it.
//
// # Protection
//
// The object PREFIX/tmp/object-lock says how long each file is to be protected. If it
// exists, Put asks the store for Object Lock with this time from now, in the same request.
// The object is read once, before the first Put of a file that is to be protected.
//
// # Failures
//
// No operation is repeated here; package retry does that. Errors that may pass are
// [backend.TemporaryError]. If the store does not answer, or accepts no request, the error
// is [backend.ErrOutOfReach]. A connection on which no byte moves for [Options.Stall] is
// closed.
//
// # What it never does
//
// It sends nothing without TLS, except to this computer or if [Options.InsecureHTTP] is
// set. It never puts keys into messages. It makes a bucket only in [Create], and only if it
// is told to. It does not change settings of buckets, and does not remove old versions.
package s3

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/limit"
)

// Options are the settings of a store that are not in its address. The zero value has the
// defaults.
type Options struct {
	// Keys are used instead of those of the environment.
	Keys *Keys
	// Profile is a profile of the files ~/.aws/config and ~/.aws/credentials. It is used
	// instead of the keys of the environment and of AWS_PROFILE.
	Profile string
	// Region is used instead of AWS_REGION and AWS_DEFAULT_REGION. If all are empty, the
	// region follows from the host, or the store is asked.
	Region string
	// Style says how requests name the bucket. Auto is right for almost all stores.
	Style Style
	// PackClass is the storage class of packs, such as STANDARD_IA. Everything else gets
	// the default of the bucket, since it is read in each run and changes often. Classes
	// whose objects cannot be read at once are refused.
	PackClass string
	// CAFile is a file with certificates, in PEM, of authorities that are trusted besides
	// those of the system.
	CAFile string
	// InsecureHTTP allows http to other computers. Whoever is on the way then sees and
	// can change the bytes of the repository, which are sealed, and can remove files.
	InsecureHTTP bool
	// Connections is the maximum number of connections to the store, and so of requests
	// at a time. 0 means 5, as in restic: more seldom help, and disturb others on a line
	// of a home.
	Connections int
	// Stall is how long no byte may move on a connection during a request. 0 means 5
	// minutes, as in restic: a system may hold several megabytes that were sent, which
	// take minutes on a slow line.
	Stall time.Duration
	// Limits are how many bytes per second the connections move; nil for no limit.
	Limits *limit.Limits
	// MakeBucket lets Create make the bucket.
	MakeBucket bool
	// ObjectLock makes the bucket with Object Lock.
	ObjectLock bool
	// Protects reports whether a file is protected when it is put, if the store has a
	// protection. Nil protects all.
	Protects func(name string) bool
	// Transport is used instead of connections of this package, for tests.
	Transport http.RoundTripper
}

// Keys are the credentials for a store.
type Keys struct {
	ID, Secret string
	Token      string // of a session; mostly ""
}

// String hides the keys.
func (Keys) String() string { return "keys that are not shown" }

// GoString hides the keys.
func (k Keys) GoString() string { return k.String() }

// Style says how requests name the bucket.
type Style int

// The styles of requests.
const (
	// Auto is Host for stores of Amazon, Google and Alibaba, and Path for all others.
	Auto Style = iota
	// Path is https://HOST/BUCKET/KEY.
	Path
	// Host is https://BUCKET.HOST/KEY.
	Host
)

// The kinds of failure that callers distinguish, besides those of package backend.
var (
	// ErrNoBucket says that the bucket does not exist.
	ErrNoBucket = errors.New("the bucket does not exist")
	// ErrNoKeys says that no credentials were found.
	ErrNoKeys = errors.New("no access key was found")
	// ErrRefused says that the store does not accept the credentials, the region or the
	// clock of this computer.
	ErrRefused = errors.New("the store refuses the access key")
)

// Backend is a store in a bucket. Use [Open] or [Create].
type Backend struct {
	cfg       Config
	opts      Options
	client    *minio.Client
	transport http.RoundTripper
	prefix    string // of keys: "" or with a slash at the end

	learning    chan struct{}                      // held by whoever finds out about conditional requests
	conditional atomic.Int32                       // see the constants
	protection  atomic.Pointer[backend.Protection] // nil until the store was asked
}

// What a Backend knows of conditional requests.
const (
	conditionalUnknown = iota
	conditionalSupported
	conditionalUnsupported
)

var (
	_ backend.Backend    = (*Backend)(nil)
	_ backend.FileReader = (*Backend)(nil)
)

// Open returns the store at an address. It writes nothing. It lists one object, to find out
// whether the bucket exists and the keys are accepted. It does not check whether there is a
// repository. The error is ErrNoBucket if there is no bucket.
func Open(ctx context.Context, cfg Config, opts Options) (*Backend, error) {
	b, err := connect(ctx, cfg, opts)
	if err != nil {
		return nil, failure("open", cfg.String(), err)
	}
	return b, nil
}

// Create is Open, except that it makes a missing bucket if Options.MakeBucket is set.
func Create(ctx context.Context, cfg Config, opts Options) (*Backend, error) {
	b, err := connect(ctx, cfg, opts)
	if errors.Is(err, ErrNoBucket) && opts.MakeBucket {
		b, err = makeBucket(ctx, cfg, opts)
	}
	if err != nil {
		return nil, failure("create", cfg.String(), err)
	}
	return b, nil
}

func makeBucket(ctx context.Context, cfg Config, opts Options) (*Backend, error) {
	b, err := newBackend(ctx, cfg, opts)
	if err != nil {
		return nil, err
	}
	err = b.call(ctx, func(ctx context.Context) error {
		return b.client.MakeBucket(ctx, cfg.Bucket, minio.MakeBucketOptions{Region: region(opts), ObjectLocking: opts.ObjectLock})
	})
	if err != nil && code(err) != "BucketAlreadyOwnedByYou" { // another process has just made it
		return nil, err
	}
	return connect(ctx, cfg, opts)
}

// connect returns a store after it has answered.
func connect(ctx context.Context, cfg Config, opts Options) (*Backend, error) {
	b, err := newBackend(ctx, cfg, opts)
	if err != nil {
		return nil, err
	}
	err = b.touch(ctx)
	if r := rightRegion(err); r != "" && region(opts) == "" {
		// The host does not say which region the bucket is in, but the answer does.
		b.Close()
		opts.Region = r
		if b, err = newBackend(ctx, cfg, opts); err != nil {
			return nil, err
		}
		err = b.touch(ctx)
	}
	if err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// touch lists one object. Unlike a HEAD request, the answer says why it was refused.
func (b *Backend) touch(ctx context.Context) error {
	return b.call(ctx, func(ctx context.Context) error {
		for object := range b.client.ListObjectsIter(ctx, b.cfg.Bucket, b.listing("", 1)) {
			return object.Err
		}
		return ctx.Err()
	})
}

// Close closes idle connections. No other method may run at the same time or be called
// afterwards.
func (b *Backend) Close() error {
	if t, ok := b.transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
	return nil
}

// Config returns what the store was opened with.
func (b *Backend) Config() Config { return b.cfg }

// checkCall makes the checks that every operation on a file begins with.
func (b *Backend) checkCall(ctx context.Context, op, name string) error {
	if err := backend.ValidName(name); err != nil {
		return failure(op, b.cfg.String(), err)
	}
	if err := ctx.Err(); err != nil {
		return b.opError(op, name, err)
	}
	return nil
}
