package password

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"unicode/utf8"
)

const (
	composed   = "p\u00e4ssw\u00f6rd"
	decomposed = "pa\u0308sswo\u0308rd"
	half       = "p\u00e4sswo\u0308rd" // neither of the two forms
)

func TestForms(t *testing.T) {
	for given, want := range map[string][]string{
		"":                  {""},
		"correct horse":     {"correct horse"},
		composed:            {composed, decomposed},
		decomposed:          {decomposed, composed},
		half:                {half, composed, decomposed},
		"\u6f22\u5b57":      {"\u6f22\u5b57"},
		"\xe4 Latin-1":      {"\xe4 Latin-1"},
		"\u212b":            {"\u212b", "\u00c5", "A\u030a"}, // the ångström sign, which NFC replaces by the letter Å
		"\uac00":            {"\uac00", "\u1100\u1161"},
		"\ufb01 and \u2460": {"\ufb01 and \u2460"}, // compatible characters stay what they are
	} {
		var got []string
		for _, f := range Forms([]byte(given)) {
			got = append(got, string(f))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", given, got, want)
		}
	}
	for given, want := range map[string]string{"": "", "a": "a", composed: composed, decomposed: composed, half: composed, "\xe4": "\xe4"} {
		if got := Normal([]byte(given)); string(got) != want {
			t.Errorf("normal form of %q: got %q, want %q", given, got, want)
		}
	}
}

func TestClear(t *testing.T) {
	given := []byte(half)
	forms := Forms(given)
	Clear(forms)
	if string(given) != half || bytes.ContainsFunc(slices.Concat(forms[1:]...), func(r rune) bool { return r != 0 }) {
		t.Errorf("after Clear: %q", forms)
	}
	Clear(nil)
}

func TestFirstLine(t *testing.T) {
	for file, want := range map[string]string{
		"":                                    "",
		"pw":                                  "pw",
		"pw\n":                                "pw",
		"pw\r\nother":                         "pw",
		"pw\n\x00 binary":                     "pw",
		" pw \n":                              " pw ",
		"\n":                                  "",
		"\xef\xbb\xbfpw\r\n":                  "pw",
		"\xef\xbb\xbf":                        "",
		"\xff\xfep\x00w\x00":                  "pw",
		"\xff\xfep\x00w\x00\r\x00\n\x00x\x00": "pw",
		"\xfe\xff\x00p\x00w\x00\n":            "pw",
		"\xff\xfe\xe4\x00":                    "\u00e4",
		"\xfe\xff\xd8\x3d\xde\x00":            "\U0001f600",
		"\xff\xfe":                            "",
		"p\xe4ss\n":                           "p\xe4ss",
	} {
		if got, err := FirstLine([]byte(file)); err != nil || string(got) != want {
			t.Errorf("%q: got %q, %v, want %q", file, got, err, want)
		}
	}
	for _, file := range []string{"p\x00w\n", "p\x00w\x00", "\xff\xfep\x00w", "\xff\xfe\x00\xd8p\x00", "\xfe\xff\x00\x00"} {
		if got, err := FirstLine([]byte(file)); !errors.Is(err, ErrNotText) {
			t.Errorf("%q: got %q, %v", file, got, err)
		}
	}
}

func TestText(t *testing.T) {
	for value, want := range map[string]string{
		"": "", "pw": "pw", "pw\r": "pw\r", "p\nw\n": "p\nw\n", "\xef\xbb\xbfpw": "pw", "\xff\xfep\x00w\x00": "pw",
	} {
		if got, err := Text([]byte(value)); err != nil || string(got) != want {
			t.Errorf("%q: got %q, %v, want %q", value, got, err, want)
		}
	}
	if got, err := Text([]byte("p\x00w")); !errors.Is(err, ErrNotText) {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestNewPasswords(t *testing.T) {
	for _, good := range []string{"", "pw", composed, decomposed, "with\ttab", "\U0001f600"} {
		if err := CheckNew([]byte(good)); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"pw\r", "p\x00w", "p\xe4", "\x1b[A", "a\nb", "\u0085"} {
		if err := CheckNew([]byte(bad)); !errors.Is(err, ErrNotText) {
			t.Errorf("%q: %v", bad, err)
		}
		if IsTypable([]byte(bad)) {
			t.Errorf("%q is typable", bad)
		}
	}
	if IsTypable([]byte("\ufeffpw")) || !IsTypable([]byte(composed)) {
		t.Error("what is typable")
	}
}

func FuzzForms(f *testing.F) {
	for _, s := range []string{composed, decomposed, half, "\xff\xfep\x00w\x00", "\xef\xbb\xbfpw"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		if line, err := FirstLine(b); err == nil && bytes.ContainsAny(line, "\n\x00") {
			t.Errorf("the first line of %q is %q", b, line)
		}
		forms := Forms(b)
		if !bytes.Equal(b, before) || !bytes.Equal(forms[0], b) || len(forms) > 3 {
			t.Fatalf("forms of %q: %q", before, forms)
		}
		// Whatever form of a password is typed, Forms must include its normal form.
		for _, typed := range forms {
			if again := Forms(typed); !slices.ContainsFunc(again, func(f []byte) bool { return bytes.Equal(f, Normal(b)) }) {
				t.Errorf("%q typed as %q is not tried as %q", b, typed, Normal(b))
			}
		}
		if utf8.Valid(b) != utf8.Valid(Normal(b)) {
			t.Errorf("normal form of %q: %q", b, Normal(b))
		}
	})
}
