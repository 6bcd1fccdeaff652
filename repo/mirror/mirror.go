// Package mirror keeps an exact copy of a repository in another store: the same
// files under the same names, so the same keys and snapshots.
//
// # What it promises
//
// A snapshot is on the target only with everything that it needs, whenever the
// copy is cut off: files are copied in the order in which a repository writes
// them, and removed in the opposite order after everything new is durable. What
// was copied stays; the next run goes on from there.
//
// A file is copied only if its bytes are those that its name stands for. The
// target is not changed at all where the source looks as if it had lost
// something rather than given it up (guard.go).
//
// # What it never does
//
// It changes nothing on the source. It needs no key and knows nothing of what
// files hold: hashes, names and the order of writing are enough. What only a key
// can tell it asks its caller ([Options.Whole]).
package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/snap-backup/snap/crypto/blake"
	"github.com/snap-backup/snap/repo/backend"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

// The kinds of failure that a caller decides on.
var (
	// ErrRefused says that copying would do harm. The error is a *RefusedError.
	ErrRefused = errors.New("not mirrored")
	// ErrDamaged says that files are damaged or missing; the report has them.
	ErrDamaged = errors.New("damaged files")
	// ErrChanging says that the source changed too fast to be copied whole.
	ErrChanging = errors.New("the repository changes faster than it can be copied")
)

// Options are what Run takes beside the two stores.
type Options struct {
	// AcceptRemovals removes from the target whatever the source does not have,
	// even if that looks like a loss.
	AcceptRemovals bool
	// DryRun only looks, and says what would be done.
	DryRun bool
	// VerifySnapshots, if not nil, returns an error if a snapshot of the source needs
	// something that is not there. It needs the key, so it is the caller's. It
	// is asked before any pack or index file is removed from the target.
	VerifySnapshots func(context.Context) error
	// Heal lets Check replace damaged files of the target by those of the source,
	// where these are sound.
	Heal bool
	// Workers is how many files are copied at a time; 16 by default, since most
	// of the time they wait until what was written is durable.
	Workers int
	// Progress is told what is done and what there is to do; by one goroutine
	// at a time.
	Progress func(Progress)
}

// Progress is how far a run has come.
type Progress struct{ Files, TotalFiles, Bytes, TotalBytes int64 }

// Damage is a file that is damaged or missing.
type Damage struct {
	File string `json:"file"`
	Text string `json:"text"`
}

// Report says what a run has done or, of a dry run, what one would do.
type Report struct {
	Files        int64    `json:"files"` // of the source
	Bytes        int64    `json:"bytes"`
	Snapshots    int64    `json:"snapshots"`
	CopiedFiles  int64    `json:"copied_files"`
	CopiedBytes  int64    `json:"copied_bytes"`
	HealedFiles  int64    `json:"healed_files"` // of the copied: the target's own was damaged
	RemovedFiles int64    `json:"removed_files"`
	RemovedBytes int64    `json:"removed_bytes"`
	Damaged      []Damage `json:"damaged"` // files of the source, not copied
	// Kept says why files that the source has removed were left on the target
	// for now; empty if none were.
	Kept   string `json:"kept,omitempty"`
	DryRun bool   `json:"dry_run"`
}

// maxRounds is how often Run begins anew because the source has changed. Each
// round has less to copy.
const maxRounds = 10

// inFlight bounds the bytes of files in memory.
const inFlight = 64 << 20

// Run makes target an exact copy of source. Both are stores of a repository;
// target may be empty. It may be called while others use the source.
//
// The report is there with an error, too, and says what was done until then. If
// files of the source are damaged, everything that is sound and does no harm
// without them is copied, nothing is removed, and the error is ErrDamaged.
func Run(ctx context.Context, source, target backend.Backend, opts Options) (*Report, error) {
	if opts.Workers <= 0 {
		opts.Workers = 16
	}
	m := &mirroring{source: source, target: target, opts: opts, room: semaphore.NewWeighted(inFlight)}
	m.report = &Report{Damaged: []Damage{}, DryRun: opts.DryRun}
	for n := range maxRounds {
		settled, err := m.round(ctx, n == maxRounds-1)
		if err != nil || settled {
			return m.report, err
		}
	}
	return m.report, fmt.Errorf("%w: what was copied is kept, run it again when less is going on", ErrChanging)
}

