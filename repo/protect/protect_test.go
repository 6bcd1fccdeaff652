package protect_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/snap-backup/snap/crypto/blake"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/protect"
)

var errPlanned = errors.New("planned failure")

// store is a store with versions, in memory.
type store struct {
	mu       sync.Mutex
	rule     backend.Protection
	versions map[string][]*version // newest first
	now      time.Time
	ids      int
	salted   bool // equal bytes have different tags
	noRemove bool // notes that hide files may not be removed
	calls    int
	failAt   int // the call that fails; 0 for none
}

type version struct {
	backend.Version
	data  []byte
	until time.Time
}

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newStore(rule backend.Protection) *store {
	return &store{rule: rule, versions: map[string][]*version{}, now: start}
}

func (s *store) call() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls++; s.calls == s.failAt {
		return errPlanned
	}
	return nil
}

func (s *store) add(v *version) {
	s.ids++
	v.ID, v.Modified = fmt.Sprint(s.ids), s.now
	s.versions[v.Name] = append([]*version{v}, s.versions[v.Name]...)
}

// put stores a file as snap does.
func (s *store) put(name string, data string) {
	s.add(&version{Version: backend.Version{Name: name, Size: int64(len(data)), Tag: s.tag(data)}, data: []byte(data), until: s.now.Add(s.rule.Period)})
}

func (s *store) tag(data string) string {
	if s.salted {
		return fmt.Sprint(s.ids)
	}
	return data
}

// hashed stores a file that is named by its hash, and returns its name.
func (s *store) hashed(dir, data string) string {
	name := fmt.Sprintf("%s%x", dir, blake.Sum([]byte(data)))
	s.put(name, data)
	return name
}

func (s *store) hide(name string) {
	s.add(&version{Version: backend.Version{Name: name, Hides: true}})
}

// shown returns the bytes that the store shows.
func (s *store) shown(name string) string {
	list := s.versions[name]
	if len(list) == 0 || list[0].Hides {
		return "hidden"
	}
	return string(list[0].data)
}

func (s *store) Protection(context.Context) (backend.Protection, error) { return s.rule, s.call() }

func (s *store) SetProtection(_ context.Context, p backend.Protection) error {
	if err := s.call(); err != nil {
		return err
	}
	s.rule = p
	return nil
}

