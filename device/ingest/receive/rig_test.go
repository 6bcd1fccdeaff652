package receive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/catalog"
	"github.com/snap-backup/snap/device/ingest"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/protocol/backup2"
	"github.com/snap-backup/snap/device/protocol/plist"
	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/repotest"
	"github.com/snap-backup/snap/repo/tree"
)

// options returns repository options that make a process repeatable. A larger
// seed stands for a later process.
// seed is the seed of a process's randomness, and the number of days by which its
// clock is ahead of 2027-01-01. Each process of a test has another one.
type seed byte

func options(n seed) repo.Options {
	opts := repotest.Options(byte(n))
	opts.PackSize = 128 << 10
	opts.Now = repotest.Clock(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, int(n)), time.Second)
	return opts
}

func createRepo(t testing.TB, be backend.Backend) *repo.Repo {
	t.Helper()
	r, err := repo.Create(context.Background(), be, repotest.Secret, repotest.SlotInfo, options(seed(1)))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func openRepo(be backend.Backend, n seed) (*repo.Repo, error) {
	return repotest.Open(context.Background(), be, repotest.Secret, options(n))
}

func mustOpen(t testing.TB, be backend.Backend, n seed) *repo.Repo {
	t.Helper()
	return repotest.MustOpenWith(t, be, repotest.Secret, options(n))
}

// phone acts as a device. It has the content of a backup folder, and backs it
// up to another folder in the same steps as real devices.
type phone struct {
	dir  string // of the content
	udid string
	// The phone's memory: the run that it is in, and the content that it has sent
	// in this run.
	run  string
	sent map[string]string

	step    func(name string) error // called at each step; an error interrupts the backup
	uploads int
	again   bool // the phone sends files twice, as if they had changed meanwhile
}

func newPhone(dir string) *phone { return &phone{dir: dir, udid: filepath.Base(dir)} }

func (p *phone) at(name string) error {
	if p.step == nil {
		return nil
	}
	return p.step(name)
}

func (p *phone) read(rel string) []byte {
	b, err := os.ReadFile(filepath.Join(p.dir, filepath.FromSlash(rel)))
	if err != nil {
		panic(err)
	}
	return b
}

// blobs returns the paths of the phone's files.
func (p *phone) blobs() []string {
	var out []string
	for b := range 256 {
		names, err := os.ReadDir(filepath.Join(p.dir, catalog.ByteName(byte(b))))
		if err != nil {
			panic(err)
		}
		for _, n := range names {
			out = append(out, catalog.ByteName(byte(b))+"/"+n.Name())
		}
	}
	return out
}

func get(ctx context.Context, f backup2.Folder, path string) ([]byte, error) {
	r, err := f.Open(ctx, path)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(r)
	return b, errors.Join(err, r.Close())
}

func (p *phone) put(ctx context.Context, f backup2.Folder, path string, data []byte) error {
	up, err := f.Create(ctx, p.udid+"/"+path)
	if err != nil {
		return err
	}
	p.uploads++
	for part := range slices.Chunk(data, 32<<10) {
		if err := p.at("bytes of " + path); err != nil {
			up.Abort()
			return err
		}
		if _, err := up.Write(part); err != nil {
			up.Abort()
			return err
		}
	}
	return up.Commit()
}

func (p *phone) status(state string) []byte {
	d, err := plist.Dict(p.read("Status.plist"))
	if err != nil {
		panic(err)
	}
	d["SnapshotState"] = state
	b, err := plist.EncodeBinary(d)
	if err != nil {
		panic(err)
	}
	return b
}

// names lists the blobs below a folder of the host.
func (p *phone) names(ctx context.Context, f backup2.Folder, below string) (map[string]bool, error) {
	all := map[string]bool{}
	items, err := f.List(ctx, below)
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err != nil {
		return nil, err
	}
	for _, it := range items {
		if !it.Dir || len(it.Name) != 2 {
			continue
		}
		files, err := f.List(ctx, below+"/"+it.Name)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			all[it.Name+"/"+file.Name] = true
		}
	}
	return all, nil
}

