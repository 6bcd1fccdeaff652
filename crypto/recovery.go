package crypto

import (
	"encoding/base32"
	"errors"
	"fmt"
	"github.com/snap-backup/snap/crypto/blake"
	"io"
	"strings"
)

// A recovery key is 160 random bits and 20 bits of checksum, written as 36
// letters and digits of Crockford's base32 in six groups of six: short enough
// to copy by hand, and a slip of the pen is noticed before Argon2id runs.
const (
	recoveryBytes  = 20
	recoveryLength = 36
	recoveryGroup  = 6
)

var crockford = base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)

// ErrRecoveryTypo says that something looks like a recovery key but its
// checksum is wrong.
var ErrRecoveryTypo = errors.New("this looks like a recovery key, but there is a typing error in it")

// NewRecoveryKey draws a recovery key. The text is also the secret to make a
// slot with.
func NewRecoveryKey(rand io.Reader) (string, error) {
	b := make([]byte, recoveryBytes)
	if _, err := io.ReadFull(rand, b); err != nil {
		return "", fmt.Errorf("draw a recovery key: %w", err)
	}
	defer clear(b)
	return group(crockford.EncodeToString(b) + recoveryChecksum(b)), nil
}

// Secret returns the bytes that open a slot for what a person typed; a slot
// must be made with what it returns, too. Groups, case and look-alike letters
// of a recovery key do not matter. Anything else is taken as it is, but
// ErrRecoveryTypo is returned for what can hardly be a password: six groups of
// six with digits among them. A passphrase of six words of six letters is not
// such a thing.
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

// minRecoveryDigits is how many digits a text needs to be taken for a mistyped
// recovery key. One in 900 keys has fewer; it loses the better message only.
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
