package devicefiles

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/snap-backup/snap/device/mobilesync/manifest"
)

// Verify compares the backup folder dir, encrypted or not, with the content of a
// device: the files, folders and links, with their bytes and metadata. It returns
// the first differences that it finds.
func Verify(ctx context.Context, source Source, dir string, password []byte) ([]string, error) {
	b, err := OpenFolder(ctx, dir, password)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	c := &comparison{ctx: ctx}
	problems, err := b.backup.Problems(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range problems {
		c.differ("%s", p.Text)
	}
	if err := c.compare(source, b); err != nil {
		return nil, err
	}
	return c.found, nil
}

const maxDifferences = 20

type comparison struct {
	ctx   context.Context
	found []string
}

func (c *comparison) differ(format string, args ...any) {
	if len(c.found) < maxDifferences {
		c.found = append(c.found, fmt.Sprintf(format, args...))
	}
}

func (c *comparison) compare(want, have Source) error {
	a, err := want.Records(c.ctx)
	if err != nil {
		return err
	}
	b, err := have.Records(c.ctx)
	if err != nil {
		return err
	}
	if a.Len() != b.Len() {
		c.differ("%d records, want %d", b.Len(), a.Len())
	}
	for _, rec := range a.All() {
		i, ok := b.ByFileID(rec.FileID)
		if !ok {
			c.differ("%s/%s is missing", rec.Domain, rec.RelativePath)
			continue
		}
		other := b.At(i)
		if !SameMetadata(&rec, &other) {
			c.differ("%s/%s differs in metadata", rec.Domain, rec.RelativePath)
		}
		if !rec.IsFile() {
			continue
		}
		same, err := SameBytes(c.ctx, want, &rec, have, &other)
		if err != nil {
			c.differ("%s/%s: %v", rec.Domain, rec.RelativePath, err)
		} else if !same {
			c.differ("%s/%s differs in content", rec.Domain, rec.RelativePath)
		}
	}
	return nil
}

// SameMetadata compares two records. It ignores the fields that a backup changes:
// keys, digests, inode and change time.
func SameMetadata(a, b *manifest.Record) bool {
	return a.Domain == b.Domain && a.RelativePath == b.RelativePath && a.Flags == b.Flags && a.Mode == b.Mode && a.Size == b.Size &&
		a.ModTime == b.ModTime && a.Birth == b.Birth && a.UserID == b.UserID && a.GroupID == b.GroupID && a.BSDFlags == b.BSDFlags &&
		a.ProtectionClass == b.ProtectionClass && a.Target == b.Target
}

// SameBytes compares the contents of two files.
func SameBytes(ctx context.Context, a Source, ra *manifest.Record, b Source, rb *manifest.Record) (bool, error) {
	x, err := a.Open(ra)
	if err != nil {
		return false, err
	}
	defer x.Close()
	y, err := b.Open(rb)
	if err != nil {
		return false, err
	}
	defer y.Close()
	var p, q [32 << 10]byte
	for {
		n, errX := io.ReadFull(ctxReader{ctx, x}, p[:])
		m, errY := io.ReadFull(y, q[:])
		if !bytes.Equal(p[:n], q[:m]) {
			return false, nil
		}
		if errX != nil || errY != nil {
			return ended(errX) && ended(errY), errors.Join(failed(errX), failed(errY))
		}
	}
}

func ended(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

func failed(err error) error {
	if err == nil || ended(err) {
		return nil
	}
	return err
}
