package main

import (
	"bytes"
	"errors"
	"testing"
)

// A terminal gets no bytes that it could obey, wherever they are.
func TestTextOnly(t *testing.T) {
	var out bytes.Buffer
	w := textOnly{&out}
	for _, text := range []string{"plain\r\n", "Büro 📱\t", "日本"} {
		if _, err := w.Write([]byte(text)); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	want := out.String()
	for _, text := range []string{"\x1b[2J", "a\x00", "x\x7f", "\u009b1m", "\u202e", "long text, then \a"} {
		if n, err := w.Write([]byte(text)); n != 0 || !errors.Is(err, errBinary) {
			t.Errorf("%q: %d bytes, %v", text, n, err)
		}
	}
	if out.String() != want {
		t.Errorf("wrote %q", out.String())
	}
}
