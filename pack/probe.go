package pack

const (
	// Content of at least probeFrom bytes is probed before it is compressed, since most
	// bytes of a device are photos and films, which compression does not shrink. A
	// probe is probeCount samples of probeSize bytes, spread over the content.
	probeFrom  = 128 << 10
	probeCount = 8
	probeSize  = 4 << 10
)

// sample appends samples of content to dst.
func sample(dst, plain []byte) []byte {
	for i := range probeCount {
		at := i * (len(plain) - probeSize) / (probeCount - 1)
		dst = append(dst, plain[at:at+probeSize]...)
	}
	return dst
}

// uneven reports whether some bytes are so frequent that compression saves space for
// certain. It takes a small part of the time of compressing the samples. It returns false
// if only compressing can tell.
//
// Two random bytes of a sample are equal with a probability of 1/256 if all bytes are
// equally frequent, as in photos. Text, databases and programs have more than 1/128.
func uneven(samples []byte) bool {
	var counts [4][256]uint32 // four, so that equal bytes in a row do not wait for each other
	for b := samples; len(b) >= 4; b = b[4:] {
		counts[0][b[0]]++
		counts[1][b[1]]++
		counts[2][b[2]]++
		counts[3][b[3]]++
	}
	n, equal := uint64(len(samples)), uint64(0)
	for i := range 256 {
		c := uint64(counts[0][i] + counts[1][i] + counts[2][i] + counts[3][i])
		equal += c * c
	}
	return equal*128 > n*n
}
