package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/snap-backup/snap/config"
	"github.com/snap-backup/snap/repo/backend/restserver"
	"github.com/spf13/cobra"
)

// serveRun is one run of the command.
type serveRun struct {
	a                   *app
	listen              string
	cert, key           string
	noTLS, noAuth       bool
	htpasswd, ca        string
	private, appendOnly bool
	appendUsers         []string
	quota               string
	logFile, format     string
	metrics             string
	grace               time.Duration

	log *slog.Logger
}

// serveReady is the output of serve.
type serveReady struct {
	Event       string `json:"event"` // ready
	Address     string `json:"address"`
	Fingerprint string `json:"fingerprint,omitempty"`
	Metrics     string `json:"metrics,omitempty"`
}

func (a *app) serveCommand() *cobra.Command {
	s := &serveRun{a: a}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve repositories to other computers",
		Long: `Serves the repositories in the folder or at the address given with -r to other
computers, over HTTPS, until Ctrl-C. The path of an address names the folder of
a repository: phones on this server is https://HOST:8000/phones/. A server sees
sealed files only, and never has a password of a repository.

    snap serve user add --htpasswd users anna
    snap serve -r /srv/snap --htpasswd users --private-folders --append-only

Without --tls-cert it makes a certificate of its own, keeps it in the user's
folder for configuration, and prints its fingerprint: clients compare it.

With --append-only a stolen computer cannot remove backups: it may add files,
but remove only locks and records of interrupted backups. "snap forget" and
"snap prune" then run on the server itself, with -r FOLDER/NAME.

The files of --htpasswd, --tls-cert and --tls-key are read again when they
change. SIGTERM ends the server as Ctrl-C does: what runs is finished first.`,
		Args: suggest,
		RunE: func(cmd *cobra.Command, _ []string) error { return s.run(cmd.Context()) },

		SuggestionsMinimumDistance: 2,
	}
	f := cmd.Flags()
	f.StringVar(&s.listen, "listen", ":8000", "`address` to listen at, such as 192.168.1.10:8000")
	f.StringVar(&s.htpasswd, "htpasswd", "", "users and their passwords, hashed with bcrypt, in this `file`")
	f.StringVar(&s.ca, "client-ca", "", "let in clients with a certificate that one in this `file` has signed; its common name is the user")
	f.BoolVar(&s.noAuth, "no-auth", false, "let in everybody who reaches the server")
	f.BoolVar(&s.private, "private-folders", false, "let each user use only the folder of the user's name")
	f.BoolVar(&s.appendOnly, "append-only", false, "let users add files, but not remove them")
	f.StringArrayVar(&s.appendUsers, "append-only-user", nil, "let only this `user` add files, but not remove them (can be repeated)")
	f.StringVar(&s.quota, "quota", "", "allow this `size`, such as 500G, to each user with --private-folders, and otherwise to all together")
	f.StringVar(&s.cert, "tls-cert", "", "certificate of the server, in this `file` (PEM)")
	f.StringVar(&s.key, "tls-key", "", "key of the certificate, in this `file` (PEM)")
	f.BoolVar(&s.noTLS, "no-tls", false, "speak http, which shows passwords to whoever listens; for a proxy on the same computer")
	f.StringVar(&s.logFile, "log", "", "append the log of all requests to this `file` (default: standard error)")
	f.StringVar(&s.format, "log-format", "", "write the log as text or json (default text, with --json json)")
	f.StringVar(&s.metrics, "metrics", "", "show metrics for Prometheus at this `address` of this computer, such as 127.0.0.1:9180")
	f.DurationVar(&s.grace, "grace", 30*time.Second, "how long requests may run on after Ctrl-C")
	for _, other := range []string{"htpasswd", "client-ca", "private-folders", "append-only-user"} {
		cmd.MarkFlagsMutuallyExclusive("no-auth", other)
	}
	for _, other := range []string{"tls-cert", "tls-key", "client-ca"} {
		cmd.MarkFlagsMutuallyExclusive("no-tls", other)
	}
	cmd.MarkFlagsMutuallyExclusive("append-only", "append-only-user")
	cmd.AddCommand(a.serveUserCommand())
	return cmd
}