func (s *store) Versions(_ context.Context, fn func(backend.Version) error) error {
	if err := s.call(); err != nil {
		return err
	}
	var names []string
	for name := range s.versions {
		names = append(names, name)
	}
	slices.SortFunc(names, cmp.Compare[string])
	for _, name := range names {
		for i, v := range s.versions[name] {
			v.Latest = i == 0
			if err := fn(v.Version); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *store) find(v backend.Version) *version {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, have := range s.versions[v.Name] {
		if have.ID == v.ID {
			return have
		}
	}
	panic("no version " + v.ID + " of " + v.Name)
}

func (s *store) ProtectedUntil(_ context.Context, v backend.Version) (time.Time, error) {
	return s.find(v).until, s.call()
}

func (s *store) Protect(_ context.Context, v backend.Version, until time.Time, _ bool) error {
	if err := s.call(); err != nil {
		return err
	}
	have := s.find(v)
	if until.Before(have.until) {
		return fs.ErrPermission
	}
	have.until = until
	return nil
}

func (s *store) ReadVersion(_ context.Context, v backend.Version) ([]byte, error) {
	return s.find(v).data, s.call()
}

func (s *store) BringBack(_ context.Context, v backend.Version, newer []backend.Version) error {
	if err := s.call(); err != nil {
		return err
	}
	have := s.find(v)
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.versions[v.Name]
	for len(list) > 0 && list[0].Hides && !s.noRemove {
		list = list[1:]
	}
	s.versions[v.Name] = list
	if len(newer) > 0 && list[0].ID != v.ID {
		s.add(&version{Version: backend.Version{Name: v.Name, Size: v.Size, Tag: v.Tag}, data: have.data})
	}
	return nil
}

const month = 30 * 24 * time.Hour

func (s *store) options() protect.Options {
	return protect.Options{Now: func() time.Time { return s.now }, Parallel: 3}
}

func (s *store) run(t *testing.T) *protect.Report {
	t.Helper()
	r, err := protect.Run(t.Context(), s, s.options())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRun(t *testing.T) {
	t.Parallel()
	s := newStore(backend.Protection{Period: month})
	s.put("config", "config")
	key := s.hashed("keys/", "key")
	pack := s.hashed("packs/ab/", "pack") // not a name that a pack has; it is protected all the same
	lock := s.hashed("locks/", "lock")
	old := s.hashed("index/", "old index")
	s.versions[lock][0].until, s.versions[pack][0].until = time.Time{}, time.Time{}
	s.versions[key][0].until = start.Add(10 * month)
	s.hide(old)
	s.now = start.Add(24 * time.Hour)
	opts := s.options()
	opts.DryRun = true
	forecast, err := protect.Run(t.Context(), s, opts)
	if err != nil || !s.versions[pack][0].until.IsZero() {
		t.Fatal("a dry run has changed something, or", err)
	}
	r := s.run(t)
	if fmt.Sprint(*r) != fmt.Sprint(*forecast) {
		t.Errorf("the run found\n%+v, and the dry run\n%+v", r, forecast)
	}
	if r.Protected.Files != 3 || r.Extended.Files != 2 || r.Unprotected != (protect.Count{Files: 1, Bytes: 4}) || r.Hidden.Files != 1 || r.Tampered() != nil || !r.First.Equal(start.Add(month)) {
		t.Errorf("report %+v", r)
	}
	for name, want := range map[string]time.Time{"config": s.now.Add(month), pack: s.now.Add(month), key: start.Add(10 * month), lock: {}} {
		if got := s.versions[name][0].until; !got.Equal(want) {
			t.Errorf("%s is protected until %v, want %v", name, got, want)
		}
	}
	if got := s.versions[old][1].until; !got.Equal(start.Add(month)) {
		t.Errorf("a file that was removed is protected until %v", got)
	}
	if again := s.run(t); again.Extended.Files != 0 {
		t.Errorf("a second run extends %d files", again.Extended.Files)
	}
}

// A daily run that does not name a mode does not weaken that of the store.
func TestKeepMode(t *testing.T) {
	t.Parallel()
	s := newStore(backend.Protection{Period: month, Compliance: true})
	s.put("config", "config")
	opts := s.options()
	opts.Protection.Period, opts.KeepMode = 2*month, true
	r, err := protect.Run(t.Context(), s, opts)
	if want := (backend.Protection{Period: 2 * month, Compliance: true}); err != nil || r.Protection != want || s.rule != want {
		t.Errorf("the protection is %+v, the store has %+v, %v", r.Protection, s.rule, err)
	}
}

func TestOff(t *testing.T) {
	t.Parallel()
	s := newStore(backend.Protection{})
	s.put("config", "config")
	if _, err := protect.Run(t.Context(), s, s.options()); !errors.Is(err, protect.ErrOff) {
		t.Errorf("Run = %v", err)
	}
	opts := s.options()
	opts.Protection = backend.Protection{Period: month, Compliance: true}
	r, err := protect.Run(t.Context(), s, opts)
	if err != nil || !r.Set || s.rule != opts.Protection || !s.versions["config"][0].until.Equal(start.Add(month)) {
		t.Errorf("Run = %+v, %v; then %+v", r, err, s.rule)
	}
	if r, err = protect.Run(t.Context(), s, opts); err != nil || r.Set {
		t.Errorf("a second Run = %+v, %v", r, err)
	}
}

// attacked is a store in which somebody has hidden and replaced files. It returns what it
// showed before.
func attacked(salted bool) (s *store, before map[string]string, at time.Time) {
	s = newStore(backend.Protection{Period: month})
	s.salted = salted
	s.put("config", "config")
	names := []string{"config"}
	for i := range 4 {
		names = append(names, s.hashed("keys/", fmt.Sprint("key", i)), s.hashed("snapshots/", fmt.Sprint("record", i)), s.hashed("index/", fmt.Sprint("index", i)))
	}
	s.now = s.now.Add(time.Hour)
	s.hide(names[3]) // a merge
	names = slices.Delete(names, 3, 4)
	s.put(names[5], s.shown(names[5])) // stored once more
	at = s.now.Add(time.Minute)
	before = map[string]string{}
	for _, name := range names {
		before[name] = s.shown(name)
	}
	s.now = s.now.Add(time.Hour)
	for i, name := range names {
		if i%3 != 1 {
			s.put(name, "junk")
		}
		if i%3 != 2 {
			s.hide(name)
		}
		s.now = s.now.Add(time.Second)
	}
	return s, before, at
}

func (s *store) mustShow(t *testing.T, before map[string]string, at time.Time) {
	t.Helper()
	for name := range s.versions {
		want, ok := before[name]
		if !ok {
			want = "hidden"
		}
		if got := s.shown(name); got != want {
			t.Errorf("after a restore to %v, %s is %q, want %q", at, name, got, want)
		}
	}
}

func TestRestore(t *testing.T) {
	t.Parallel()
	for _, salted := range []bool{false, true} {
		for _, noRemove := range []bool{false, true} {
			s, before, at := attacked(salted)
			s.noRemove = noRemove
			r := s.run(t)
			if err := r.Tampered(); !errors.Is(err, protect.ErrTampered) || len(r.Missing) != 2 || len(r.Replaced) == 0 {
				t.Errorf("Tampered = %v: %v, %v", err, r.Missing, r.Replaced)
			}
			if n := len(r.Removals); n != 2 || r.Removals[0].Files != 1 || r.Removals[1].Snapshots != 3 {
				t.Errorf("removals %+v", r.Removals)
			}
			opts := s.options()
			opts.DryRun = true
			forecast, err := protect.Restore(t.Context(), s, at, opts)
			if err != nil || s.shown("config") != "hidden" {
				t.Fatal("a dry run has changed something, or", err)
			}
			done, err := protect.Restore(t.Context(), s, at, s.options())
			if err != nil || done.BroughtBack != forecast.BroughtBack || done.BroughtBack.Files != len(before) || len(done.Lost) > 0 {
				t.Errorf("Restore = %+v, %v; the dry run: %+v", done, err, forecast)
			}
			s.mustShow(t, before, at)
			if again, err := protect.Restore(t.Context(), s, at, s.options()); err != nil || salted && again.BroughtBack.Files > 1 || !salted && again.BroughtBack.Files > 0 {
				t.Errorf("a second Restore = %+v, %v", again, err) // nothing proves config
			}
			if r := s.run(t); r.Tampered() != nil {
				t.Errorf("then %v", r.Tampered())
			}
		}
	}
}

// A restore that failed at any step is completed by the next one, and never makes things worse.
func TestRestoreAfterFailures(t *testing.T) {
	t.Parallel()
	for step := 1; ; step++ {
		s, before, at := attacked(false)
		s.failAt = step
		_, err := protect.Restore(t.Context(), s, at, s.options())
		if err == nil {
			if step < 10 {
				t.Errorf("only %d steps", step)
			}
			return
		}
		if !errors.Is(err, errPlanned) {
			t.Fatal(err)
		}
		if _, err := protect.Restore(t.Context(), s, at, s.options()); err != nil {
			t.Fatal(err)
		}
		s.mustShow(t, before, at)
	}
}

func TestRunAfterFailures(t *testing.T) {
	t.Parallel()
	for step := 1; ; step++ {
		s, _, _ := attacked(false)
		s.failAt = step
		_, err := protect.Run(t.Context(), s, s.options())
		if err == nil {
			return
		}
		if !errors.Is(err, errPlanned) {
			t.Fatal(err)
		}
		unprotected := 0
		for _, list := range s.versions {
			if v := list[0]; !v.Hides && v.until.Before(s.now.Add(month-time.Second)) {
				unprotected++
			}
		}
		if step > 6 && unprotected > 1 {
			t.Errorf("a failure at step %d, of one file, kept %d from being protected", step, unprotected)
		}
		s.run(t)
		for name, list := range s.versions {
			if v := list[0]; !v.Hides && v.until.Before(s.now.Add(month-time.Second)) {
				t.Errorf("failed at step %d: %s is protected until %v", step, name, v.until)
			}
		}
	}
}

// Whoever hides all snapshots is noticed, also if everything else stays.
func TestAllSnapshotsHidden(t *testing.T) {
	t.Parallel()
	s := newStore(backend.Protection{Period: month})
	s.put("config", "config")
	s.hashed("keys/", "key")
	first, second := s.hashed("snapshots/", "first"), s.hashed("snapshots/", "second")
	s.hide(first)
	if err := s.run(t).Tampered(); err != nil {
		t.Errorf("one of two snapshots is hidden: %v", err)
	}
	s.hide(second)
	if err := s.run(t).Tampered(); !errors.Is(err, protect.ErrTampered) {
		t.Errorf("all snapshots are hidden: %v", err)
	}
}

// A file of which only junk is left is named, and nothing is put in its place.
func TestRestoreOfLostFile(t *testing.T) {
	t.Parallel()
	s := newStore(backend.Protection{Period: month})
	name := s.hashed("snapshots/", "record")
	s.now = s.now.Add(time.Hour)
	s.put(name, "junk")
	s.put(name, "other junk")
	s.versions[name] = s.versions[name][:2] // the good version has gone
	r, err := protect.Restore(t.Context(), s, s.now, s.options())
	if err != nil || !slices.Equal(r.Lost, []string{name}) || r.BroughtBack.Files != 0 || s.shown(name) != "other junk" {
		t.Errorf("Restore = %+v, %v; then %q", r, err, s.shown(name))
	}
}
