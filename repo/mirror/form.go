package mirror

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"

	"github.com/snap-backup/snap/repo/internal/layout"
)

var errStrange = errors.New("it does not begin like a file of its folder: it is a counterfeit, or was stored here by mistake")

// strange returns an error if bytes do not begin like the files of the folder in name.
// Besides the hash, this is all that can be checked without a key.
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
