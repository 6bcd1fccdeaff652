//go:build (!amd64 && !arm64) || purego

package aescbc

// accelerated says that the processor's instructions are used.
const accelerated = false

type roundKeys struct{}

type schedule struct{ encrypt, decrypt roundKeys }

func (s *schedule) expand(*[KeySize]byte) {}

type laneSet struct{}

func (s *laneSet) encrypt([]Lane) {}

func encryptBlocks(_ *roundKeys, _, _ *byte, _ int, _ *IV) {}

func decryptBlocks(_ *roundKeys, _, _ *byte, _ int, _ *IV) {}

func differ(_ *roundKeys, _, _ *byte, _ int, _ *IV) uint64 { return 1 }
