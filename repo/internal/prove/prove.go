// Package prove says which files of a store belong to a repository, since its key opens
// them, and which snapshots are whole. A mirror relies only on what was proven.
//
// The store is not this repository's own. It may be the mirror as it will be after a run,
// or a source in which someone without the key has replaced files by others of the same
// size and kind. The package changes nothing.
package prove

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/access"
	"github.com/snap-backup/snap/repo/internal/certificate"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/ledger"
	"github.com/snap-backup/snap/repo/internal/lock"
	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/mirror"
)

// Judge implements [mirror.Judge] with the keys of an open repository.
type Judge struct{ keys *store.Store }

var _ mirror.Judge = Judge{}

// New returns a judge that has the keys of r. It does not read r itself.
func New(r *store.Store) Judge { return Judge{r} }

func (j Judge) open(be backend.Backend) *store.Store {
	return store.New(be, j.keys.Options, j.keys.Config, j.keys.MasterKey)
}

// Files implements [mirror.Judge].
func (j Judge) Files(ctx context.Context, be backend.Backend, names []string) (mirror.Verdict, error) {
	v := mirror.Verdict{Closed: map[string]error{}, Broken: map[string]error{}, LostPacks: map[string]error{}}
	byFolder := map[string][]string{}
	for _, name := range names {
		folder, _, _ := strings.Cut(name, "/")
		byFolder[folder+"/"] = append(byFolder[folder+"/"], name)
	}
	f := finder{Judge: j, s: j.open(be), v: &v}
	for _, step := range []struct {
		folder string
		look   func(context.Context, []string) error
	}{
		{layout.ConfigName + "/", f.config},
		{layout.ConfigsDir, f.copies},
		{layout.KeysDir, f.keySlots},
		{layout.SecretsDir, f.secrets},
		{layout.RunsDir, f.runs},
		{layout.CertificatesDir, f.certificates},
		{layout.LedgerDir, f.ledger},
		{layout.IndexDir, f.indexes},
		{layout.SnapshotsDir, f.snapshots}, // after the index
	} {
		if names := byFolder[step.folder]; len(names) > 0 {
			if err := step.look(ctx, names); err != nil {
				return v, err
			}
		}
	}
	return v, ctx.Err()
}

// finder collects the verdict about one store.
type finder struct {
	Judge
	s     *store.Store
	v     *mirror.Verdict
	trees *record.Wholeness // nil until the index was loaded
}

// noteClosed adds to the verdict those damaged files that were asked for. It returns the
// first error that is not about damage.
func (f *finder) noteClosed(names []string, damaged ...error) error {
	asked := map[string]bool{}
	for _, name := range names {
		asked[name] = true
	}
	for _, err := range damaged {
		var d *store.DamageError
		switch {
		case err == nil, errors.Is(err, store.ErrUnsupported): // written by a newer program
		case !errors.As(err, &d):
			return err
		case asked[d.File]:
			f.v.Closed[d.File] = d.Err
		}
	}
	return nil
}

func (f *finder) config(ctx context.Context, names []string) error {
	c, err := store.ReadConfig(ctx, f.s.Backend)
	return f.openConfig(ctx, names[0], c, err)
}

func (f *finder) copies(ctx context.Context, names []string) error {
	for _, name := range names {
		var c *store.ConfigFile
		b, err := store.ReadNamed(ctx, f.s.Backend, name, layout.MaxConfigSize)
		if err == nil {
			c, err = store.ParseConfig(b)
		}
		if err := f.openConfig(ctx, name, c, err); err != nil {
			return err
		}
	}
	return nil
}

// openConfig opens a config, or notes the error of reading it. It returns an error of the
// store, which says nothing about the config.
func (f *finder) openConfig(ctx context.Context, name string, c *store.ConfigFile, err error) error {
	if err != nil && !errors.Is(err, store.ErrDamaged) && !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrUnsupported) {
		return err
	}
	if err == nil {
		var cfg store.Config
		if cfg, err = c.Open(f.keys.MasterKey); err == nil && cfg.ID != f.keys.Config.ID {
			err = errors.New("it belongs to another repository")
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		f.v.Closed[name] = err
	}
	return nil
}

