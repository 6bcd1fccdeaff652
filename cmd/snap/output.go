package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/snap-backup/snap/internal/words"
)

// print writes a command's result: with --json as JSON, otherwise with the function
// human. It returns no failure of standard output, since a command then would not say
// how it ended: method outcome reports that failure.
func (a *app) print(result any, human func(w io.Writer)) error {
	if a.json {
		err := printJSON(a.stdout, result)
		if isA[outputError](err) {
			return nil
		}
		return err
	}
	human(a.human())
	return nil
}

// conclude is print for a command that does something, not one that shows something: with
// --quiet it is silent if all is well. needed says that a person must know the result.
func (a *app) conclude(result any, needed bool, human func(w io.Writer)) error {
	if a.quiet && !a.json && !needed {
		return nil
	}
	return a.print(result, human)
}

func printJSON(w io.Writer, v any) error {
	return encode(w, v, "  ")
}

// encode writes a value as JSON. It escapes characters that terminals obey or that
// change the direction of text: names come from devices.
func encode(w io.Writer, v any, indent string) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", indent)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(escapeUnseen(b.Bytes()))
	return err
}

// escapeUnseen escapes characters in JSON. It need not look for strings: JSON has
// characters beyond ASCII only there.
func escapeUnseen(text []byte) []byte {
	unseen := func(r rune) bool { return r >= 0x7f && (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)) }
	if !bytes.ContainsFunc(text, unseen) {
		return text
	}
	out := make([]byte, 0, len(text)+64)
	for _, r := range string(text) {
		if unseen(r) {
			out = fmt.Appendf(out, "\\u%04x", r)
		} else {
			out = utf8.AppendRune(out, r)
		}
	}
	return out
}

// plural returns a number with its noun.
func plural[N int | int64](n N, one string) string {
	return words.Plural(n, one)
}

// bytesText returns a size for people.
func bytesText(n int64) string {
	return words.Bytes(n)
}

// count returns a number with commas, as in 1,000.
func count(n int64) string {
	return words.Number(n)
}

func timeText(t time.Time) string {
	if t.IsZero() {
		return "unknown"
	}
	return t.Local().Format("2006-01-02 15:04")
}

// clean makes text from a device or repository safe for a terminal and a table by
// replacing control characters and tabs.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == utf8.RuneError || unicode.Is(unicode.Bidi_Control, r) {
			return '\uFFFD'
		}
		return r
	}, s)
}
