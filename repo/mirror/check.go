package mirror

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/snap-backup/snap/repo/backend"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

// CheckReport says how a mirror compares with its source.
type CheckReport struct {
	Files   int64    `json:"files"` // files of the target; Check reads all
	Bytes   int64    `json:"bytes"`
	Damaged []Damage `json:"damaged"` // damaged files of the target that were not healed
	Healed  []string `json:"healed"`  // files that were damaged and were replaced
	Missing []string `json:"missing"` // files of the source that the target lacks
	Extra   []string `json:"extra"`   // files that only the target has
}

// Clean reports whether every file of the target is good.
func (r *CheckReport) Clean() bool { return len(r.Damaged) == 0 }

// Same reports whether the target has the files of the source and no others.
func (r *CheckReport) Same() bool { return len(r.Missing)+len(r.Extra) == 0 }

// Check reads every file of a mirror and compares it with the hash in its name.
// It also compares the names of the mirror's files with those of the source. It
// uses the options Workers, Progress and Heal. Without Heal it changes nothing.
func Check(ctx context.Context, source, target backend.Backend, opts Options) (*CheckReport, error) {
	if opts.Workers <= 0 {
		opts.Workers = 2
	}
	m := &mirrorer{source: source, target: target, opts: opts, memory: semaphore.NewWeighted(inFlight), report: &Report{}}
	dst, err := list(ctx, target)
	if err != nil {
		return nil, fmt.Errorf("target: %w", err)
	}
	src, err := list(ctx, source)
	if err != nil {
		return nil, fmt.Errorf("source: %w", err)
	}
	if len(dst[config]) == 0 && len(dst[keys])+len(dst[packs]) == 0 {
		return nil, &RefusedError{"the target is no mirror: it has no repository", "make a mirror first, without --check"}
	}
	if err := m.sameRepository(ctx, &src, &dst); err != nil {
		return nil, err
	}
	out := &CheckReport{Damaged: []Damage{}, Healed: []string{}, Missing: []string{}, Extra: []string{}}
	out.Files, out.Bytes = dst.total()
	m.progress.TotalFiles, m.progress.TotalBytes = out.Files, out.Bytes
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(opts.Workers)
	for c := range classes {
		out.Missing = append(out.Missing, slices.Collect(maps.Keys(without(src[c], dst[c])))...)
		out.Extra = append(out.Extra, slices.Collect(maps.Keys(without(dst[c], src[c])))...)
		for _, name := range slices.Sorted(maps.Keys(dst[c])) {
			if gctx.Err() != nil {
				break
			}
			g.Go(func() error { return m.checkFile(gctx, out, name, dst[c][name]) })
		}
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	m.opts.Progress = nil // progress counts only reading
	slices.Sort(out.Missing)
	slices.Sort(out.Extra)
	slices.SortFunc(out.Damaged, func(a, b Damage) int { return slices.Compare([]byte(a.File), []byte(b.File)) })
	if opts.Heal {
		err = m.heal(ctx, &src, out)
	}
	return out, errors.Join(err, ctx.Err())
}

// heal replaces damaged files by good ones of the source.
func (m *mirrorer) heal(ctx context.Context, src *listing, out *CheckReport) error {
	var left []Damage
	for _, d := range out.Damaged {
		size, exists := src.size(d.File)
		if !exists {
			left = append(left, d)
			continue
		}
		m.lacking = 0
		if err := m.copyFile(ctx, d.File, size, true); err != nil && !errors.Is(err, errChanged) {
			return err
		}
		if m.lacking > 0 {
			d.Text += "; the source's copy is damaged as well"
			left = append(left, d)
			continue
		}
		out.Healed = append(out.Healed, d.File)
	}
	out.Damaged = append([]Damage{}, left...)
	return nil
}

func (m *mirrorer) checkFile(ctx context.Context, out *CheckReport, name string, size int64) error {
	var bad string
	err := m.read(ctx, m.target, name, size, func(_ []byte, damage string) error { bad = damage; return nil })
	if errors.Is(err, errChanged) {
		bad, err = "it disappeared during the check", nil
	}
	if err != nil {
		return fmt.Errorf("target: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if bad != "" {
		out.Damaged = append(out.Damaged, Damage{name, bad})
	}
	m.progress.Files++
	m.progress.Bytes += size
	if m.opts.Progress != nil {
		m.opts.Progress(m.progress)
	}
	return nil
}
