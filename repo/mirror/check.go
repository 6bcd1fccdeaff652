package mirror

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
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
	Extra   []string `json:"extra"`   // files that only the target has and that no run knows, except certificates that were made there
	// Judged says whether the key has judged the target: everything on it opens, and
	// every snapshot is whole, except what Damaged lists.
	Judged bool `json:"judged"`
	// SourceDamaged lists damaged files of the source. The target rightly lacks them,
	// since they do not open.
	SourceDamaged []Damage `json:"source_damaged"`
	// Kept are files that the source has removed and that stay on the target for now.
	Kept    int64 `json:"kept_files"`
	OldKeys int64 `json:"old_keys"` // key slots that only the target has
}

// Clean reports whether every file of the target is good.
func (r *CheckReport) Clean() bool { return len(r.Damaged) == 0 }

// Same reports whether the target has the files of the source and no others, except those
// that it keeps for now.
func (r *CheckReport) Same() bool { return len(r.Missing)+len(r.Extra) == 0 }

// Check reads every file of a mirror and compares it with the hash in its name. With a
// judge, it also finds out what opens. It compares the names of the mirror's files with
// those of the source. It uses the options Workers, Progress, Judge and Heal. Without Heal
// it changes nothing.
func Check(ctx context.Context, source, target backend.Backend, opts Options) (*CheckReport, error) {
	if opts.Workers <= 0 {
		opts.Workers = 2
	}
	m := &mirrorer{source: source, target: target, opts: opts, memory: semaphore.NewWeighted(inFlight), report: &Report{}, lacking: map[string]bool{}}
	r, err := m.newRound(ctx)
	if err != nil {
		return nil, err
	}
	if len(r.dst[config]) == 0 && len(r.dst[keys])+len(r.dst[packs]) == 0 {
		return nil, &RefusedError{"the target is no mirror: it has no repository", "make a mirror first: \"snap mirror TARGET\""}
	}
	if err := r.settleConfig(ctx); err != nil {
		return nil, err
	}
	out := &CheckReport{Damaged: []Damage{}, Healed: []string{}, Missing: []string{}, Extra: []string{}, SourceDamaged: []Damage{}, Judged: opts.Judge != nil}
	out.SourceDamaged = append(out.SourceDamaged, m.report.Damaged...) // config
	out.Files, out.Bytes = r.dst.total()
	m.progress.TotalFiles, m.progress.TotalBytes = out.Files, out.Bytes
	r.compare(out)
	if err := m.checkFiles(ctx, out, &r.dst); err != nil {
		return nil, err
	}
	m.opts.Progress = nil // progress counts only reading
	if opts.Heal {
		if err := m.heal(ctx, &r.src, out); err != nil {
			return out, err
		}
	}
	if err := r.checkConfig(ctx, out); err != nil {
		return out, err
	}
	if opts.Judge != nil {
		err = r.judgeMirror(ctx, out)
	}
	return out, errors.Join(err, ctx.Err())
}

// checkConfig reports or heals a damaged config of the target.
func (r *round) checkConfig(ctx context.Context, out *CheckReport) error {
	switch {
	case !r.config.replace:
		return nil
	case !r.opts.Heal:
		out.Damaged = append(out.Damaged, damage(layout.ConfigName, r.config.why))
		return nil
	}
	if err := r.copyConfig(ctx); err != nil {
		return err
	}
	out.Healed = append(out.Healed, layout.ConfigName)
	return nil
}

// compare compares the names of both stores.
func (r *round) compare(out *CheckReport) {
	for c := range classes {
		for name := range onlyIn(r.src[c], r.dst[c]) {
			if r.isNew(c, name) {
				out.Missing = append(out.Missing, name)
			}
		}
	}
	for _, c := range []class{packs, indexes, records} {
		extra := r.sinceLast(c)
		out.Extra = append(out.Extra, slices.Collect(maps.Keys(extra))...)
		out.Kept += int64(len(r.left(c)) - len(extra))
	}
	out.OldKeys = int64(len(r.oldSlots()))
	slices.Sort(out.Missing)
	slices.Sort(out.Extra)
}

// checkFiles reads the files of the target.
func (m *mirrorer) checkFiles(ctx context.Context, out *CheckReport, dst *listing) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(m.opts.Workers)
	for c := range classes {
		for _, name := range slices.Sorted(maps.Keys(dst[c])) {
			if gctx.Err() != nil {
				break
			}
			if class(c) == config {
				m.count(dst[c][name]) // see checkConfig
				continue
			}
			g.Go(func() error { return m.checkFile(gctx, out, name, dst[c][name]) })
		}
	}
	err := g.Wait()
	slices.SortFunc(out.Damaged, byFile)
	return err
}

