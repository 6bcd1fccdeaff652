package backend

import "context"

// Freer is a Backend that knows the free space of its store. A Backend that does not
// know has no such method, or returns [errors.ErrUnsupported].
type Freer interface {
	// Free returns how many bytes this process can put now. Other processes may
	// use the space.
	Free(ctx context.Context) (int64, error)
}
