package crypto

import (
	"encoding/base32"
	"errors"
	"fmt"
	"github.com/snap-backup/snap/crypto/blake"
	"io"
	"strings"
)

// A recovery key is 160 random bits and a checksum of 20 bits, written as 36 letters and
// digits of Crockford's base32 in six groups of six. It is short enough to copy by hand,
// and typing errors are found before Argon2id runs.
const (
	recoveryBytes  = 20
	recoveryLength = 36
	recoveryGroup  = 6
)

var crockford = base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)

// ErrRecoveryTypo says that a text looks like a recovery key but its checksum is wrong.
var ErrRecoveryTypo = errors.New("this looks like a recovery key, but it has a typing error")

// NewRecoveryKey returns a random recovery key. The text is also the secret for its
// slot.
func NewRecoveryKey(rand io.Reader) (string, error) {
	b := make([]byte, recoveryBytes)
	if _, err := io.ReadFull(rand, b); err != nil {
		return "", fmt.Errorf("draw a recovery key: %w", err)
	}
	defer clear(b)
	return group(crockford.EncodeToString(b) + recoveryChecksum(b)), nil
}

// Secret returns the secret of a slot for a text that a person typed. New slots must be
// made with the returned secret, too. Groups, case and look-alike letters of a recovery
// key do not matter. The error is ErrRecoveryTypo if the text looks like a mistyped
// recovery key: six groups of six with several digits. Any other text is returned
// unchanged, even a passphrase of six words of six letters.
func Secret(typed string) ([]byte, error) {
	s := strings.Map(func(r rune) rune {
		switch r {
		case ' ', '-', '\t':
			return -1
		case 'o', 'O':
			return '0'
		case 'i', 'I', 'l', 'L':
			return '1'
		}
		return r
	}, typed)
	s = strings.ToUpper(s)
	if len(s) != recoveryLength {
		return []byte(typed), nil
	}
	b, err := crockford.DecodeString(s[:recoveryLength-4])
	defer clear(b)
	switch {
	case err == nil && recoveryChecksum(b) == s[recoveryLength-4:]:
		return []byte(group(s)), nil
	case looksLikeRecovery(typed):
		return nil, ErrRecoveryTypo
	}
	return []byte(typed), nil
}

// ResemblesRecovery reports whether a text may be a recovery key with a typing error that
// Secret does not recognise: its groups are not separated as snap writes them. Such a text may
// be a password, too.
func ResemblesRecovery(typed string) bool {
	s := strings.Map(func(r rune) rune {
		if strings.ContainsRune(" -\t", r) {
			return -1
		}
		return r
	}, strings.TrimSpace(typed))
	return len(s) == recoveryLength && looksLikeRecovery(group(s))
}

// minRecoveryDigits is how many digits a text must have to look like a recovery key. One
// key in 900 has fewer, and gets a less helpful message if mistyped.
const minRecoveryDigits = 4

func looksLikeRecovery(typed string) bool {
	groups := strings.Split(strings.TrimSpace(typed), "-")
	if len(groups) != recoveryLength/recoveryGroup {
		return false
	}
	digits := 0
	for _, g := range groups {
		if len(g) != recoveryGroup {
			return false
		}
		for i := range len(g) {
			c := g[i] | 0x20
			switch {
			case '0' <= g[i] && g[i] <= '9':
				digits++
			case c < 'a' || c > 'z':
				return false
			}
		}
	}
	return digits >= minRecoveryDigits
}

// recoveryChecksum is the first 20 bits of the key's BLAKE3, as 4 letters.
func recoveryChecksum(b []byte) string {
	sum := blake.Sum(b)
	return crockford.EncodeToString(sum[:3])[:4]
}

func group(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); i += recoveryGroup {
		if i > 0 {
			out.WriteByte('-')
		}
		out.WriteString(s[i:min(i+recoveryGroup, len(s))])
	}
	return out.String()
}
