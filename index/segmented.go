package index

// segmented is an array that grows without copying. Its unused memory is at most one
// segment.
type segmented[T any] struct {
	segs [][]T
	n    int
}

// segmentSize is the number of elements of a segment. With this number, segments of all
// element types fill the memory that Go allocates for them.
const segmentSize = 1 << 11

func (s *segmented[T]) len() int { return s.n }

func (s *segmented[T]) at(i int) *T { return &s.segs[i/segmentSize][i%segmentSize] }

func (s *segmented[T]) append(v T) {
	if s.n == len(s.segs)*segmentSize {
		s.segs = append(s.segs, make([]T, segmentSize))
	}
	s.n++
	*s.at(s.n - 1) = v
}

func (s *segmented[T]) memory(size int) int { return len(s.segs) * segmentSize * size }
