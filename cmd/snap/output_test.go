package main

import (
	"encoding/json"
	"io"
	"maps"
	"strings"
	"testing"
	"time"
	"unicode"
)

func TestWidth(t *testing.T) {
	for text, want := range map[string]int{
		"": 0, "Anna": 4, "Büro": 4, "Bu\u0308ro": 4, "電話": 4, "한국": 4, "ｆｕｌｌ": 8, "Büro-iPad 📱": 12,
		"👩‍👩‍👧": 2, "👍🏽": 2, "❤": 1, "❤️": 2, "🇩🇪": 2, "a\u200bb": 2, "…": 1, "’": 1,
	} {
		if got := width(text); got != want {
			t.Errorf("width(%q) = %d, want %d", text, got, want)
		}
	}
	for _, test := range []struct {
		text    string
		columns int
		want    string
	}{
		{"Anna", 4, "Anna"}, {"Anna", 3, "Ann"}, {"電話", 3, "電"}, {"Bu\u0308ro", 2, "Bu\u0308"}, {"a👩‍👩‍👧", 2, "a"}, {"Anna", 0, ""},
	} {
		if got := fit(test.text, test.columns); got != test.want {
			t.Errorf("fit(%q, %d) = %q, want %q", test.text, test.columns, got, test.want)
		}
	}
}

// TestJSONIsSafeToShow checks that JSON has no characters that a terminal obeys or that
// change the direction of text, and still means the same.
func TestJSONIsSafeToShow(t *testing.T) {
	given := map[string]string{"name": "a\x1b[2J\x7f\u0080\u009b31m\u009f\u202egpj\u2069\u200e\u061c\u2028Bü📱\n<&>\"\\"}
	for _, print := range []func(w io.Writer, v any){printLine, func(w io.Writer, v any) { _ = printJSON(w, v) }} {
		var out strings.Builder
		print(&out, given)
		text := strings.TrimSuffix(out.String(), "\n")
		if strings.ContainsFunc(text, func(r rune) bool { return r != '\n' && unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) }) || !strings.Contains(text, "Bü📱") {
			t.Errorf("got %q", text)
		}
		var got map[string]string
		if err := json.Unmarshal([]byte(text), &got); err != nil || !maps.Equal(got, given) {
			t.Errorf("%q: got %q, %v", text, got, err)
		}
	}
}

func TestTable(t *testing.T) {
	var out strings.Builder
	table(&out, "NAME\t>SIZE\tNOTE", []string{"電話\t5\t", "Anna’s iPhone\t1,000\tx"})
	const want = "" +
		"NAME            SIZE  NOTE\n" +
		"電話               5\n" +
		"Anna’s iPhone  1,000  x\n"
	if out.String() != want {
		t.Errorf("got\n%s", out.String())
	}
}

func TestBytesText(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1023 << 10: "1.0 MiB", 999 << 10: "999.0 KiB",
		5 << 30: "5.0 GiB", 1 << 62: "4.0 EiB", -2048: "-2.0 KiB",
	} {
		if got := bytesText(n); got != want {
			t.Errorf("bytesText(%d) = %q, want %q", n, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000", -100: "-100"} {
		if got := count(n); got != want {
			t.Errorf("count(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestClean(t *testing.T) {
	if got := clean("a\x1b[31m\tb\u202e\nc"); strings.ContainsAny(got, "\x1b\t\n\u202e") || !strings.HasPrefix(got, "a") {
		t.Errorf("got %q", got)
	}
}

func TestParseTime(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"2026-01-31": 24 * time.Hour, "2026-01-31 15:04": time.Minute, "2026-01-31T15:04": time.Minute,
		"2026-01-31 15:04:05": time.Second, "2026-01-31T15:04:05Z": time.Second,
	} {
		from, after, err := parseTime(text)
		if err != nil || after.Sub(from) != want || from.UTC().Year() != 2026 {
			t.Errorf("%s is from %v to %v: %v", text, from, after, err)
		}
	}
	for _, text := range []string{"yesterday", "2026-13-01", "31.1.2026"} {
		if _, _, err := parseTime(text); !isA[usageError](err) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