// backup performs one run. old is the phone's content at its last backup, by
// path. Blobs that have not changed since are not sent.
func (p *phone) backup(ctx context.Context, f backup2.Folder, old map[string]string) error {
	u := p.udid + "/"
	state, err := get(ctx, f, u+"Status.plist")
	if errors.Is(err, fs.ErrNotExist) {
		old = nil
	} else if err != nil {
		return err
	} else if parseStatus(state).state == stateFinished {
		for _, name := range []string{"Manifest.plist", "Manifest.db"} {
			b, err := get(ctx, f, u+name)
			if err != nil || len(b) == 0 {
				return fmt.Errorf("%s of the last backup: %d bytes, %w", name, len(b), err)
			}
		}
	}
	here, err := p.names(ctx, f, p.udid)
	if err != nil {
		return err
	}
	for path := range old {
		if !here[path] {
			old = nil // the phone regards the backup as damaged
			break
		}
	}
	if old == nil {
		old = map[string]string{}
	}
	was := parseStatus(state)
	arrived := map[string]bool{}
	if was.state != stateFinished && was.run != "" && was.run == p.run {
		if arrived, err = p.names(ctx, f, p.udid+"/Snapshot"); err != nil {
			return err
		}
	} else {
		p.sent = map[string]string{}
	}
	p.run = parseStatus(p.read("Status.plist")).run
	if _, err := f.Space(ctx); err != nil {
		return err
	}
	for b := range 256 {
		for _, dir := range []string{catalog.ByteName(byte(b)), "Snapshot/" + catalog.ByteName(byte(b))} {
			if err := f.Mkdir(ctx, u+dir); err != nil {
				return err
			}
		}
	}
	var move []string
	if was.state != stateMoving || len(arrived) == 0 {
		if err := p.put(ctx, f, "Status.plist", p.status(stateUploading)); err != nil {
			return err
		}
		for _, path := range p.blobs() {
			data := p.read(path)
			if old[path] == string(data) && here[path] {
				continue
			}
			move = append(move, path)
			if p.sent[path] == string(data) && arrived[path] {
				continue
			}
			if err := p.at("file"); err != nil {
				return err
			}
			if p.again {
				if err := p.put(ctx, f, "Snapshot/"+path, append([]byte("earlier"), data...)); err != nil {
					return err
				}
				if err := p.at("again"); err != nil {
					return err
				}
			}
			if err := p.put(ctx, f, "Snapshot/"+path, data); err != nil {
				return err
			}
			p.sent[path] = string(data)
		}
		if err := p.at("manifests"); err != nil {
			return err
		}
		for _, name := range []string{"Manifest.plist", "Manifest.db"} {
			if err := p.put(ctx, f, "Snapshot/"+name, p.read(name)); err != nil {
				return err
			}
		}
		if err := p.put(ctx, f, "Status.plist", p.status(stateMoving)); err != nil {
			return err
		}
	} else {
		move = slices.Sorted(maps.Keys(arrived))
	}
	for _, path := range append(move, "Manifest.plist", "Manifest.db") {
		if err := p.at("move"); err != nil {
			return err
		}
		if err := f.Move(ctx, u+"Snapshot/"+path, u+path); err != nil {
			return err
		}
	}
	if err := p.put(ctx, f, "Status.plist", p.status("removing")); err != nil {
		return err
	}
	mine := map[string]bool{}
	for _, path := range p.blobs() {
		mine[path] = true
	}
	for path := range here {
		if !mine[path] {
			if err := f.Remove(ctx, u+path); err != nil {
				return err
			}
		}
	}
	if err := f.Remove(ctx, u+"Snapshot"); err != nil {
		return err
	}
	if err := f.Remove(ctx, u+"Manifest.mbdx"); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removed what is not there: %v", err)
	}
	if err := p.at("finish"); err != nil {
		return err
	}
	if err := p.put(ctx, f, "Status.plist", p.read("Status.plist")); err != nil {
		return err
	}
	return p.verify(ctx, f, mine)
}