func (s *serveRun) run(ctx context.Context) (err error) {
	a := s.a
	quota, err := s.check()
	if err != nil {
		return err
	}
	dir, err := a.location()
	if err != nil {
		return err
	}
	closeLog, err := s.openLog()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeLog()) }()
	opts, conf, ready, err := s.trust()
	if err != nil {
		return err
	}
	opts.Quota = quota
	be, err := a.openFolder(ctx, dir)
	if errors.Is(err, os.ErrNotExist) {
		return advised{fmt.Errorf("the folder to serve does not exist: %w", err), "make it, or connect its disk, and run the same command again"}
	}
	if err != nil {
		return openError(dir, err)
	}
	defer be.Close()
	a.store = be
	a.removeStale(ctx)
	on, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.listen)
	if err != nil {
		return fmt.Errorf("listen for clients: %w", err)
	}
	h := restserver.New(be, opts)
	stop, err := s.serveMetrics(ctx, h, &ready)
	if err != nil {
		return errors.Join(err, on.Close())
	}
	defer stop()
	ready.Event, ready.Address = "ready", map[bool]string{true: "http://", false: "https://"}[s.noTLS]+on.Addr().String()+"/"
	s.tell(dir, ready)
	return restserver.Serve(ctx, on, h, conf, s.grace)
}

// check checks the flags.
func (s *serveRun) check() (quota int64, err error) {
	wrong := func(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }
	switch {
	case s.htpasswd == "" && s.ca == "" && !s.noAuth:
		return 0, wrong("nobody could use the server: give --htpasswd FILE or --client-ca FILE, or let in everybody with --no-auth")
	case (s.cert == "") != (s.key == ""):
		return 0, wrong("--tls-cert and --tls-key belong together")
	case !slices.Contains([]string{"", "text", "json"}, s.format):
		return 0, wrong("--log-format takes text or json, not %q", s.format)
	case s.metrics != "" && !isLoopback(s.metrics):
		return 0, wrong("--metrics %s: other computers could reach it, and it shows who does how much; use 127.0.0.1", s.metrics)
	}
	if s.quota != "" {
		if quota, err = parseSize(s.quota); err != nil || quota == 0 {
			return 0, wrong("--quota: want a size such as 500G, not %q", s.quota)
		}
	}
	return quota, nil
}

// isLoopback reports whether only programs of this computer can reach host:port.
func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

// openLog opens the access log.
func (s *serveRun) openLog() (closeLog func() error, err error) {
	var w io.Writer = s.a.stderr
	closeLog = func() error { return nil }
	if s.logFile != "" {
		f, err := os.OpenFile(s.logFile, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, fmt.Errorf("open the log: %w", err)
		}
		w, closeLog = f, f.Close
	}
	if s.format == "json" || s.format == "" && s.a.json {
		s.log = slog.New(slog.NewJSONHandler(w, nil))
	} else {
		s.log = slog.New(slog.NewTextHandler(w, nil))
	}
	return closeLog, nil
}

func (s *serveRun) warn(err error) { s.log.Warn("warning", slog.String("error", err.Error())) }