func (f *finder) keySlots(ctx context.Context, names []string) error {
	slots, err := access.Keys(ctx, f.s)
	if err != nil {
		return err
	}
	var damaged []error
	for _, k := range slots {
		damaged = append(damaged, k.Damage())
	}
	return f.noteClosed(names, damaged...)
}

func (f *finder) secrets(ctx context.Context, names []string) error {
	for _, name := range names {
		p, err := record.ReadDevicePassword(ctx, f.s, name)
		clear(p.Password)
		if err := f.noteClosed(names, err); err != nil {
			return err
		}
	}
	return nil
}

func (f *finder) runs(ctx context.Context, names []string) error {
	_, damaged, err := record.AllUnfinished(ctx, f.s)
	if err != nil {
		return err
	}
	return f.noteClosed(names, damaged...)
}

func (f *finder) certificates(ctx context.Context, names []string) error {
	_, damaged, err := certificate.List(ctx, f.s)
	if err != nil {
		return err
	}
	return f.noteClosed(names, damaged...)
}

func (f *finder) ledger(ctx context.Context, names []string) error {
	for _, name := range names {
		if err := f.noteClosed(names, ledger.Check(ctx, f.s, name)); err != nil {
			return err
		}
	}
	return nil
}

func (f *finder) load(ctx context.Context) error {
	if f.trees != nil {
		return nil
	}
	if err := f.s.LoadIndex(ctx); err != nil {
		return err
	}
	f.trees = record.NewWholeness(f.s, func(id chunk.ID) error {
		if !f.s.Index.Has(id) {
			return f.s.UnknownChunk(id)
		}
		return nil
	})
	return nil
}

func (f *finder) indexes(ctx context.Context, names []string) error {
	if err := f.load(ctx); err != nil {
		return err
	}
	return f.noteClosed(names, f.s.DamagedIndex...)
}

// snapshots judges records. One that opens must be whole.
func (f *finder) snapshots(ctx context.Context, names []string) error {
	if err := f.load(ctx); err != nil {
		return err
	}
	var roots []chunk.ID
	for _, name := range names {
		id, err := layout.ParseFileID(name)
		if err != nil {
			continue
		}
		s, err := record.Load(ctx, f.s, id)
		if err := f.noteClosed(names, err); err != nil {
			return err
		}
		if s == nil {
			continue
		}
		err = f.trees.Tree(ctx, s)
		switch {
		case record.Damaged(ctx, err):
			f.v.Broken[name] = fmt.Errorf("the snapshot of %s of %s is not whole: %w", s.Device.Name, s.Time.Local().Format("2006-01-02 15:04"), err)
		case err != nil:
			return err
		default:
			roots = append(roots, s.Root)
		}
	}
	for _, err := range f.s.IndexDamage(roots...) {
		d, ok := errors.AsType[*store.DamageError](err)
		switch {
		case ok && d.File == layout.IndexDir:
			f.v.LostIndex = d.Err
		case ok && strings.HasPrefix(d.File, layout.PacksDir):
			f.v.LostPacks[d.File] = d.Err
		}
	}
	return nil
}

