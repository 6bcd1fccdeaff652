package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSimulateStaysOnThisComputer checks which addresses simulated devices may have, and that
// the socket of the demo is private.
func TestSimulateStaysOnThisComputer(t *testing.T) {
	for _, address := range []string{"127.0.0.1:1234", "127.1.2.3:0", "[::1]:1234", "localhost:1"} {
		if err := checkLoopback(address); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
	for _, address := range []string{":1234", "0.0.0.0:1234", "[::]:1234", "192.168.1.2:1", "example.com:1", "127.0.0.1", "localhost.example.com:1", "[::ffff:1.2.3.4]:1"} {
		if err := checkLoopback(address); !isA[usageError](err) {
			t.Errorf("%s: %v", address, err)
		}
	}
	a := &app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard}
	if code := a.run(t.Context(), []string{"simulate", "--socket", "0.0.0.0:0"}); code != exitUsage {
		t.Errorf("exit code %d", code)
	}
	l, unlink, err := listenPrivately()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if l.Addr().Network() == "unix" {
		dir := filepath.Dir(l.Addr().String())
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%v, %v", info, err)
		}
		unlink()
		if _, err := os.Stat(dir); err == nil {
			t.Error("the folder stays")
		}
	}
}
