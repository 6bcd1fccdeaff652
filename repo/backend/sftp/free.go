package sftp

import (
	"context"
	"errors"
	"fmt"
	"math"
)

// Free implements [backend.Freer]. It returns the space available to users without
// privileges. The error is [errors.ErrUnsupported] if the server does not tell.
func (b *Backend) Free(ctx context.Context) (free int64, err error) {
	err = b.do(ctx, "measure free space", "", func(c *conn) error {
		if !c.has(statvfsExtension) {
			return fmt.Errorf("the server does not offer %s: %w", statvfsExtension, errors.ErrUnsupported)
		}
		v, err := c.client.StatVFS(b.config.Path)
		if code(err) == codeUnsupported {
			return fmt.Errorf("%w (%w)", errors.ErrUnsupported, err)
		}
		if err != nil {
			return err
		}
		if v.Blocks == 0 { // some file systems do not know their size
			return errors.ErrUnsupported
		}
		free = math.MaxInt64
		if v.Frsize > 0 && v.Bavail <= math.MaxInt64/v.Frsize {
			free = int64(v.Bavail * v.Frsize)
		}
		return nil
	})
	return free, err
}
