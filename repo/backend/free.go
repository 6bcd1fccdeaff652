package backend

import "context"

// Freer is a Backend that knows the free space of its store. A Backend that does not
// know it has no such method, or returns [errors.ErrUnsupported].
type Freer interface {
	// Free returns the number of bytes that this process can put now. Other processes
	// may take some of this space at any time.
	Free(ctx context.Context) (int64, error)
}
