package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/snap-backup/snap/crypto/blake"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/replace"
	"golang.org/x/sync/errgroup"
)

// copyAll copies files of one class to the target. src and dst are the files of this
// class in the source and on the target.
func (m *mirrorer) copyAll(ctx context.Context, names []string, src, dst map[string]int64) error {
	return m.forEach(ctx, names, func(ctx context.Context, name string) error {
		_, replace := dst[name]
		return m.copyFile(ctx, name, src[name], replace)
	})
}

// readAll reads files of one class and reports damaged ones.
func (m *mirrorer) readAll(ctx context.Context, names []string, src, dst map[string]int64) error {
	return m.forEach(ctx, names, func(ctx context.Context, name string) error {
		var damage error
		if err := m.read(ctx, m.source, name, src[name], func(_ []byte, why error) error { damage = why; return nil }); err != nil {
			return err
		}
		if damage == nil {
			return nil
		}
		_, onTarget := dst[name]
		return m.reportDamage(ctx, name, damage, src[name], onTarget)
	})
}

// forEach calls fn for all names, in several goroutines.
func (m *mirrorer) forEach(ctx context.Context, names []string, fn func(ctx context.Context, name string) error) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(m.opts.Workers)
	for _, name := range names {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error { return fn(gctx, name) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// moveAside moves away what is not a file and has the name of one, such as a folder, which
// could not be removed.
func (m *mirrorer) moveAside(ctx context.Context, name string) error {
	aside, err := replace.MoveAside(ctx, m.target, name)
	if err != nil {
		return fmt.Errorf("target: %w", err)
	}
	if aside != "" {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.report.Aside = aside
	}
	return nil
}

// copyFile copies a file if it is good. If again is set, the target has a damaged
// file of that name, which is replaced.
func (m *mirrorer) copyFile(ctx context.Context, name string, size int64, again bool) error {
	var damage error
	err := m.read(ctx, m.source, name, size, func(b []byte, why error) error {
		if damage = why; damage != nil {
			return nil
		}
		if again {
			if err := m.moveAside(ctx, name); err != nil {
				return err
			}
			if err := m.target.Delete(ctx, name); err != nil && !errors.Is(err, backend.ErrNotExist) {
				return fmt.Errorf("target: %w", err)
			}
		}
		if err := m.target.Put(ctx, name, b); err != nil && !errors.Is(err, backend.ErrExist) {
			return fmt.Errorf("target: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if damage != nil {
		return m.reportDamage(ctx, name, damage, size, again)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.advance(size)
	m.report.CopiedFiles++
	m.report.CopiedBytes += size
	if again {
		m.report.HealedFiles++
	}
	return nil
}

// reportDamage notes a damaged file of the source. onTarget says whether the target has
// a file of that name.
func (m *mirrorer) reportDamage(ctx context.Context, name string, damage error, size int64, onTarget bool) error {
	good := false
	if onTarget {
		var err error
		if good, err = m.isGood(ctx, name); err != nil {
			return fmt.Errorf("target: %w", err)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.advance(size)
	if good {
		damage = fmt.Errorf("%w; the target has a good copy", damage)
	} else {
		m.lacking[name] = true
		damage = fmt.Errorf("%w%s", damage, remedy(name))
	}
	m.damaged(name, damage)
	return nil
}

// remedy says what helps against a damaged file of the source if no copy of it is good.
func remedy(name string) string {
	switch folder, _, _ := strings.Cut(name, "/"); folder + "/" {
	case layout.PacksDir:
		return "; if \"snap check --read-data\" names no file that needs it, \"snap prune\" removes it"
	case layout.IndexDir:
		return "; \"snap repair index\" replaces it"
	case layout.ParityDir:
		return "; \"snap parity\" puts new parity in its place"
	case layout.ConfigsDir:
		return "; \"snap repair config\" removes it, and puts back what is missing"
	}
	return ""
}

// advance counts a file as done. The caller holds m.mu.
func (m *mirrorer) advance(size int64) {
	m.progress.Files++
	m.progress.Bytes += size
	if m.opts.Progress != nil {
		m.opts.Progress(m.progress)
	}
}

// isGood reports whether the target's copy of a file has the hash of its name.
func (m *mirrorer) isGood(ctx context.Context, name string) (bool, error) {
	info, err := m.target.Stat(ctx, name)
	if err != nil {
		return false, err
	}
	good := false
	err = m.read(ctx, m.target, name, info.Size, func(_ []byte, damage error) error { good = damage == nil; return nil })
	return good, err
}

// read reads a file and calls fn. If the file is good, fn gets its bytes, which
// are valid until fn returns. If it is damaged or cannot be read, fn gets the reason. If it
// does not exist, read returns errChanged.
func (m *mirrorer) read(ctx context.Context, be backend.Backend, name string, size int64, fn func(b []byte, damage error) error) error {
	if size > layout.MaxFileSize {
		return fn(nil, fmt.Errorf("it has %d bytes, more than allowed", size))
	}
	weight := min(size, inFlight)
	if err := m.memory.Acquire(ctx, weight); err != nil {
		return err
	}
	defer m.memory.Release(weight)
	buf, _ := m.buffers.Get().(*[]byte)
	if buf == nil {
		buf = new([]byte)
	}
	defer m.buffers.Put(buf)
	if int64(cap(*buf)) < size {
		*buf = make([]byte, size)
	}
	b := (*buf)[:size]
	n, err := be.ReadAt(ctx, name, b, 0)
	if err != nil && ctx.Err() == nil && backend.Unreadable(ctx, be, err) {
		n, err = be.ReadAt(ctx, name, b, 0) // a file server may have moved it
	}
	switch {
	case errors.Is(err, backend.ErrNotExist):
		return errChanged
	case err != nil && n < len(b) && isEnd(err):
		return fn(nil, fmt.Errorf("it ends after %d of %d bytes", n, size))
	case err == nil && n < len(b):
		return fn(nil, fmt.Errorf("only %d of %d bytes can be read", n, size))
	case err != nil && n < len(b) && backend.Unreadable(ctx, be, err):
		return fn(nil, fmt.Errorf("it cannot be read: %w", err))
	case err != nil && n < len(b):
		return fmt.Errorf("read %s: %w", name, err)
	}
	want, hashed := hashOf(name)
	if !hashed {
		return fn(b, nil)
	}
	h, _ := m.hashers.Get().(*blake.Hasher)
	if h == nil {
		h = blake.New()
	}
	got := h.Sum(b)
	m.hashers.Put(h)
	if got != want {
		return fn(nil, errors.New("its bytes do not have the hash that is its name"))
	}
	return fn(b, strange(name, b))
}

func isEnd(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }
