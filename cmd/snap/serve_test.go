package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/snap-backup/snap/repo/backend/restapi"
)

// servers are the servers of one script.
type servers struct{ running map[string]*exec.Cmd }

type serversKey struct{}

// server is "server start NAME ARG...": it runs "snap serve ARG..." on a free port and sets the
// variables NAME, to its address, and NAME_PIN, to the fingerprint of its certificate. Its log
// is in NAME.log. "server stop NAME" ends it as systemd does.
func server(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: server start NAME ARG..., server stop NAME")
	}
	s, name := ts.Value(serversKey{}).(*servers), args[1]
	if args[0] == "stop" {
		cmd := s.running[name]
		delete(s.running, name)
		ts.Check(cmd.Process.Signal(syscall.SIGTERM))
		if err := cmd.Wait(); err != nil {
			ts.Fatalf("the server ended with %v: %s", err, ts.ReadFile(name+".log"))
		}
		return
	}
	log, err := os.Create(ts.MkAbs(name + ".log"))
	ts.Check(err)
	defer log.Close()
	var env []string
	for _, v := range []string{"PATH", "HOME", "XDG_CONFIG_HOME", "TMPDIR", "TZ", "SNAP_CONFIG", "SNAP_REPOSITORY"} {
		env = append(env, v+"="+ts.Getenv(v))
	}
	cmd := exec.Command(lookIn(ts.Getenv("PATH"), "snap"), append([]string{"serve", "--json", "--listen", "127.0.0.1:0"}, args[2:]...)...)
	cmd.Dir, cmd.Env, cmd.Stderr = ts.MkAbs("."), env, log
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	s.running[name] = cmd
	ts.Defer(func() {
		if s.running[name] == cmd {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		ts.Fatalf("the server did not begin: %s", ts.ReadFile(name+".log"))
	}
	var ready serveReady
	ts.Check(json.Unmarshal([]byte(line), &ready))
	ts.Check(os.WriteFile(ts.MkAbs(name+".ready"), []byte(line), 0o600))
	ts.Setenv(name, ready.Address)
	ts.Setenv(name+"_PIN", ready.Fingerprint)
	ts.Setenv(name+"_METRICS", ready.Metrics)
}

func lookIn(path, program string) string {
	for _, dir := range filepath.SplitList(path) {
		if file := filepath.Join(dir, program); isFile(file) {
			return file
		}
	}
	return program
}

func isFile(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.Mode().IsRegular()
}

// request is "http STATUS METHOD URL [user=NAME:PASSWORD] [body=TEXT] [HEADER=VALUE]...": the
// server answers with this status. Its body goes to the file answer, its headers to the file
// headers. "pin=HEX" requires this fingerprint of the certificate.
func request(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: http STATUS METHOD URL [user=NAME:PASSWORD] [body=TEXT] [pin=HEX] [HEADER=VALUE]...")
	}
	var pin string
	r, err := http.NewRequest(args[1], args[2], nil)
	ts.Check(err)
	for _, arg := range args[3:] {
		key, value, _ := strings.Cut(arg, "=")
		switch key {
		case "user":
			name, password, _ := strings.Cut(value, ":")
			r.SetBasicAuth(name, password)
		case "body":
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(value)), int64(len(value))
			sum := sha256.Sum256([]byte(value))
			r.Header.Set(restapi.SHA256, hex.EncodeToString(sum[:]))
		case "pin":
			pin = value
		default:
			r.Header.Set(key, value)
		}
	}
	conf := &tls.Config{InsecureSkipVerify: true, VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error {
		if sum := sha256.Sum256(raw[0]); pin != "" && hex.EncodeToString(sum[:]) != pin {
			return errors.New("the certificate has another fingerprint")
		}
		return nil
	}}
	hc := &http.Client{Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}, Timeout: time.Minute}
	a, err := hc.Do(r)
	ts.Check(err)
	defer a.Body.Close()
	body, err := io.ReadAll(a.Body)
	ts.Check(err)
	var headers bytes.Buffer
	ts.Check(a.Header.Write(&headers))
	ts.Check(os.WriteFile(ts.MkAbs("answer"), body, 0o600))
	ts.Check(os.WriteFile(ts.MkAbs("headers"), headers.Bytes(), 0o600))
	if got := strconv.Itoa(a.StatusCode); got != args[0] {
		ts.Fatalf("status %s, want %s: %s", got, args[0], fmt.Sprint(headers.String(), string(body)))
	}
}
