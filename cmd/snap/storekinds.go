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
	"time"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/rclone"
	"github.com/snap-backup/snap/repo/backend/rest"
	"github.com/snap-backup/snap/repo/backend/s3"
	"github.com/snap-backup/snap/repo/backend/sftp"
	"github.com/snap-backup/snap/repo/backend/wire"
	"github.com/snap-backup/snap/repo/protect"
	"github.com/spf13/cobra"
)

// storeKind is one kind of distant stores.
type storeKind struct {
	scheme string      // how its addresses begin
	forms  [][2]string // the forms of its addresses, with what they mean
	keys   [][2]string // the keys that -o knows, with what they mean
	// place returns an address without its scheme, equal for equal places.
	place func(dir string) (string, error)
	open  func(ctx context.Context, a *app, o storeOptions, dir string, create bool) (farStore, error)
}

// farStore is a distant store that was opened.
type farStore struct {
	backend.Backend
	end         closer
	connections int // requests at a time; 0 for no limit
}

// storeKinds has all kinds of distant stores: a new one is one more element.
func storeKinds() []storeKind {
	return []storeKind{
		{
			scheme: "s3:",
			forms: [][2]string{
				{"s3:https://HOST/BUCKET/PREFIX", "an object store, with or without PREFIX"},
				{"s3:s3.REGION.amazonaws.com/BUCKET", "one of Amazon"},
			},
			keys: [][2]string{
				{"s3.bucket-lookup", "auto, path or host: how requests name the bucket"},
				{"s3.ca-file", "a file with certificates, in PEM, that are trusted, too"},
				{"s3.connections", "requests at a time; goes before --connections"},
				{"s3.insecure-http", "true allows http to other computers"},
				{"s3.make-bucket", "true lets init and mirror make the bucket"},
				{"s3.profile", "a profile of ~/.aws/config"},
				{"s3.region", "the region of the bucket"},
				{"s3.storage-class", "of packs, such as STANDARD_IA"},
			},
			place: func(dir string) (string, error) {
				c, err := s3.Parse(dir)
				return path.Join(strings.ToLower(c.Host), c.Bucket, c.Prefix), err
			},
			open: openS3,
		},
		{
			scheme: "sftp:",
			forms: [][2]string{
				{"sftp:USER@HOST:/PATH", "a server that ssh reaches"},
				{"sftp://USER@HOST:PORT//PATH", "the same, with a port"},
			},
			keys: [][2]string{
				{"sftp.args", "more arguments of ssh, such as \"-i ~/.ssh/nas\""},
				{"sftp.command", "a program that speaks SFTP, in place of ssh"},
			},
			place: func(dir string) (string, error) {
				c, err := sftp.Parse(dir)
				return strings.ToLower(c.Host) + ":" + c.Path, err // the user and the port may be in a file of ssh
			},
			open: openSFTP,
		},
		{
			scheme: "rest:",
			forms:  [][2]string{{"rest:https://HOST:PORT/PATH", "a server that runs \"snap serve\""}},
			keys: [][2]string{
				{"rest.ca-file", "a file with certificates, in PEM, that are trusted, too"},
				{"rest.client-cert", "a file with a certificate of this computer, in PEM"},
				{"rest.client-key", "a file with its key"},
				{"rest.connections", "requests at a time; goes before --connections"},
				{"rest.fingerprint", "the SHA-256 of the only certificate that is trusted"},
				{"rest.insecure-http", "true allows http to other computers"},
			},
			place: func(dir string) (string, error) {
				c, err := rest.Parse(dir)
				return c.Host + path.Clean(c.Path), err
			},
			open: openREST,
		},
		{
			scheme: "rclone:",
			forms:  [][2]string{{"rclone:REMOTE:PATH", "a remote of rclone, such as a cloud drive"}},
			keys: [][2]string{
				{"rclone.args", "more arguments, such as \"--bwlimit 1M\""},
				{"rclone.connections", "requests at a time; goes before --connections"},
				{"rclone.program", "rclone, or a program that runs it"},
				{"rclone.timeout", "how long rclone may take to start (1m)"},
			},
			place: func(dir string) (string, error) {
				c, err := rclone.Parse(dir)
				return c.Remote + ":" + strings.Trim(c.Path, "/"), err
			},
			open: openRclone,
		},
	}
}

// storeKindOf returns the kind of store that an address names, or nil.
func storeKindOf(dir string) *storeKind {
	for _, k := range storeKinds() {
		if strings.HasPrefix(dir, k.scheme) {
			return &k
		}
	}
	return nil
}