// count counts a file as read.
func (m *mirrorer) count(size int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.advance(size)
}

func byFile(a, b Damage) int { return strings.Compare(a.File, b.File) }

// judgeMirror judges the target with the key, and what it lacks of the source.
func (r *round) judgeMirror(ctx context.Context, out *CheckReport) error {
	now, err := list(ctx, r.target)
	if err != nil {
		return fmt.Errorf("target: %w", err)
	}
	known := map[string]bool{}
	for _, d := range out.Damaged {
		known[d.File] = true
	}
	names := slices.DeleteFunc(now.judgeable(), func(name string) bool { return known[name] })
	v, err := r.opts.Judge.Files(ctx, viewOf(part{r.target, now[:]}), names)
	if err != nil {
		return fmt.Errorf("target: %w", err)
	}
	for name, why := range v.Closed {
		help := ""
		if strings.HasPrefix(name, layout.ConfigsDir) {
			help = "; \"snap -r TARGET repair config\" removes it"
		}
		out.Damaged = append(out.Damaged, damage(name, fmt.Errorf("the repository's key does not open it: %w%s", why, help)))
	}
	for name, why := range v.Broken {
		out.Damaged = append(out.Damaged, damage(name, why))
	}
	slices.SortFunc(out.Damaged, byFile)
	if err := r.checkMissing(ctx, out); err != nil {
		return err
	}
	lacks := slices.DeleteFunc(r.src.judgeable(), func(name string) bool { return !slices.Contains(out.Missing, name) })
	if len(lacks) == 0 {
		return nil
	}
	if v, err = r.opts.Judge.Files(ctx, viewOf(part{r.source, r.src[:]}), lacks); err != nil {
		return fmt.Errorf("source: %w", err)
	}
	maps.Copy(v.Closed, v.Broken)
	for name, why := range v.Closed {
		out.SourceDamaged = append(out.SourceDamaged, damage(name, why))
	}
	out.Missing = slices.DeleteFunc(out.Missing, func(name string) bool { return v.Closed[name] != nil })
	slices.SortFunc(out.SourceDamaged, byFile)
	return nil
}

// checkMissing reports the records that the source has lost, as its ledger or that of the
// target says.
func (r *round) checkMissing(ctx context.Context, out *CheckReport) error {
	source := viewOf(part{r.source, r.src[:]})
	found, err := r.opts.Judge.Missing(ctx, source)
	if err != nil {
		return fmt.Errorf("source: %w", err)
	}
	missing := map[string]error{}
	maps.Copy(missing, found)
	left := inFolder(r.left(records), layout.SnapshotsDir)
	d, err := r.opts.Judge.Leaving(ctx, source, r.target, slices.Sorted(maps.Keys(left)), nil)
	if err != nil {
		return err
	}
	if err := r.keepLost(ctx, &d); err != nil && !errors.Is(err, errChanged) {
		return err
	} else if err == nil {
		maps.Copy(missing, r.missing)
	}
	for name, why := range missing {
		out.SourceDamaged = append(out.SourceDamaged, damage(name, why))
	}
	slices.SortFunc(out.SourceDamaged, byFile)
	return nil
}

// heal replaces damaged files by good ones of the source.
func (m *mirrorer) heal(ctx context.Context, src *listing, out *CheckReport) error {
	left := []Damage{}
	for _, d := range out.Damaged {
		size, exists := src.size(d.File)
		if !exists {
			left = append(left, d)
			continue
		}
		m.lacking = map[string]bool{}
		if err := m.copyFile(ctx, d.File, size, true); err != nil && !errors.Is(err, errChanged) {
			return err
		}
		if m.lacking[d.File] {
			d.Text += "; the source's copy is damaged as well"
			left = append(left, d)
			continue
		}
		out.Healed = append(out.Healed, d.File)
	}
	out.Damaged = left
	return nil
}

func (m *mirrorer) checkFile(ctx context.Context, out *CheckReport, name string, size int64) error {
	var bad error
	err := m.read(ctx, m.target, name, size, func(_ []byte, damage error) error { bad = damage; return nil })
	if errors.Is(err, errChanged) {
		bad, err = errors.New("it disappeared during the check"), nil
	}
	if err != nil {
		return fmt.Errorf("target: %w", err)
	}
	m.count(size)
	m.mu.Lock()
	defer m.mu.Unlock()
	if bad != nil {
		out.Damaged = append(out.Damaged, damage(name, bad))
	}
	return nil
}
