package main

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"testing"
)

// Simulated devices in a state folder continue in the next run.
func TestSimulateState(t *testing.T) {
	if testing.Short() {
		t.Skip("it generates several days")
	}
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "phones")
	play := func(input string, flags ...string) string {
		t.Helper()
		var out, stderr bytes.Buffer
		a := &app{stdin: strings.NewReader(input), stdout: &out, stderr: &stderr}
		args := append([]string{"simulate", "--state", dir, "--socket", "127.0.0.1:0"}, flags...)
		if code := a.run(context.Background(), args); code != 0 || stderr.Len() > 0 {
			t.Fatalf("code %d: %s", code, stderr.String())
		}
		return out.String()
	}
	first := play("next\npassword 2 plums\n", "--devices", "2", "--spare")
	again := play("next\ndevices\n")
	devices, _, _ := strings.Cut(first, "\n\n")
	for line := range strings.Lines(devices) {
		if !strings.Contains(again, strings.TrimSpace(line)) {
			t.Errorf("no %q in the second run: %s", line, again)
		}
	}
	if !strings.Contains(again, "it is day 3") || !strings.Contains(again, "encrypts") {
		t.Errorf("the second run: %s", again)
	}
}

// A message names its device once.
func TestNamed(t *testing.T) {
	for text, want := range map[string]string{
		"device 0000-1: start a session: no": "Anna: start a session: no",
		"Anna: has to encrypt":               "Anna: has to encrypt",
		"the battery of Anna is at 5%":       "the battery of Anna is at 5%",
		"lost":                               "Anna: lost",
	} {
		if got := named("Anna", "0000-1", text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
