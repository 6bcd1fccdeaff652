package child

import (
	"slices"
	"strings"
	"testing"
)

func TestSplitWords(t *testing.T) {
	tests := []struct {
		s    string
		want []string
	}{
		{"", nil},
		{"  ssh   nas\t-s sftp\n", []string{"ssh", "nas", "-s", "sftp"}},
		{`ssh -i "my key" -o 'A "b"' x\ y "a\"b" '' ""z`, []string{"ssh", "-i", "my key", "-o", `A "b"`, "x y", `a"b`, "", "z"}},
		{`'C:\ssh.exe' a`, []string{`C:\ssh.exe`, "a"}},
	}
	for _, tt := range tests {
		if got, err := SplitWords(tt.s); err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("SplitWords(%q) = %q, %v, want %q", tt.s, got, err, tt.want)
		}
	}
	for _, s := range []string{`a "b`, `a 'b`, `a\`} {
		if got, err := SplitWords(s); err == nil {
			t.Errorf("SplitWords(%q) = %q", s, got)
		}
	}
}

func FuzzSplitWords(f *testing.F) {
	f.Add(`ssh -i "my key" 'a b' c\ d`)
	f.Fuzz(func(t *testing.T, s string) {
		words, err := SplitWords(s)
		if err != nil {
			return
		}
		var quoted []string
		for _, w := range words {
			quoted = append(quoted, "'"+strings.ReplaceAll(w, "'", `'\''`)+"'")
		}
		again, err := SplitWords(strings.Join(quoted, " "))
		if err != nil || !slices.Equal(again, words) {
			t.Fatalf("%q has the words %q; quoted, they are %q, %v", s, words, again, err)
		}
	})
}
