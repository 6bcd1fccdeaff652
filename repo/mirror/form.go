package mirror

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"

	"github.com/snap-backup/snap/repo/internal/layout"
)

var errStrange = errors.New("it does not begin like a file of its folder: it is a counterfeit, or was stored here by mistake")

// strange says why bytes that have the hash in their name cannot be a file of its folder.
// That is all that can be seen without a key.
func strange(name string, b []byte) error {
	folder, _, _ := strings.Cut(name, "/")
	magic, known := layout.Magic(folder + "/")
	switch {
	case known && !bytes.HasPrefix(b, []byte(magic)),
		folder+"/" == layout.KeysDir && !json.Valid(b):
		return errStrange
	}
	return nil
}