// mirroring is a Run.
type mirroring struct {
	source, target backend.Backend
	opts           Options
	room           *semaphore.Weighted // bytes
	buffers        sync.Pool           // *[]byte
	hashers        sync.Pool           // *blake.Hasher

	mu       sync.Mutex // guards what follows
	report   *Report
	progress Progress
	lacking  int // damaged files of the source of which the target has no sound copy
}

// errVanished says that a file was listed and is gone.
var errVanished = errors.New("vanished")

// round copies what is listed at its beginning. It reports whether the source
// has stayed the same meanwhile, as far as that matters.
func (m *mirroring) round(ctx context.Context, last bool) (settled bool, err error) {
	src, err := list(ctx, m.source)
	if err != nil {
		return false, fmt.Errorf("source: %w", err)
	}
	dst, err := list(ctx, m.target)
	if err != nil {
		return false, fmt.Errorf("target: %w", err)
	}
	mem, err := readMemory(ctx, m.target)
	if err != nil {
		return false, fmt.Errorf("target: %w", err)
	}
	if err := m.guard(ctx, &src, &dst, mem); err != nil {
		return false, err
	}
	m.report.Files, m.report.Bytes = src.total()
	m.report.Snapshots = int64(len(under(src[records], snapshots)))
	var todo [classes][]string
	m.progress.TotalFiles, m.progress.TotalBytes = m.progress.Files, m.progress.Bytes
	need := int64(0)
	for c := range classes {
		for _, name := range slices.Sorted(maps.Keys(src[c])) {
			if size, there := dst[c][name]; !there || size != src[c][name] {
				todo[c] = append(todo[c], name)
				need += src[c][name]
			}
		}
		m.progress.TotalFiles += int64(len(todo[c]))
	}
	m.progress.TotalBytes += need
	if m.opts.DryRun {
		m.forecast(&src, &dst, need)
		return true, nil
	}
	if err := m.checkRoom(ctx, need); err != nil {
		return false, err
	}
	// Until records come that need them the source may prune them again. Those
	// that the target has, torn, may be needed by records that it has.
	fresh := slices.DeleteFunc(slices.Concat(todo[packs], todo[indexes]), dst.has)
	if err := m.loosen(ctx, slices.Values(fresh)); err != nil {
		return false, fmt.Errorf("target: %w", err)
	}
	for c := keys; c < records; c++ {
		if c == indexes {
			// All or none: a part of them may list what is of no use without
			// the others.
			if err := m.copyAll(ctx, todo[c], src[c], dst[c], true); err != nil {
				return m.again(err)
			}
			if m.lacking > 0 {
				// Which snapshots need these files cannot be told.
				return false, fmt.Errorf("%w in the source: %s; sound packs were copied, new snapshots were not, and nothing was removed", ErrDamaged, damageText(m.report.Damaged))
			}
		}
		if err := m.copyAll(ctx, todo[c], src[c], dst[c], false); err != nil {
			return m.again(err)
		}
	}
	// Now everything that the records of this listing need is on the target if
	// it was in the listing, and it was unless files were replaced meanwhile.
	for c := keys; c < records; c++ {
		now, err := listClass(ctx, m.source, c)
		if err != nil {
			return false, fmt.Errorf("source: %w", err)
		}
		if !maps.Equal(now, src[c]) {
			return false, nil
		}
	}
	if mem, err = m.remember(ctx, &src, &dst, mem); err != nil {
		return false, fmt.Errorf("target: %w", err)
	}
	if err := m.claim(ctx, &src); err != nil {
		return false, fmt.Errorf("target: %w", err)
	}
	if err := m.copyAll(ctx, todo[records], src[records], dst[records], false); err != nil {
		return m.again(err)
	}
	if len(m.report.Damaged) > 0 {
		if err := m.forget(ctx, mem, true); err != nil {
			return false, err
		}
		return false, fmt.Errorf("%w in the source: %s; everything else was copied, and nothing was removed", ErrDamaged, damageText(m.report.Damaged))
	}
	now, err := listClass(ctx, m.source, records)
	if err != nil {
		return false, fmt.Errorf("source: %w", err)
	}
	if !maps.Equal(now, src[records]) {
		// What is new may stand for what is going to be removed. A snapshot that
		// is gone was there when this round began, so it would stay on the
		// target, but what it needs would not.
		if last {
			m.report.Kept = "files that the repository has removed stay on the target, since the repository changes all the time"
		}
		return last, nil
	}
	return true, m.removeAll(ctx, &src, &dst, mem)
}

