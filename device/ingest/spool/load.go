package spool

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/snap-backup/snap/crypto/blake"
)

// Load reads the spool of an interrupted backup and returns its complete files
// by path. It reads all content, which can take minutes.
func (s *Spool) Load(ctx context.Context) (map[string]Line, error) {
	kept, err := s.loadIndex()
	if err != nil {
		return nil, err
	}
	info, err := s.data.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the spool: %w", err)
	}
	for path, l := range kept {
		if l.Offset > info.Size() || l.Size > info.Size()-l.Offset {
			delete(kept, path)
			continue
		}
		h := blake.NewStream()
		n, err := io.Copy(h, untilDone{ctx, io.NewSectionReader(s.data, l.Offset, l.Size)})
		if ctx.Err() != nil {
			return nil, fmt.Errorf("read the spool: %w", context.Cause(ctx))
		}
		if err != nil || n != l.Size || string(h.Sum(nil)) != string(l.Sum) {
			delete(kept, path)
			continue
		}
		s.end = max(s.end, l.Offset+l.Size)
	}
	s.written = s.end
	return kept, nil
}

// loadIndex reads the index. It cuts off an incomplete last line, so that the
// next line is not appended to it.
func (s *Spool) loadIndex() (map[string]Line, error) {
	kept := map[string]Line{}
	in := bufio.NewReaderSize(io.NewSectionReader(s.index, 0, math.MaxInt64), 64<<10)
	valid := int64(0) // length of the valid lines, in bytes
	for {
		line, err := in.ReadSlice('\n')
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, fmt.Errorf("read the index of the spool: %w", err)
		}
		var l Line
		if err != nil || json.Unmarshal(line, &l) != nil || l.Offset < 0 || l.Size < 0 {
			break
		}
		valid += int64(len(line))
		if l.Removed {
			delete(kept, l.Path)
			continue
		}
		kept[l.Path] = l
	}
	if err := s.index.Truncate(valid); err != nil {
		return nil, fmt.Errorf("read the index of the spool: %w", err)
	}
	s.indexed = valid
	return kept, nil
}

// untilDone is a reader that fails when its context ends.
type untilDone struct {
	ctx context.Context
	r   io.Reader
}

func (u untilDone) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(p)
}
