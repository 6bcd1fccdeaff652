package synthetic

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
)

// stream is a named random stream. Streams with different names are independent, so
// that the content of a file does not depend on other files. A stream does not use
// floating point, whose results differ between processors.
type stream struct {
	*rand.Rand
	src *rand.ChaCha8
}

// newStream returns the stream of a seed and a name. The name consists of parts, which
// are strings and integers.
func newStream(seed uint64, parts ...any) stream {
	h := sha256.New()
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], seed)
	h.Write(b[:])
	for _, part := range parts {
		switch v := part.(type) {
		case string:
			binary.LittleEndian.PutUint64(b[:], uint64(len(v)))
			h.Write(b[:])
			h.Write([]byte(v))
		case int:
			binary.LittleEndian.PutUint64(b[:], uint64(v))
			h.Write([]byte{'i'})
			h.Write(b[:])
		default:
			panic(fmt.Sprintf("synthetic: stream name of type %T", part))
		}
	}
	src := rand.NewChaCha8([32]byte(h.Sum(nil)))
	return stream{Rand: rand.New(src), src: src}
}

// Read fills p with random bytes. It makes the stream an endless io.Reader.
func (s stream) Read(p []byte) (int, error) { return s.src.Read(p) }

func (s stream) bytes(n int) []byte {
	b := make([]byte, n)
	_, _ = s.src.Read(b)
	return b
}

func (s stream) between(low, high int) int {
	if high <= low {
		return low
	}
	return low + s.IntN(high-low)
}

// skewed draws a number from [low, high). Small numbers are much more frequent than
// large ones.
func (s stream) skewed(low, high int) int {
	return low + s.IntN(s.between(0, high-low)+1)
}

func (s stream) uuid() string {
	b := s.bytes(16)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return strings.ToUpper(fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]))
}

func (s stream) hex(bytes int) string { return hex.EncodeToString(s.bytes(bytes)) }

func pick[T any](s stream, list []T) T { return list[s.IntN(len(list))] }
