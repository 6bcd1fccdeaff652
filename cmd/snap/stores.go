package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/cache"
	"github.com/snap-backup/snap/repo/backend/local"
	"github.com/snap-backup/snap/repo/backend/retry"
	"github.com/snap-backup/snap/repo/backend/s3"
	"github.com/snap-backup/snap/repo/backend/sftp"
	"github.com/spf13/cobra"
)

// cacheLimit is how many bytes the caches of all repositories may have together.
const cacheLimit = 1 << 30

// schemes begin the addresses of repositories that are not in a folder.
var schemes = []string{"s3:", "sftp:"}

// isAddress reports whether a repository is not in a folder of this computer, and snap can
// open it.
func isAddress(dir string) bool {
	return slices.ContainsFunc(schemes, func(s string) bool { return strings.HasPrefix(dir, s) })
}

// overlapping reports whether two addresses name the same place, or one that is in the other.
func overlapping(a, b string) bool {
	in := func(inner, outer string) bool {
		return strings.HasPrefix(inner+"/", strings.TrimSuffix(outer, "/")+"/")
	}
	return in(placeOf(a), placeOf(b)) || in(placeOf(b), placeOf(a))
}

// placeOf returns an address in one of its forms.
func placeOf(dir string) string {
	if c, err := s3.Parse(dir); err == nil {
		return "s3:" + path.Join(strings.ToLower(c.Host), c.Bucket, c.Prefix)
	}
	if c, err := sftp.Parse(dir); err == nil {
		return "sftp:" + strings.ToLower(c.Host) + ":" + c.Path // the user and the port may be in a file of ssh
	}
	return dir
}

// openFolder opens the store of a repository: a folder, or an address.
func (a *app) openFolder(ctx context.Context, dir string) (storage, error) {
	if _, err := parseOptions(a.storeOptions); err != nil {
		return nil, err // also where none is needed: it may be misspelled
	}
	if isAddress(dir) {
		return a.openAddress(ctx, dir, false)
	}
	be, err := local.Open(dir)
	return a.opened(dir, be, err)
}

// createFolder makes the folder of a repository, or prepares its address.
func (a *app) createFolder(ctx context.Context, dir string) (storage, error) {
	if isAddress(dir) {
		return a.openAddress(ctx, dir, true)
	}
	be, err := local.Create(dir)
	return a.opened(dir, be, err)
}

// closer is how the connection to a store ends, and how what killed runs left there is
// removed.
type closer struct {
	end   func() error
	stale func(ctx context.Context, age time.Duration) (int, error)
}

func (c closer) Close() error { return c.end() }

func (c closer) RemoveStale(ctx context.Context, age time.Duration) (int, error) {
	return c.stale(ctx, age)
}

// The kinds of distant stores. A store has more methods if it has folders, and if there is a
// cache in front of it.
type (
	repeating interface {
		backend.Backend
		backend.FileReader
		backend.Freer
		backend.NoFsyncer
		backend.RangeLister
	}
	distantStore struct {
		repeating
		closer
	}
	distantFolders struct {
		repeating
		backend.Folders
		closer
	}
	cachedStore struct {
		*cache.Backend
		closer
	}
	cachedFolders struct {
		*cache.Backend
		backend.Folders
		closer
	}
)

// openAddress opens the store at an address. Operations are repeated if the store does not
// answer.
func (a *app) openAddress(ctx context.Context, dir string, create bool) (storage, error) {
	var be backend.Backend
	var end closer
	var connections int
	var err error
	if strings.HasPrefix(dir, "s3:") {
		be, end, connections, err = a.openS3(ctx, dir, create)
	} else {
		be, end, err = a.openSFTP(ctx, dir, create)
	}
	if err != nil {
		return nil, err
	}
	again := retry.New(be, retry.Options{Parallel: connections, Report: a.reportRetry()})
	folders, hasFolders := again.(backend.Folders)
	plain, _ := again.(repeating)
	if a.usesCache() {
		if c := a.cacheFor(ctx, again); c != nil {
			if hasFolders {
				return cachedFolders{c, folders, end}, nil
			}
			return cachedStore{c, end}, nil
		}
	}
	if hasFolders {
		return distantFolders{plain, folders, end}, nil
	}
	return distantStore{plain, end}, nil
}

