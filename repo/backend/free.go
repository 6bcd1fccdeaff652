package backend

import "context"

// Freer is a Backend that knows how much room its store has. A Backend that
// does not know has no such method, or returns [errors.ErrUnsupported].
type Freer interface {
	// Free returns how many bytes this process may still put. It is a picture
	// of the moment: others use the store, too.
	Free(ctx context.Context) (int64, error)
}
