package main

import (
	"crypto/sha256"
	"math/rand/v2"
	"runtime"
	"time"

	"github.com/klauspost/compress/zstd"
)

const (
	calibrationSize   = 4 << 20
	calibrationRounds = 4
)

// newCalibration returns a function that does a fixed amount of work, and returns the
// CPU time that it took: SHA-256 and zstd of a fixed buffer. Hashing and compressing is
// most of what snap does, so both are fast or slow on the same machines.
func newCalibration() func() time.Duration {
	data := calibrationData()
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		panic(err) // the options are constant
	}
	out := make([]byte, 0, enc.MaxEncodedSize(len(data)))
	work := func() {
		for range calibrationRounds {
			sum := sha256.Sum256(data)
			data[0] = sum[0] // each round depends on the one before
			out = enc.EncodeAll(data, out[:0])
		}
	}
	work() // fills caches and allocates the tables of zstd
	return func() time.Duration {
		runtime.GC() // nothing remains that could be collected during the work
		begin := ownCPU()
		work()
		return ownCPU() - begin
	}
}

// calibrationData returns a buffer that compresses to about half of its size.
func calibrationData() []byte {
	random := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 0, calibrationSize)
	for len(data) < calibrationSize {
		if n := len(data); n > 1000 && random.IntN(2) == 0 {
			from := random.IntN(n - 100)
			data = append(data, data[from:from+8+random.IntN(60)]...)
			continue
		}
		for range 24 {
			data = append(data, byte(random.IntN(200)))
		}
	}
	return data[:calibrationSize]
}