// reportRetry returns a function that says that a store does not answer. It says it once a
// minute at most, since several operations fail together.
func (a *app) reportRetry() func(retry.Failure) {
	var mu sync.Mutex
	var last time.Time
	return func(f retry.Failure) {
		mu.Lock()
		defer mu.Unlock()
		if time.Since(last) < time.Minute && !last.IsZero() {
			a.detail("%v; trying again in %v", f.Err, f.Wait.Round(time.Second))
			return
		}
		last = time.Now()
		a.warn("%v; trying again for up to 15 minutes", f.Err)
	}
}

// uncached are the commands that judge or change a repository as a whole. They ask the store
// for everything, and believe nothing. A verification or drill that read from the cache would
// prove nothing about the store.
var uncached = []string{"check", "copy", "drill", "forget", "init", "key", "mirror", "parity", "prune", "repair", "serve", "unlock", "verify"}

func (a *app) usesCache() bool {
	command, _, _ := strings.Cut(a.command, " ")
	return !a.noCache && !slices.Contains(uncached, command)
}

// cacheFor returns the cache for a store, or nil if there is none.
func (a *app) cacheFor(ctx context.Context, be backend.Backend) *cache.Backend {
	root, err := cacheDir("repositories")
	if err == nil {
		var c *cache.Backend
		if c, err = cache.New(ctx, be, root); err == nil {
			_ = cache.Trim(root, cacheLimit)
			return c
		}
	}
	if !errors.Is(err, backend.ErrNotExist) && ctx.Err() == nil {
		a.detail("no cache is used: %v", err)
	}
	return nil
}

// storeOptions are those of -o. Each has the form KEY=VALUE.
type storeOptions map[string]string

// storeKeys are the keys that -o knows, with what they mean.
var storeKeys = []struct{ key, what string }{
	{"s3.bucket-lookup", "auto, path or host: how requests name the bucket"},
	{"s3.ca-file", "a file with certificates, in PEM, that are trusted, too"},
	{"s3.connections", "requests at a time (5)"},
	{"s3.insecure-http", "true allows http to other computers"},
	{"s3.make-bucket", "true lets init and mirror make the bucket"},
	{"s3.profile", "a profile of ~/.aws/config"},
	{"s3.region", "the region of the bucket"},
	{"s3.storage-class", "of packs, such as STANDARD_IA"},
	{"sftp.args", "more arguments of ssh, such as \"-i ~/.ssh/nas\""},
	{"sftp.command", "a program that speaks SFTP, in place of ssh"},
}

// parseOptions parses the values of -o.
func parseOptions(list []string) (storeOptions, error) {
	o := storeOptions{}
	for _, text := range list {
		key, value, ok := strings.Cut(text, "=")
		if !ok {
			return nil, usageError{fmt.Errorf("-o %s: want KEY=VALUE, such as -o s3.region=eu-central-1", text)}
		}
		if !slices.ContainsFunc(storeKeys, func(k struct{ key, what string }) bool { return k.key == key }) {
			var keys []string
			for _, k := range storeKeys {
				keys = append(keys, k.key)
			}
			return nil, usageError{fmt.Errorf("-o %s: unknown key; the keys are %s", key, strings.Join(keys, ", "))}
		}
		o[key] = value
	}
	return o, nil
}

func (o storeOptions) isTrue(key string) (bool, error) {
	if o[key] == "" {
		return false, nil
	}
	b, err := strconv.ParseBool(o[key])
	if err != nil {
		return false, usageError{fmt.Errorf("-o %s: want true or false, not %q", key, o[key])}
	}
	return b, nil
}