func (p *phone) verify(ctx context.Context, f backup2.Folder, mine map[string]bool) error {
	for _, name := range []string{"Status.plist", "Manifest.plist", "Manifest.db"} {
		b, err := get(ctx, f, p.udid+"/"+name)
		if err != nil || !bytes.Equal(b, p.read(name)) {
			return fmt.Errorf("%s comes back as %d bytes, %w", name, len(b), err)
		}
	}
	here, err := p.names(ctx, f, p.udid)
	if err != nil {
		return err
	}
	if !maps.Equal(here, mine) {
		return fmt.Errorf("a device would fail with error 205: %d names are listed, want %d", len(here), len(mine))
	}
	return p.at("verified")
}

// state returns the phone's present content, which the next backup gets as old.
func (p *phone) state() map[string]string {
	out := map[string]string{}
	for _, path := range p.blobs() {
		out[path] = string(p.read(path))
	}
	return out
}

// firstDay returns a device on its first day. Tests must not change it. Its
// password is synthetic.DefaultPassword.
func firstDay(t testing.TB, encryption synthetic.Encryption) *phone {
	t.Helper()
	dir, err := firstDays[encryption == synthetic.EncryptNone]()
	if err != nil {
		t.Fatal(err)
	}
	return newPhone(dir)
}

var firstDays = map[bool]func() (string, error){
	true:  sync.OnceValues(func() (string, error) { return makeFirstDay(synthetic.EncryptNone) }),
	false: sync.OnceValues(func() (string, error) { return makeFirstDay(synthetic.EncryptAll) }),
}

func makeFirstDay(encryption synthetic.Encryption) (string, error) {
	dir, err := os.MkdirTemp(shared, "")
	if err != nil {
		return "", err
	}
	state, err := os.MkdirTemp(shared, "")
	if err != nil {
		return "", err
	}
	devices, err := synthetic.Generate(context.Background(), dir, synthetic.Config{Seed: 5, Scale: synthetic.Tiny, Encryption: encryption, StateDir: state}, 1)
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, devices[0].UDID), nil
}

// series is a synthetic device over some days.
type series struct {
	*synthetic.Series
	t       testing.TB
	folders string
	phone   *phone
}

func newSeries(t testing.TB, conf synthetic.Config) *series {
	t.Helper()
	return newSeriesIn(t, conf, t.TempDir())
}

func newSeriesIn(t testing.TB, conf synthetic.Config, folders string) *series {
	t.Helper()
	conf.StateDir, conf.Scale = t.TempDir(), synthetic.Tiny
	s, err := synthetic.New(conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return &series{s, t, folders, newPhone(filepath.Join(folders, s.Devices()[0].UDID))}
}

func (s *series) next() {
	s.t.Helper()
	if err := s.Next(context.Background(), s.folders); err != nil {
		s.t.Fatal(err)
	}
}

// run makes a backup of a phone.
func run(r *repo.Repo, p *phone, old map[string]string, opts Options) (*Result, error) {
	ctx := context.Background()
	opts.UDID = p.udid
	n, err := New(ctx, r, opts)
	if err != nil {
		return nil, err
	}
	if err := n.SetInfo(p.read("Info.plist")); err != nil {
		return nil, errors.Join(err, n.Close(ctx))
	}
	if err := p.backup(ctx, n, old); err != nil {
		return nil, errors.Join(err, n.Close(ctx))
	}
	res, err := n.Publish(ctx, PublishOptions{Workers: 1, Tags: []string{"tag"}})
	return res, errors.Join(err, n.Close(ctx))
}

func mustRun(t testing.TB, r *repo.Repo, p *phone, old map[string]string, opts Options) *Result {
	t.Helper()
	res, err := run(r, p, old, opts)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// folderContents is the content of a folder by path.
func folderContents(dir string) (map[string]string, error) {
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			out[rel] = "folder"
			return nil
		}
		b, err := os.ReadFile(path)
		out[rel] = "file:" + string(b)
		return err
	})
	return out, err
}