// storeOptions are those of -o. Each has the form KEY=VALUE.
type storeOptions map[string]string

// storeKeys returns the keys that -o knows, sorted, with what they mean.
func storeKeys() (keys [][2]string) {
	for _, k := range storeKinds() {
		keys = append(keys, k.keys...)
	}
	slices.SortFunc(keys, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	return keys
}

// parseOptions parses the values of -o.
func parseOptions(list []string) (storeOptions, error) {
	known := map[string]bool{}
	var keys []string
	for _, k := range storeKeys() {
		known[k[0]] = true
		keys = append(keys, k[0])
	}
	o := storeOptions{}
	for _, text := range list {
		key, value, ok := strings.Cut(text, "=")
		if !ok {
			return nil, usageError{fmt.Errorf("-o %s: want KEY=VALUE, such as -o s3.region=eu-central-1", text)}
		}
		if !known[key] {
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

// leavesNothing is for stores in which what killed runs left is never seen, or cannot be told
// from other files.
func leavesNothing(context.Context, time.Duration) (int, error) { return 0, nil }

func openS3(ctx context.Context, a *app, o storeOptions, dir string, create bool) (farStore, error) {
	cfg, err := s3.Parse(dir)
	if err != nil {
		return farStore{}, usageError{err}
	}
	opts := s3.Options{Profile: o["s3.profile"], Region: o["s3.region"], PackClass: o["s3.storage-class"], CAFile: o["s3.ca-file"], Limits: a.lineLimits(), ObjectLock: a.objectLock, Protects: protect.Includes}
	styles := map[string]s3.Style{"": s3.Auto, "auto": s3.Auto, "path": s3.Path, "host": s3.Host}
	style, ok := styles[o["s3.bucket-lookup"]]
	if !ok {
		return farStore{}, usageError{fmt.Errorf("-o s3.bucket-lookup: want auto, path or host, not %q", o["s3.bucket-lookup"])}
	}
	opts.Style = style
	var errs [3]error
	opts.Connections, errs[0] = a.connectionsOf(o, "s3.connections", 5)
	opts.InsecureHTTP, errs[1] = o.isTrue("s3.insecure-http")
	opts.MakeBucket, errs[2] = o.isTrue("s3.make-bucket")
	if err := errors.Join(errs[:]...); err != nil {
		return farStore{}, err
	}
	open := s3.Open
	if create {
		open = s3.Create
	}
	be, err := open(ctx, cfg, opts)
	if err != nil {
		return farStore{}, err
	}
	return farStore{be, closer{be.Close, leavesNothing}, opts.Connections}, nil
}

func openSFTP(ctx context.Context, a *app, o storeOptions, dir string, create bool) (farStore, error) {
	cfg, err := sftp.Parse(dir)
	if err != nil {
		return farStore{}, usageError{err}
	}
	open := sftp.Open
	if create {
		open = sftp.Create
	}
	be, err := open(ctx, cfg, sftp.Options{Command: o["sftp.command"], Args: o["sftp.args"], NoPrompt: a.neverAsk, Limits: a.lineLimits()})
	if err != nil {
		return farStore{}, err
	}
	if v := os.Getenv("SNAP_NO_FSYNC"); a.noFsync || v != "" && v != "0" {
		be.AllowNoFsync()
	}
	return farStore{be, closer{be.Close, be.RemoveStale}, int(a.line.connections)}, nil
}

func openREST(ctx context.Context, a *app, o storeOptions, dir string, create bool) (farStore, error) {
	cfg, err := rest.Parse(dir)
	if err != nil {
		return farStore{}, usageError{err}
	}
	opts := rest.Options{
		User: rest.Secret(os.Getenv("SNAP_REST_USER")), Password: rest.Secret(os.Getenv("SNAP_REST_PASSWORD")),
		Connection: wire.TransportOptions{
			CAFile: o["rest.ca-file"], ClientCert: o["rest.client-cert"], ClientKey: o["rest.client-key"], Fingerprint: o["rest.fingerprint"],
			Limits: a.lineLimits(),
		},
	}
	if login, ok := a.logins[dir]; ok {
		if login.err != nil {
			return farStore{}, usageError{login.err}
		}
		opts.User, opts.Password = login.User, login.Password
	}
	var errs [2]error
	opts.Connection.Connections, errs[0] = a.connectionsOf(o, "rest.connections", 5)
	opts.InsecureHTTP, errs[1] = o.isTrue("rest.insecure-http")
	if err := errors.Join(errs[:]...); err != nil {
		return farStore{}, err
	}
	open := rest.Open
	if create {
		open = rest.Create
	}
	be, err := open(ctx, cfg, opts)
	if err != nil {
		return farStore{}, err
	}
	return farStore{be, closer{be.Close, leavesNothing}, opts.Connection.Connections}, nil
}

// hideLogin removes the user and password from the address of a server, and remembers them
// for openREST. So no message, file or list of processes that this process makes can have
// them.
func (a *app) hideLogin(address string) string {
	shown := rest.Redact(address)
	if shown == address {
		return address
	}
	c, err := rest.Parse(address)
	if err == nil {
		shown = c.String()
	}
	if a.logins == nil {
		a.logins = map[string]login{}
	}
	a.logins[shown] = login{c, err}
	return shown
}

// login is what was in the address of a server, or what is wrong with it.
type login struct {
	rest.Config
	err error
}

// hideLogins does so for all arguments of a command line.
func (a *app) hideLogins(args []string) []string {
	hidden := slices.Clone(args)
	for i, arg := range hidden {
		if at := strings.Index(arg, "rest:"); at >= 0 && (at == 0 || arg[0] == '-') {
			hidden[i] = arg[:at] + a.hideLogin(arg[at:])
		}
	}
	return hidden
}

// env returns a variable that names a repository.
func (a *app) env(name string) string { return a.hideLogin(os.Getenv(name)) }

func openRclone(ctx context.Context, a *app, o storeOptions, dir string, create bool) (farStore, error) {
	cfg, err := rclone.Parse(dir)
	if err != nil {
		return farStore{}, usageError{err}
	}
	connections, err := a.connectionsOf(o, "rclone.connections", 5)
	if err != nil {
		return farStore{}, err
	}
	opts := rclone.Options{Program: o["rclone.program"], Args: o["rclone.args"], Limits: a.lineLimits()}
	if v := o["rclone.timeout"]; v != "" {
		if opts.Timeout, err = time.ParseDuration(v); err != nil || opts.Timeout <= 0 {
			return farStore{}, usageError{fmt.Errorf("-o rclone.timeout: want a time such as 30s or 2m, not %q", v)}
		}
	}
	open := rclone.Open
	if create {
		open = rclone.Create
	}
	be, err := open(ctx, cfg, opts)
	if err != nil {
		return farStore{}, err
	}
	return farStore{be, closer{be.Close, leavesNothing}, connections}, nil
}

// addressForms returns the forms of addresses, one a line.
func addressForms() string {
	var b strings.Builder
	for _, k := range storeKinds() {
		for _, f := range k.forms {
			fmt.Fprintf(&b, "  %-36s %s\n", f[0], f[1])
		}
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// storesTopic is a page of the help.
func storesTopic() *cobra.Command {
	var keys strings.Builder
	for _, k := range storeKeys() {
		fmt.Fprintf(&keys, "  %-18s %s\n", k[0], k[1])
	}
	return &cobra.Command{
		Use:   "stores",
		Short: "Where a repository can be",
		Long: `A repository is in a folder, or at an address:

` + addressForms() + `

Wherever a command takes the folder of a repository, of a mirror or of a copy,
it takes an address.

The keys of an object store come from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY
and AWS_SESSION_TOKEN, from ~/.aws, or from the role of the machine. They are
never part of an address. SFTP uses the keys, the agent and the settings of your
ssh, and rclone its own configuration.

"snap serve" is the server for rest: on a NAS or at a friend's, it offers a
folder to other computers, and can keep them from removing backups.

The user and password of a server come from SNAP_REST_USER and
SNAP_REST_PASSWORD, or from an address rest:https://USER:PASSWORD@HOST/PATH, in
which "%40" is an @. snap never shows or stores them, but other users of this
computer can see the arguments of programs.

rclone cannot refuse to overwrite, and writes to disks, shares and SFTP servers
in place: for these, use a folder or sftp:. A repository in a remote is made of
the same files as one in a folder, and "rclone copy" makes one of the other.

--limit-upload and --limit-download limit the bytes per second to and from all
these stores together. --connections is the number of requests to a store at a
time, 5 by default, and of operations on a server that ssh reaches. Folders have
no limits.

If a store does not answer, operations are repeated for up to 15 minutes.
Commands that only use a repository keep copies of its keys, index files and
records, as they are in the store, in the cache folder of this computer, at most
1 GiB in all. The folder snap/repositories there can be deleted at any time.

"-o KEY=VALUE" sets:

` + strings.TrimSuffix(keys.String(), "\n"),
	}
}
