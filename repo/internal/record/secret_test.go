package record

import (
	"crypto/rand"
	"fmt"
	"strings"
	"testing"

	"github.com/snap-backup/snap/crypto"
)

// FuzzDevicePassword seals arbitrary bytes, then opens and parses them.
func FuzzDevicePassword(f *testing.F) {
	sealer := crypto.NewSealer(crypto.Key{1}, rand.Reader)
	for _, body := range []string{
		`{"version":1,"udid":"a","password":"c2VjcmV0","added":"2026-01-01T00:00:00Z"}`, `{"version":2}`, `{}`, ``, `[]`,
		`{"version":1,"password":7}`, `{"version":1,"password":"c2VjcmV0","added":"yesterday"}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		sealed, err := sealer.Seal([]byte(secretMagic), body, nil)
		if err != nil {
			t.Skip()
		}
		p, err := openSecret(sealed, sealer)
		if err == nil && fmt.Sprint(p) != fmt.Sprintf("DevicePassword(%s, hidden)", p.UDID) {
			t.Errorf("printed as %v", p)
		}
		if err != nil && len(body) > 40 && strings.Contains(err.Error(), string(body[20:40])) {
			t.Errorf("the error quotes the file: %v", err)
		}
	})
}