func (m *mirroring) again(err error) (bool, error) {
	if errors.Is(err, errVanished) {
		return false, nil
	}
	return false, err
}

func (m *mirroring) forecast(src, dst *listing, need int64) {
	m.report.CopiedFiles, m.report.CopiedBytes = m.progress.TotalFiles, need
	for c := range classes {
		gone := without(dst[c], src[c])
		m.report.RemovedFiles += int64(len(gone))
		m.report.RemovedBytes += sum(gone)
	}
}

// checkRoom fails early where the target says that it has no room: everything
// new comes before anything is removed.
func (m *mirroring) checkRoom(ctx context.Context, need int64) error {
	f, ok := m.target.(backend.Freer)
	if !ok || need == 0 {
		return nil
	}
	free, err := f.Free(ctx)
	if err != nil || free >= need {
		return ctx.Err() // what is not known is no obstacle
	}
	return fmt.Errorf("the copy needs %d bytes more and the target has %d free: %w", need, free, backend.ErrNoSpace)
}

// copyAll copies files of one class. there are those that the target has. With
// look it only reads them, and notes what is damaged.
func (m *mirroring) copyAll(ctx context.Context, names []string, sizes, there map[string]int64, look bool) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(m.opts.Workers)
	for _, name := range names {
		if gctx.Err() != nil {
			break
		}
		_, replace := there[name]
		g.Go(func() error { return m.copyFile(gctx, name, sizes[name], replace, look) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// copyFile copies a file if it is sound. replace says that the target has one
// of that name and of another length, look that it is only to be read.
func (m *mirroring) copyFile(ctx context.Context, name string, size int64, replace, look bool) error {
	var bad string
	err := m.with(ctx, m.source, name, size, func(b []byte, fault string) error {
		if bad = fault; bad != "" || look {
			return nil
		}
		if replace {
			// What is on the target has another length than these bytes, which
			// are known to be right.
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
	sound := false
	if bad != "" && replace {
		if sound, err = m.isSound(ctx, name); err != nil {
			return fmt.Errorf("target: %w", err)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if look && bad == "" {
		return nil
	}
	m.progress.Files++
	m.progress.Bytes += size
	if m.opts.Progress != nil {
		m.opts.Progress(m.progress)
	}
	if bad != "" {
		if sound {
			bad += "; the target has it sound"
		} else {
			m.lacking++
		}
		if !slices.ContainsFunc(m.report.Damaged, func(d Damage) bool { return d.File == name }) {
			m.report.Damaged = append(m.report.Damaged, Damage{name, bad})
		}
		return nil
	}
	m.report.CopiedFiles++
	m.report.CopiedBytes += size
	if replace {
		m.report.HealedFiles++
	}
	return nil
}

// isSound reports whether the target's copy of a file is what its name says.
func (m *mirroring) isSound(ctx context.Context, name string) (bool, error) {
	info, err := m.target.Stat(ctx, name)
	if err != nil {
		return false, err
	}
	sound := false
	err = m.with(ctx, m.target, name, info.Size, func(_ []byte, fault string) error { sound = fault == ""; return nil })
	return sound, err
}

// with reads a whole file and calls fn with its bytes, which are valid until it
// returns, or with what is wrong with them. A file that is gone is errVanished.
func (m *mirroring) with(ctx context.Context, be backend.Backend, name string, size int64, fn func(b []byte, fault string) error) error {
	limit := int64(maxFileSize)
	if name == configName {
		limit = maxConfigSize
	}
	if size > limit {
		return fn(nil, fmt.Sprintf("it has %d bytes, more than any such file", size))
	}
	weight := min(size, inFlight)
	if err := m.room.Acquire(ctx, weight); err != nil {
		return err
	}
	defer m.room.Release(weight)
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
	switch {
	case errors.Is(err, backend.ErrNotExist):
		return errVanished
	case err != nil && n < len(b) && isEnd(err):
		return fn(nil, fmt.Sprintf("it ends after %d of %d bytes", n, size))
	case err == nil && n < len(b):
		return fn(nil, fmt.Sprintf("only %d of %d bytes can be read", n, size))
	case err != nil && n < len(b):
		return fmt.Errorf("read %s: %w", name, err)
	}
	want, named := hashOf(name)
	if !named {
		return fn(b, "")
	}
	h, _ := m.hashers.Get().(*blake.Hasher)
	if h == nil {
		h = blake.New()
	}
	got := h.Sum(b)
	m.hashers.Put(h)
	if got != want {
		return fn(nil, "its bytes are not those that its name stands for")
	}
	return fn(b, "")
}

// removeAll removes from the target what the source does not have, in the order
// opposite to that of copying.
func (m *mirroring) removeAll(ctx context.Context, src, dst *listing, mem memory) error {
	gone := map[string]int64{}
	for c := range classes {
		maps.Copy(gone, without(dst[c], src[c]))
	}
	if len(gone) == 0 {
		return m.forget(ctx, mem, true)
	}
	// Somebody may be restoring from the target, or storing into it.
	busy := false
	err := m.target.List(ctx, locks, func(backend.Info) error { busy = true; return nil })
	if err != nil {
		return fmt.Errorf("target: %w", err)
	}
	if busy && !m.opts.AcceptRemovals {
		m.report.Kept = fmt.Sprintf("%d files that the repository has removed stay on the target, since somebody is at work there (it has locks)", len(gone))
		return m.forget(ctx, mem, false)
	}
	if err := m.loosen(ctx, maps.Keys(gone)); err != nil {
		return fmt.Errorf("target: %w", err)
	}
	for _, c := range []class{records, indexes, packs, keys} {
		for _, name := range slices.Sorted(maps.Keys(without(dst[c], src[c]))) {
			if err := m.target.Delete(ctx, name); err != nil && !errors.Is(err, backend.ErrNotExist) {
				return fmt.Errorf("target: %w", err)
			}
			m.report.RemovedFiles++
			m.report.RemovedBytes += dst[c][name]
		}
	}
	return m.forget(ctx, mem, true)
}

func damageText(list []Damage) string {
	text := fmt.Sprintf("%s: %s", list[0].File, list[0].Text)
	if n := len(list) - 1; n > 0 {
		text += fmt.Sprintf(" (and %d more)", n)
	}
	return text
}

// sameConfig compares the config files of two stores.
func sameConfig(ctx context.Context, a, b backend.Backend) (bool, error) {
	x, err := backend.ReadAll(ctx, a, configName, maxConfigSize)
	if err != nil {
		return false, fmt.Errorf("source: %w", err)
	}
	y, err := backend.ReadAll(ctx, b, configName, maxConfigSize)
	if errors.Is(err, backend.ErrTooLarge) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("target: %w", err)
	}
	return bytes.Equal(x, y), nil
}