func (a *app) openS3(ctx context.Context, dir string, create bool) (*s3.Backend, closer, int, error) {
	fail := func(err error) (*s3.Backend, closer, int, error) { return nil, closer{}, 0, err }
	o, err := parseOptions(a.storeOptions)
	if err != nil {
		return fail(err)
	}
	cfg, err := s3.Parse(dir)
	if err != nil {
		return fail(usageError{err})
	}
	opts := s3.Options{
		Profile: o["s3.profile"], Region: o["s3.region"], PackClass: o["s3.storage-class"], CAFile: o["s3.ca-file"], Connections: 5,
	}
	if n := o["s3.connections"]; n != "" {
		if opts.Connections, err = strconv.Atoi(n); err != nil || opts.Connections < 1 || opts.Connections > 100 {
			return fail(usageError{fmt.Errorf("-o s3.connections: want a number from 1 to 100, not %q", n)})
		}
	}
	styles := map[string]s3.Style{"": s3.Auto, "auto": s3.Auto, "path": s3.Path, "host": s3.Host}
	style, ok := styles[o["s3.bucket-lookup"]]
	if !ok {
		return fail(usageError{fmt.Errorf("-o s3.bucket-lookup: want auto, path or host, not %q", o["s3.bucket-lookup"])})
	}
	opts.Style = style
	var badHTTP, badMake error
	opts.InsecureHTTP, badHTTP = o.isTrue("s3.insecure-http")
	opts.MakeBucket, badMake = o.isTrue("s3.make-bucket")
	if err := errors.Join(badHTTP, badMake); err != nil {
		return fail(err)
	}
	open := s3.Open
	if create {
		open = s3.Create
	}
	be, err := open(ctx, cfg, opts)
	if err != nil {
		return fail(err)
	}
	nothing := func(context.Context, time.Duration) (int, error) { return 0, nil }
	return be, closer{be.Close, nothing}, opts.Connections, nil
}

func (a *app) openSFTP(ctx context.Context, dir string, create bool) (*sftp.Backend, closer, error) {
	o, err := parseOptions(a.storeOptions)
	if err != nil {
		return nil, closer{}, err
	}
	cfg, err := sftp.Parse(dir)
	if err != nil {
		return nil, closer{}, usageError{err}
	}
	open := sftp.Open
	if create {
		open = sftp.Create
	}
	be, err := open(ctx, cfg, sftp.Options{Command: o["sftp.command"], Args: o["sftp.args"], NoPrompt: a.neverAsk})
	if err != nil {
		return nil, closer{}, err
	}
	if v := os.Getenv("SNAP_NO_FSYNC"); a.noFsync || v != "" && v != "0" {
		be.AllowNoFsync()
	}
	return be, closer{be.Close, be.RemoveStale}, nil
}

// storesTopic is a page of the help.
func storesTopic() *cobra.Command {
	var keys strings.Builder
	for _, k := range storeKeys {
		fmt.Fprintf(&keys, "  %-18s %s\n", k.key, k.what)
	}
	return &cobra.Command{
		Use:   "stores",
		Short: "Where a repository can be",
		Long: `A repository is in a folder, or at an address:

  s3:https://HOST/BUCKET/PREFIX        an object store, with or without PREFIX
  s3:s3.REGION.amazonaws.com/BUCKET    one of Amazon
  sftp:USER@HOST:/PATH                 a server that ssh reaches
  sftp://USER@HOST:PORT//PATH          the same, with a port

Wherever a command takes the folder of a repository, of a mirror or of a copy,
it takes an address.

The keys of an object store come from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY
and AWS_SESSION_TOKEN, from ~/.aws, or from the role of the machine. They are
never part of an address. SFTP uses the keys, the agent and the settings of your
ssh.

If a store does not answer, operations are repeated for up to 15 minutes.
Commands that only use a repository keep copies of its keys, index files and
records, as they are in the store, in the cache folder of this computer, at most
1 GiB in all. The folder snap/repositories there can be deleted at any time.

"-o KEY=VALUE" sets:

` + strings.TrimSuffix(keys.String(), "\n"),
	}
}
