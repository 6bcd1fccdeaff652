package main

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// A terminal gets no bytes that it could obey, wherever they are and however they come.
func TestTextOnly(t *testing.T) {
	for _, text := range []string{"", "plain\r\n", "Büro 📱\t", "日本", "\ufffd"} {
		for size := 1; size <= len(text)+1; size++ {
			if got, err := throughText(text, size); got != text || err != nil {
				t.Errorf("%q by %d: %q, %v", text, size, got, err)
			}
		}
	}
	for _, text := range []string{
		"\x1b[2J", "a\x00", "x\x7f", "\u009b1m", "\u202e", "long text, then \a",
		"\x9b31m", "ü\xc2", "\xff", "good\rbad", "end\r", "\r\r\n", "\r\x9b", "\xe2\x80",
	} {
		for size := 1; size <= len(text)+1; size++ {
			got, err := throughText(text, size)
			if !errors.Is(err, errBinary) {
				t.Errorf("%q by %d: %v", text, size, err)
			}
			if !utf8.ValidString(got) || strings.ContainsFunc(got, obeyed) {
				t.Errorf("%q by %d: the terminal gets %q", text, size, got)
			}
		}
	}
}

// throughText writes a text in pieces of a size, and returns what a terminal gets.
func throughText(text string, size int) (string, error) {
	var out bytes.Buffer
	w := &textOnly{w: &out}
	for piece := range slices.Chunk([]byte(text), size) {
		if n, err := w.Write(piece); err != nil || n != len(piece) {
			return out.String(), err
		}
	}
	return out.String(), w.finish()
}

// An archive is never for a terminal.
func TestExtractToTerminal(t *testing.T) {
	for _, flags := range []extractFlags{{tar: "-"}, {zip: "-"}} {
		if err := flags.check(false); err != nil {
			t.Error(err)
		}
		if _, ok := errors.AsType[usageError](flags.check(true)); !ok {
			t.Errorf("%+v writes to a terminal", flags)
		}
	}
}
