package s3

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/snap-backup/snap/repo/backend/wire"
)

const (
	// roleTimeout bounds the question for the keys of a role: computers that are not at
	// a provider have nobody to ask.
	roleTimeout = 5 * time.Second
	// maxListing bounds a page of a listing: at most 1000 keys of 1024 bytes, each of which
	// may be escaped and has properties.
	maxListing = 16 << 20
)

// newBackend returns a store without asking it anything, except for keys.
func newBackend(ctx context.Context, cfg Config, opts Options) (*Backend, error) {
	if err := opts.check(cfg); err != nil {
		return nil, err
	}
	transport := opts.Transport
	if transport == nil {
		t, err := wire.NewTransport(wire.TransportOptions{CAFile: opts.CAFile, Connections: opts.Connections, Stall: opts.Stall, Limits: opts.Limits})
		if err != nil {
			return nil, err
		}
		transport = t
	}
	keys, err := findKeys(ctx, opts)
	if err != nil {
		return nil, err
	}
	client, err := minio.New(cfg.Host, &minio.Options{
		Creds:        keys,
		Secure:       !cfg.HTTP,
		Transport:    &watcher{transport},
		Region:       region(opts),
		BucketLookup: map[Style]minio.BucketLookupType{Path: minio.BucketLookupPath, Host: minio.BucketLookupDNS}[opts.Style],
		MaxRetries:   1, // package retry repeats
	})
	if err != nil {
		return nil, err
	}
	b := &Backend{cfg: cfg, opts: opts, client: client, transport: transport, learning: make(chan struct{}, 1)}
	if cfg.Prefix != "" {
		b.prefix = cfg.Prefix + "/"
	}
	return b, nil
}

func (o Options) check(cfg Config) error {
	if cfg.HTTP && !o.InsecureHTTP && !wire.Loopback(cfg.Host) {
		return errors.New("http to another computer is not allowed, since anybody on the way could change or remove files (write https, or allow http explicitly)")
	}
	switch strings.ToUpper(o.PackClass) {
	case "GLACIER", "DEEP_ARCHIVE":
		return fmt.Errorf("the storage class %s is not possible: its objects cannot be read at once (use STANDARD_IA or GLACIER_IR)", o.PackClass)
	}
	return nil
}

func region(opts Options) string {
	return cmp.Or(opts.Region, os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION"))
}

// findKeys returns the first credentials that exist: those of the options, the
// environment, the files of the AWS command line tool, and the role of this computer or
// container at a provider.
func findKeys(ctx context.Context, opts Options) (*credentials.Credentials, error) {
	if k := opts.Keys; k != nil {
		return credentials.NewStaticV4(k.ID, k.Secret, k.Token), nil
	}
	var found *credentials.Credentials
	if opts.Profile != "" {
		found = credentials.NewFileAWSCredentials("", opts.Profile)
	} else {
		id, secret := os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY")
		if (id == "") != (secret == "") {
			return nil, fmt.Errorf("%w: only one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY is set (set both, or neither and AWS_PROFILE)", ErrNoKeys)
		}
		found = credentials.NewChainCredentials([]credentials.Provider{
			&credentials.EnvAWS{},
			&credentials.FileAWSCredentials{},
			&credentials.IAM{Client: &http.Client{Timeout: roleTimeout}, Region: region(opts)},
		})
	}
	asker := &credentials.CredContext{Client: &http.Client{Timeout: wire.DialTimeout}, Context: ctx}
	value, err := found.GetWithContext(asker)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	profile := cmp.Or(opts.Profile, os.Getenv("AWS_PROFILE"))
	if profile != "" && err == nil && value.AccessKeyID == "" {
		_, err = credentials.NewFileAWSCredentials("", profile).GetWithContext(asker) // the chain hides the reason
	}
	if err != nil {
		return nil, fmt.Errorf("%w in the profile %.100q: %w (check ~/.aws/credentials and ~/.aws/config)", ErrNoKeys, cmp.Or(profile, "default"), err)
	}
	if value.AccessKeyID == "" || value.SecretAccessKey == "" {
		return nil, fmt.Errorf("%w (set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE)", ErrNoKeys)
	}
	return found, nil
}

// call makes one call of the client, and classifies its error.
func (b *Backend) call(ctx context.Context, request func(ctx context.Context) error) error {
	var seen exchange
	err := request(context.WithValue(ctx, exchangeKey{}, &seen))
	if err == nil {
		return nil
	}
	if cerr := ctx.Err(); cerr != nil {
		return cerr
	}
	return b.classify(err, &seen)
}

// exchange is what watcher saw of a call's last request. The client's own errors lose it.
type exchange struct {
	lost  error         // why there was no answer
	after time.Duration // how long the store asked to wait
}

type exchangeKey struct{}

// watcher is a transport that notes what happens.
type watcher struct{ http.RoundTripper }

// RoundTrip implements [http.RoundTripper].
func (w *watcher) RoundTrip(req *http.Request) (*http.Response, error) {
	seen, ok := req.Context().Value(exchangeKey{}).(*exchange)
	if !ok {
		seen = new(exchange) // a question for keys
	}
	resp, err := w.RoundTripper.RoundTrip(req)
	seen.lost, seen.after = err, 0
	if err != nil {
		return nil, err
	}
	seen.after = wire.RetryAfter(resp.Header.Get("Retry-After"))
	if resp.StatusCode == http.StatusOK && isListing(req.URL.Query()) {
		resp.Body = &listingBody{body: resp.Body, r: bufio.NewReader(resp.Body), left: maxListing}
	}
	return resp, nil
}

func isListing(query url.Values) bool { return query.Has("list-type") || query.Has("versions") }

var (
	errLongListing = errors.New("the store sends an endless list of files")
	errNoListing   = errors.New("the answer is not a list of files: something else than an object store answers (check the address, or log in to the network)")
)

// listingBody is an answer that must be a listing of bounded length. The client takes any
// XML for a listing, so that the page of a hotel's network would be an empty repository.
type listingBody struct {
	body io.Closer
	r    *bufio.Reader
	left int
	good bool
}

func (l *listingBody) Read(p []byte) (int, error) {
	if !l.good {
		begin, err := l.r.Peek(512)
		switch {
		case bytes.Contains(begin, []byte("<ListBucketResult")), bytes.Contains(begin, []byte("<ListVersionsResult")):
			l.good = true
		case err != nil && err != io.EOF:
			return 0, err
		default:
			return 0, errNoListing
		}
	}
	if l.left <= 0 {
		return 0, errLongListing
	}
	n, err := l.r.Read(p[:min(len(p), l.left)])
	l.left -= n
	return n, err
}

func (l *listingBody) Close() error { return l.body.Close() }

func (b *Backend) key(name string) string { return b.prefix + name }

func (b *Backend) opError(op, name string, err error) error {
	return failure(op, strings.TrimRight(b.cfg.String(), "/")+"/"+name, err)
}