// Leaving implements [mirror.Judge].
func (j Judge) Leaving(ctx context.Context, source, target backend.Backend, names, known []string) (mirror.Departure, error) {
	d := mirror.Departure{Better: map[string]string{}, Worse: map[string]error{}, Lost: map[string]error{}, Newest: map[string]bool{}, Forgotten: map[string]mirror.Gone{}, Arrived: map[string]int{}}
	src, err := record.ReadAll(ctx, j.open(source))
	if err != nil {
		return d, fmt.Errorf("source: %w", err)
	}
	if err := j.findUnexplained(ctx, source, target, &d); err != nil {
		return d, err
	}
	for _, s := range src.Current {
		if !slices.ContainsFunc(known, func(name string) bool { id, err := layout.ParseFileID(name); return err == nil && s.Has(id) }) {
			d.Arrived[record.PlainUDID(s.Device.UDID)]++
		}
	}
	dst := j.open(target)
	for _, name := range names {
		id, err := layout.ParseFileID(name)
		if err != nil {
			continue
		}
		s, err := record.Load(ctx, dst, id)
		if errors.Is(err, store.ErrDamaged) {
			continue // nobody can open it, so nobody misses it
		}
		if err != nil {
			return d, fmt.Errorf("target: %w", err)
		}
		if slices.ContainsFunc(src.Missing, func(m *record.Snapshot) bool { return m.FirstID() == s.FirstID() }) {
			d.Better[name] = goneOf(s).String() + ": the source has lost its record"
			continue
		}
		judgeLeaving(&d, name, s, src.Current)
	}
	return d, nil
}

// findUnexplained finds the records that exist according to the ledger of the target, and of
// which the ledger of the source does not know that they were removed.
func (j Judge) findUnexplained(ctx context.Context, source, target backend.Backend, d *mirror.Departure) error {
	var both [2]*ledger.Ledger
	for i, be := range []backend.Backend{source, target} {
		l, err := ledger.Read(ctx, j.open(be))
		if err == nil && l.Unlisted != nil {
			err = l.Unlisted
		}
		if err != nil {
			return fmt.Errorf("%s: %w", []string{"source", "target"}[i], err)
		}
		both[i] = l
	}
	for _, s := range record.Unexplained(both[0], both[1]) {
		d.Lost[layout.SnapshotsDir+s.ID.String()] = fmt.Errorf("the source has lost it, with the files of the ledger that knew it: the snapshot of %q of %s was stored, and no ledger says that it was removed; `snap repair --from TARGET` stores it again, with what else is lost of it; if you do not want it, `snap forget %s` then forgets it",
			s.Device.Name, s.Time.Local().Format("2006-01-02 15:04"), s.ID)
	}
	return nil
}

// Missing implements [mirror.Judge].
func (j Judge) Missing(ctx context.Context, be backend.Backend) (map[string]error, error) {
	s := j.open(be)
	l, err := ledger.Read(ctx, s)
	if err == nil && l.Unlisted != nil {
		err = l.Unlisted
	}
	if err != nil {
		return nil, err
	}
	for _, e := range l.Existing() {
		_, err := be.Stat(ctx, layout.SnapshotsDir+e.ID.String())
		if err == nil {
			continue
		}
		if !errors.Is(err, backend.ErrNotExist) {
			return nil, err
		}
		all, err := record.ReadAll(ctx, s)
		out := map[string]error{}
		for _, m := range all.Missing {
			e := &record.MissingError{Snapshot: m}
			out[layout.SnapshotsDir+m.ID.String()] = fmt.Errorf("%s; `snap repair --from TARGET` stores it again, with what else is lost of it; %s", e.Text(), e.ForgetHint())
		}
		return out, err
	}
	return nil, nil
}

// Slots implements [mirror.Judge].
func (j Judge) Slots(ctx context.Context, be backend.Backend) (map[string]mirror.Slot, error) {
	keys, err := access.Keys(ctx, j.open(be))
	out := map[string]mirror.Slot{}
	for _, k := range keys {
		s := mirror.Slot{Text: fmt.Sprintf("key %s (%s)", k.ID.Short(), k.Kind), Kind: string(k.Kind), Recovery: k.Kind == crypto.RecoverySlot}
		switch {
		case k.Damaged != "":
			s.Text, s.Damaged = fmt.Sprintf("key %s (%s)", k.ID.Short(), k.Damaged), !k.Exchanged
		case k.Label != "":
			s.Text = fmt.Sprintf("key %s (%s, %s)", k.ID.Short(), k.Kind, k.Label)
		}
		out[layout.KeysDir+k.ID.String()] = s
	}
	return out, err
}

