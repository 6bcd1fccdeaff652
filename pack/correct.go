package pack

import (
	"encoding/binary"
	"slices"

	"github.com/snap-backup/snap/crypto"
)

// Correct returns the bytes of a pack as they were before a few bytes of it were changed
// (see crypto.Sealer.Correct), given what the index has of it. It returns nil if it does
// not find bytes that match the pack's name.
func Correct(file []byte, id ID, all []Block, blocks, packs *crypto.Sealer, thorough bool) []byte {
	right := slices.Clone(file)
	end := copy(right, magic)
	for i := range all {
		from := int(all[i].Offset)
		if end = from + int(all[i].Stored); end > len(right) || !correctPart(blocks, right[from:end], thorough) {
			return nil
		}
	}
	header := len(right) - trailerSize
	if header < end || !correctPart(packs, right[end:header], thorough) {
		return nil
	}
	binary.LittleEndian.PutUint32(right[header:], uint32(header-end))
	if Name(right) != id {
		return nil
	}
	return right
}

// correctPart corrects sealed bytes in place. It reports whether they are good now.
func correctPart(s *crypto.Sealer, sealed []byte, thorough bool) bool {
	if _, err := s.Open(nil, sealed, nil); err == nil {
		return true
	}
	right := s.Correct(sealed, nil, thorough)
	return right != nil && copy(sealed, right) == len(sealed)
}