// snapshotContents is the content of a snapshot by path.
func snapshotContents(r *repo.Repo, s *repo.Snapshot) (map[string]string, error) {
	ctx := context.Background()
	out := map[string]string{}
	err := r.Walk(ctx, s, "", func(e *tree.Entry) error {
		if e.Kind == tree.Dir {
			out[e.Path] = "folder"
			return nil
		}
		f, err := blob.Open(ctx, r, e)
		if err != nil {
			return err
		}
		b, err := io.ReadAll(f)
		out[e.Path] = "file:" + string(b)
		return err
	})
	return out, err
}

func sameContents(want, got map[string]string) error {
	var diff []string
	for p, w := range want {
		if g, ok := got[p]; !ok {
			diff = append(diff, p+" is missing")
		} else if g != w {
			diff = append(diff, fmt.Sprintf("%s has %d bytes, want %d", p, len(g), len(w)))
		}
	}
	for p := range got {
		if _, ok := want[p]; !ok {
			diff = append(diff, p+" should not be there")
		}
	}
	if len(diff) == 0 {
		return nil
	}
	slices.Sort(diff)
	return fmt.Errorf("%d differences: %s", len(diff), strings.Join(diff[:min(5, len(diff))], "; "))
}

// sameAsImport imports the phone's folder beside the snapshot of a run. Both
// snapshots must have the same entries, except for metadata of the host's file
// system.
func sameAsImport(t testing.TB, r *repo.Repo, p *phone, s *repo.Snapshot, password string) repo.FileID {
	t.Helper()
	ctx := context.Background()
	b, err := mobilesync.Open(ctx, p.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if password != "" {
		if _, err := b.Unlock(ctx, []byte(password), nil); err != nil {
			t.Fatal(err)
		}
	}
	res, err := ingest.Import(ctx, r, b, ingest.Options{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	// Later imports prefer a parent from the same folder.
	if s.Parent == nil && (res.Snapshot.Parent == nil || *res.Snapshot.Parent != s.ID) {
		t.Errorf("the import has parent %v, want %s", res.Snapshot.Parent, s.ID.Short())
	}
	if res.Snapshot.Encrypted != s.Encrypted || res.Snapshot.Unlocked != s.Unlocked || !res.Snapshot.Time.Equal(s.Time) ||
		res.Snapshot.Device != s.Device || res.Snapshot.Files != s.Files || res.Snapshot.Bytes != s.Bytes || !s.Complete {
		t.Errorf("snapshot %+v, import %+v", s, res.Snapshot)
	}
	entries := func(s *repo.Snapshot) map[string]string {
		out := map[string]string{}
		err := r.Walk(ctx, s, "", func(e *tree.Entry) error {
			key := [32]byte{}
			if e.Encryption != nil {
				key = e.Encryption.Key
			}
			out[e.Path] = fmt.Sprintf("%d %o %q %q %v %x %v", e.Kind, 0, e.Domain, e.Name, e.Record, key, e.Content)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	want, got := entries(res.Snapshot), entries(s)
	wrong := 0
	for p, w := range want {
		if got[p] != w {
			if wrong++; wrong < 4 {
				t.Errorf("%s is %s, imported as %s", p, got[p], w)
			}
		}
	}
	if len(got) != len(want) || wrong > 0 {
		t.Errorf("%d entries, imported %d; %d differ", len(got), len(want), wrong)
	}
	return res.Snapshot.ID
}

// importFolder imports the phone's folder.
func importFolder(t testing.TB, r *repo.Repo, p *phone) {
	t.Helper()
	ctx := context.Background()
	b, err := mobilesync.Open(ctx, p.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, err := ingest.Import(ctx, r, b, ingest.Options{Workers: 1}); err != nil {
		t.Fatal(err)
	}
}

// copyFolder copies a backup folder.
func copyFolder(t testing.TB, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}