// trust returns what the server needs to know its clients, and to be known by them.
func (s *serveRun) trust() (opts restserver.Options, conf *tls.Config, ready serveReady, err error) {
	opts = restserver.Options{Anybody: s.noAuth, Certificates: s.ca != "", PrivateFolders: s.private, Log: s.log}
	opts.AppendOnly = func(user string) bool { return s.appendOnly || slices.Contains(s.appendUsers, user) }
	if s.htpasswd != "" {
		if opts.Users, err = restserver.OpenUsers(s.htpasswd, s.warn); err != nil {
			return opts, nil, ready, advised{fmt.Errorf("the users of the server: %w", err),
				fmt.Sprintf("\"snap serve user add --htpasswd %s NAME\" adds a user, or stores the password of one anew", s.htpasswd)}
		}
	}
	if opts.Users != nil && s.private {
		for _, name := range opts.Users.WithoutFolder() {
			s.a.warn("the user %s can store nothing: no folder can have this name; use small letters", name)
		}
	}
	if s.noTLS {
		if !isLoopback(s.listen) {
			s.a.warn("the server speaks http: whoever listens on the way sees passwords, and the names and sizes of files")
		}
		return opts, nil, ready, nil
	}
	conf = &tls.Config{MinVersion: tls.VersionTLS12}
	if s.cert != "" {
		files, err := restserver.OpenCertificate(s.cert, s.key, s.warn)
		if err != nil {
			return opts, nil, ready, fmt.Errorf("the certificate of the server: %w", err)
		}
		conf.GetCertificate = files.Get
	} else {
		own, err := s.ownCertificate()
		if err != nil {
			return opts, nil, ready, err
		}
		conf.Certificates, ready.Fingerprint = []tls.Certificate{own}, restserver.Fingerprint(own)
	}
	return opts, conf, ready, s.trustClients(conf)
}

// ownCertificate returns the certificate that the server has made for itself.
func (s *serveRun) ownCertificate() (tls.Certificate, error) {
	path, err := config.Path()
	if err != nil {
		return tls.Certificate{}, advised{fmt.Errorf("there is no place for a certificate: %w", err), "set XDG_CONFIG_HOME to a folder, or use --tls-cert and --tls-key"}
	}
	name, _ := os.Hostname() // without it, clients know the server by its fingerprint only
	host, _, _ := net.SplitHostPort(s.listen)
	hosts := slices.Compact(slices.Sorted(slices.Values([]string{host, name, "localhost", "127.0.0.1", "::1"})))
	return restserver.OwnCertificate(filepath.Join(filepath.Dir(path), "serve.pem"), hosts, time.Now())
}

// trustClients lets the server verify the certificates of clients.
func (s *serveRun) trustClients(conf *tls.Config) error {
	if s.ca == "" {
		return nil
	}
	b, err := os.ReadFile(s.ca)
	if err != nil {
		return fmt.Errorf("the certificates of clients: %w", err)
	}
	conf.ClientCAs = x509.NewCertPool()
	if !conf.ClientCAs.AppendCertsFromPEM(b) {
		return usageError{fmt.Errorf("--client-ca %s: there is no certificate in it", s.ca)}
	}
	conf.ClientAuth = tls.RequireAndVerifyClientCert
	if s.htpasswd != "" {
		conf.ClientAuth = tls.VerifyClientCertIfGiven
	}
	return nil
}

// serveMetrics shows the metrics until stop is called.
func (s *serveRun) serveMetrics(ctx context.Context, h *restserver.Server, ready *serveReady) (stop func(), err error) {
	if s.metrics == "" {
		return func() {}, nil
	}
	on, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.metrics)
	if err != nil {
		return nil, fmt.Errorf("listen for Prometheus: %w", err)
	}
	ready.Metrics = "http://" + on.Addr().String() + "/metrics"
	srv := &http.Server{Handler: h.Metrics(), ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := srv.Serve(on); !errors.Is(err, http.ErrServerClosed) {
			s.warn(err)
		}
	}()
	return func() {
		_ = srv.Close()
		<-done
	}, nil
}

// tell says where the server is.
func (s *serveRun) tell(dir string, ready serveReady) {
	a := s.a
	switch {
	case a.json:
		printLine(a.stdout, ready)
	case !a.quiet:
		w := a.human()
		fmt.Fprintf(w, "serving %s at %s\n", clean(dir), ready.Address)
		if ready.Fingerprint != "" {
			fmt.Fprintf(w, "SHA-256 fingerprint of its certificate:\n%s\n", ready.Fingerprint)
		}
		if ready.Metrics != "" {
			fmt.Fprintf(w, "metrics at %s\n", ready.Metrics)
		}
	}
}
