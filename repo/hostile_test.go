package repo_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/snap-backup/snap/crypto/blake"
	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/mirror"
	"github.com/snap-backup/snap/repo/repotest"
)

// hostileRig has a repository, an earlier state of it, and its mirror. Somebody who owns
// one of the stores, and has no key, changes it in every way. The other one must still
// open, and give back every snapshot.
type hostileRig struct {
	t              *testing.T
	now, earlier   *memory.Backend
	mirror, copied *memory.Backend // copied has keys of its own
	days           []int
}

func newHostileRig(t *testing.T) *hostileRig {
	g := &hostileRig{t: t, now: repotest.New(t, 1, 2, 3), mirror: memory.New(), copied: repotest.NewOther(t), days: []int{2, 3, 4}}
	g.fill(g.now, "first", 81)
	g.earlier = g.now.Clone()
	if _, err := repotest.StoreDay(t.Context(), g.now, 4); err != nil {
		t.Fatal(err)
	}
	if _, err := repotest.Prune(t.Context(), g.now, repotest.NoWaste, 1); err != nil {
		t.Fatal(err)
	}
	g.fill(g.now, "second", 82)
	for _, withKey := range []bool{true, false} {
		if err := g.follow(g.now, g.mirror, withKey); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.copyTo(g.now, g.copied); err != nil {
		t.Fatal(err)
	}
	return g
}

// fill makes files of all kinds.
func (g *hostileRig) fill(be *memory.Backend, label string, seed byte) {
	ctx := g.t.Context()
	r := repotest.MustOpenWith(g.t, be, repotest.Secret, repotest.SmallPacks(seed))
	l, err := r.Lock(ctx, repo.LockWrite, "fill")
	if err != nil {
		g.t.Fatal(err)
	}
	_, err = r.AddKey(ctx, []byte(label), repotest.SlotInfo)
	err = errors.Join(err, r.KeepDevicePassword(ctx, repotest.JobUDID, []byte(label)))
	u, uerr := r.NewUnfinished(repo.UnfinishedBackup, repotest.JobUDID)
	if uerr == nil {
		uerr = repotest.Receive(ctx, r, u, "cc/"+label, repotest.Noise(uint64(seed), 3000))
	}
	err = errors.Join(err, uerr, repotest.CertifyAll(ctx, be, repotest.Secret, seed+10), r.LoadIndex(ctx))
	_, perr := r.RefreshParity(ctx, 50_00, nil)
	if err := errors.Join(err, perr, l.Release()); err != nil {
		g.t.Fatal(err)
	}
}

// follow runs a mirror. With the key, the source must open first.
func (g *hostileRig) follow(source, target *memory.Backend, withKey bool) error {
	opts := mirror.Options{Workers: 1}
	if withKey {
		r, err := repo.Open(context.Background(), source, repotest.Secret, repotest.SmallPacks(83))
		if err != nil {
			return err
		}
		opts.Judge = r.MirrorJudge()
	}
	_, err := mirror.Run(context.Background(), source, target, opts)
	return err
}

func (g *hostileRig) copyTo(source, target *memory.Backend) error {
	ctx := context.Background()
	r, err := repotest.Open(ctx, source, repotest.Secret, repotest.SmallPacks(84))
	if err != nil {
		return err
	}
	other, err := repotest.Open(ctx, target, repotest.Secret, repotest.SmallPacks(85))
	if err != nil {
		return err
	}
	list, _, err := r.Snapshots(ctx)
	if err != nil {
		return err
	}
	_, err = r.CopyTo(ctx, other, list, repo.CopyOptions{})
	return err
}

// givesBack returns an error unless a repository opens and gives back all days.
func (g *hostileRig) givesBack(be backend.Backend, secrets ...[]byte) error {
	ctx := context.Background()
	for _, secret := range secrets {
		if _, err := repo.Open(ctx, be, secret, repotest.SmallPacks(86)); err != nil {
			return fmt.Errorf("open with %q: %w", secret, err)
		}
	}
	r, err := repotest.Open(ctx, be, repotest.Secret, repotest.SmallPacks(86))
	if err != nil {
		return err
	}
	for _, day := range g.days {
		s, err := repotest.FindDay(ctx, r, day)
		if err != nil {
			return err
		}
		f, err := repotest.Restore(ctx, r, s)
		if err == nil {
			err = f.Same(repotest.Day(day))
		}
		if err != nil {
			return fmt.Errorf("day %d: %w", day, err)
		}
	}
	return nil
}

// hostileKinds are the files of a repository, by the beginning of their names.
var hostileKinds = []string{"config", "configs/", "keys/", "packs/", "index/", "snapshots/", "runs/", "secrets/", "certificates/", "parity/", "checks/", "prunes/", "ledger/"}

// hostileChanges change the files of a kind. all says whether to change one or all.
var hostileChanges = map[string]func(g *hostileRig, be *memory.Backend, names []string){
	"removed": func(g *hostileRig, be *memory.Backend, names []string) { repotest.Remove(g.t, be, names...) },
	"junk": func(g *hostileRig, be *memory.Backend, names []string) {
		for i, name := range names {
			junk := repotest.Noise(uint64(i), len(repotest.Content(g.t, be)[name]))
			g.replace(be, name, junk)
		}
	},
	"counterfeits": func(g *hostileRig, be *memory.Backend, names []string) { // begin as they should, or parse
		for _, name := range names {
			fake := bytes.Clone(repotest.Content(g.t, be)[name])
			if at := bytes.Index(fake, []byte(`":"`)); name == "config" || strings.HasPrefix(name, "configs/") || strings.HasPrefix(name, "keys/") {
				at = max(at, bytes.LastIndex(fake, []byte(`":"`))) + 20
				fake[at] = 'A' + (fake[at]-'A'+1)%26
			} else {
				copy(fake[8:], repotest.Noise(7, len(fake)-8))
			}
			g.replace(be, name, fake)
		}
	},
	"exchanged": func(g *hostileRig, be *memory.Backend, names []string) {
		content, all := repotest.Content(g.t, be), g.files(be, repotest.Folder(names[0]))
		if len(all) < 2 {
			all = append(all, g.files(be, "certificates/")...)
		}
		for _, name := range names {
			i := slices.Index(all, name)
			be.Set(name, content[all[(i+1)%len(all)]])
		}
	},
	"rolled back": func(g *hostileRig, be *memory.Backend, names []string) {
		folder := repotest.Folder(names[0])
		repotest.Remove(g.t, be, names...)
		for name, b := range repotest.Content(g.t, g.earlier) {
			if repotest.Folder(name) == folder {
				be.Set(name, b)
			}
		}
	},
	// A record is removed with everything that knew it: packs, index files, and the ledger.
	"removed without a trace": func(g *hostileRig, be *memory.Backend, names []string) {
		days := g.days[:1]
		if len(names) > 1 {
			days = g.days[:2]
		}
		if _, err := repotest.Prune(g.t.Context(), be, repotest.NoWaste, days...); err != nil {
			g.t.Fatal(err)
		}
		repotest.RemoveLedger(g.t, be)
	},
	"duplicated": func(g *hostileRig, be *memory.Backend, names []string) {
		for _, name := range names {
			b := repotest.Content(g.t, be)[name]
			if name == "config" {
				continue
			}
			be.Set(g.nameOf(name, append(bytes.Clone(b), ' ')), append(bytes.Clone(b), ' '))
			be.Set(g.nameOf(name, []byte(name)), b) // under a name that is another hash
		}
	},
}

// replace removes a file and stores another one, under its hash.
func (g *hostileRig) replace(be *memory.Backend, name string, b []byte) {
	repotest.Remove(g.t, be, name)
	be.Set(g.nameOf(name, b), b)
}

// nameOf returns the name of a file with these bytes in the folder of another one.
func (g *hostileRig) nameOf(name string, b []byte) string {
	hash := blake.Sum(b)
	id := hex.EncodeToString(hash[:])
	switch folder, _, inFolder := strings.Cut(name, "/"); {
	case !inFolder:
		return name
	case folder == "packs":
		return "packs/" + id[:2] + "/" + id
	default:
		return folder + "/" + id
	}
}

func (g *hostileRig) files(be *memory.Backend, kind string) (names []string) {
	for name := range repotest.Content(g.t, be) {
		if name == kind || strings.HasSuffix(kind, "/") && strings.HasPrefix(name, kind) || repotest.Folder(name) == kind {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// hostileActs are what an honest user does next with a repository that was changed.
// Errors are no faults: many changes are noticed.
var hostileActs = map[string]func(g *hostileRig, source, target *memory.Backend){
	"mirror": func(*hostileRig, *memory.Backend, *memory.Backend) {}, // and nothing else
	"copy": func(g *hostileRig, source, _ *memory.Backend) {
		other := g.copied.Clone() // has all snapshots, and keeps them
		_ = g.copyTo(source, other)
		if err := g.givesBack(other, repotest.Secret); err != nil {
			g.t.Errorf("the copy: %v", err)
		}
	},
	"repair": func(_ *hostileRig, source, target *memory.Backend) {
		ctx := context.Background()
		_ = repotest.Repair(ctx, source, 87, func(r *repo.Repo) error {
			_, err := r.RepairConfig(ctx, repo.RepairOptions{})
			return err
		})
		_ = repotest.Repair(ctx, source, 88, func(r *repo.Repo) error {
			_, err := r.HealFromMirror(ctx, target, repo.HealOptions{})
			return err
		})
		_ = repotest.RepairAll(source)
	},
	"repair without a copy": func(_ *hostileRig, source, _ *memory.Backend) {
		ctx := context.Background()
		_ = repotest.Repair(ctx, source, 89, func(r *repo.Repo) error {
			_, err := r.HealFromParity(ctx, repo.RepairOptions{})
			return err
		})
		_ = repotest.RepairAll(source)
	},
	"prune": func(_ *hostileRig, source, _ *memory.Backend) {
		_, _ = repotest.Prune(context.Background(), source, repotest.NoWaste)
	},
	"key remove": func(_ *hostileRig, source, _ *memory.Backend) {
		ctx := context.Background()
		_ = repotest.Repair(ctx, source, 90, func(r *repo.Repo) error {
			keys, err := r.Keys(ctx)
			for _, k := range keys {
				if !k.Current {
					_, err = r.RemoveKey(ctx, k.ID.String())
				}
			}
			return err
		})
	},
}

// Somebody without the key changes the repository. Whatever its user does then, the
// mirror and the copy stay good.
func TestHostileStore(t *testing.T) {
	t.Parallel()
	g := newHostileRig(t)
	type point struct {
		kind, change, act string
		all, withKey      bool
	}
	var points, always []point // always are the worst: the mirror follows counterfeits
	for _, kind := range hostileKinds {
		if len(g.files(g.now, kind)) == 0 && kind != "checks/" && kind != "prunes/" {
			t.Fatalf("no file of %s", kind)
		}
		for _, change := range sorted(hostileChanges) {
			for _, act := range sorted(hostileActs) {
				for n := range 4 {
					p := point{kind, change, act, n&1 > 0, n&2 > 0}
					if change == "removed without a trace" && kind != "snapshots/" {
						continue
					}
					if act == "mirror" && (change == "counterfeits" || change == "junk") && (kind == "keys/" || kind == "index/" || kind == "snapshots/") {
						always = append(always, p)
						continue
					}
					points = append(points, p)
				}
			}
		}
	}
	for _, n := range faultpoint.Choose(t, len(points), 40) {
		always = append(always, points[n])
	}
	for _, p := range always {
		source, target := g.now.Clone(), g.mirror.Clone()
		names := g.files(source, p.kind)
		if len(names) == 0 {
			continue
		}
		if !p.all {
			names = names[:1]
		}
		hostileChanges[p.change](g, source, names)
		hostileActs[p.act](g, source, target)
		secrets := [][]byte{repotest.Secret}
		if p.act != "key remove" && !(p.kind == "keys/" && p.withKey) { // the user or the key's owner may have removed them
			secrets = append(secrets, []byte("first"), []byte("second"))
		}
		for run := range 3 {
			before := repotest.Content(t, target)
			ended := g.follow(source, target, p.withKey)
			err := g.givesBack(target, secrets...)
			if errors.Is(ended, mirror.ErrRefused) && !maps.EqualFunc(before, repotest.Content(t, target), bytes.Equal) {
				err = errors.Join(err, errors.New("a run that stopped has changed the target"))
			}
			noticed := p.change == "junk" || p.change == "counterfeits" && p.kind != "keys/"
			if ended == nil && p.all && p.act == "mirror" && noticed && slices.Contains([]string{"keys/", "index/", "snapshots/"}, p.kind) {
				err = errors.Join(err, errors.New("the run says that all is well"))
			}
			if err != nil && p.act == "repair without a copy" && !p.withKey {
				// The user has marked files as lost that only the mirror has. Without the key,
				// the mirror has followed; its own repair finds them.
				err = errors.Join(repotest.RepairSnapshots(target), g.givesBack(target, secrets...))
			}
			if err != nil {
				t.Fatalf("%+v: after run %d of the mirror (%v): %v", p, run+1, ended, err)
			}
		}
	}
}

// Somebody without the key changes the mirror. Neither a mirror run nor a repair from it
// harms the repository.
func TestHostileMirror(t *testing.T) {
	t.Parallel()
	g := newHostileRig(t)
	changes := sorted(hostileChanges)
	for _, n := range faultpoint.Choose(t, len(hostileKinds)*len(changes)*4, 20) {
		kind, change := hostileKinds[n/4/len(changes)], changes[n/4%len(changes)]
		source, target := g.now.Clone(), g.mirror.Clone()
		names := g.files(target, kind)
		if len(names) == 0 {
			continue
		}
		if n&1 == 0 {
			names = names[:1]
		}
		hostileChanges[change](g, target, names)
		_ = g.follow(source, target, n&2 == 0)
		if !maps.EqualFunc(repotest.Content(t, g.now), repotest.Content(t, source), bytes.Equal) {
			t.Fatalf("%s %s: the mirror run has changed the source", kind, change)
		}
		hostileActs["repair"](g, source, target)
		if err := g.givesBack(source, repotest.Secret, []byte("first"), []byte("second")); err != nil {
			t.Fatalf("%s %s: %v", kind, change, err)
		}
	}
}

func sorted[T any](m map[string]T) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