// Locks implements [mirror.Judge].
func (j Judge) Locks(ctx context.Context, be backend.Backend) (out []mirror.Lock, err error) {
	locks, err := lock.List(ctx, j.open(be))
	for _, l := range locks {
		out = append(out, describe(&l))
	}
	return out, err
}

func describe(l *lock.Info) mirror.Lock {
	return mirror.Lock{Files: l.Files(), Holder: l.Holder(), Gone: lock.LeftBehind(*l), Unsure: l.State == lock.Unknown || l.State == lock.Bad, ID: l.ID.Short()}
}

// Lock implements [mirror.Judge].
func (j Judge) Lock(ctx context.Context, be backend.Backend) (release func() error, other *mirror.Lock, err error) {
	l, err := lock.Acquire(ctx, j.open(be), lock.Exclusive, "snap mirror")
	if locked, ok := errors.AsType[*lock.LockedError](err); ok {
		o := describe(&locked.Lock)
		return nil, &o, nil
	}
	if err != nil {
		return nil, nil, err
	}
	return func() error {
		if l.Release() == nil {
			return nil
		}
		return l.Release() // once more, since the lock would exclude readers
	}, nil, nil
}

// Passwords implements [mirror.Judge].
func (j Judge) Passwords(ctx context.Context, be backend.Backend, names []string) (map[string]string, error) {
	s := j.open(be)
	records, err := record.ReadAll(ctx, s)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, name := range names {
		p, err := record.ReadDevicePassword(ctx, s, name)
		clear(p.Password)
		if errors.Is(err, store.ErrDamaged) {
			continue // nobody can open it, so nobody misses it
		}
		if err != nil {
			return nil, err
		}
		device := p.UDID
		for _, o := range records.Current {
			if record.SameDevice(o.Device.UDID, p.UDID) {
				device = o.Device.Name
			}
		}
		out[name] = fmt.Sprintf("backup password of %s, kept on %s", device, p.Added.Local().Format("2006-01-02 15:04"))
	}
	return out, nil
}

func goneOf(s *record.Snapshot) mirror.Gone {
	return mirror.Gone{ID: s.ID.Short(), UDID: record.PlainUDID(s.Device.UDID), Device: s.Device.Name, Time: s.Time.Local().Format("2006-01-02 15:04")}
}

// judgeLeaving says what leaves with a snapshot of the target that is not in the source.
func judgeLeaving(d *mirror.Departure, name string, s *record.Snapshot, source []*record.Snapshot) {
	gone := goneOf(s)
	text := gone.String()
	newest := true // of its device
	for _, o := range source {
		if o.FirstID() == s.FirstID() {
			switch {
			case !o.Has(s.ID):
				d.Better[name] = text + ": the source has an older record of it"
			case lost(o) > lost(s):
				d.Better[name] = text + ": the source has lost files of it"
				d.Worse[layout.SnapshotsDir+o.ID.String()] = fmt.Errorf("not copied: the source has lost files of the snapshot %s, and the target has more of them", text)
			}
			return
		}
		if record.SameDevice(o.Device.UDID, s.Device.UDID) && cmp.Or(o.StoredAt.Compare(s.StoredAt), o.Time.Compare(s.Time)) > 0 {
			newest = false
		}
	}
	if newest {
		d.Newest[name] = true
	}
	d.Forgotten[name] = gone
}

// lost returns how many files and nodes a record has lost.
func lost(s *record.Snapshot) int64 {
	if s.Lost == nil {
		return 0
	}
	return s.Lost.Files + int64(len(s.Lost.Nodes)+s.Lost.MoreNodes)
}
