package agent

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/snap-backup/snap/device/devicelink"
	"github.com/snap-backup/snap/device/mobilesync"
)

const (
	maxBatch = 128       // files of one message
	reserve  = 128 << 20 // bytes that have to stay free on the host
	urgency  = 4
	purge    = 2 << 30 // bytes asked for beyond what is needed
)

// backup is one backup under way.
type backup struct {
	*talk
	dir  string // the host's folder, in its paths
	work string // folder for working copies, which is removed

	content    Content
	generation int
	records    *mobilesync.Records

	cache    *cache
	old      *oldSet // nil in a full run
	names    listing // what the host has of the old backup; nil if it was not asked
	snapshot listing // what the host has of the broken run
	plainBag []byte  // of an old plain backup
	aside    string  // where an old backup of another era was moved
}

// folderOf returns the folder on the host that a request is about.
func (t *talk) folderOf(request map[string]any) (string, error) {
	target, _ := request["TargetIdentifier"].(string)
	source, _ := request["SourceIdentifier"].(string)
	if target != t.agent.me.UDID {
		t.agent.violate("%s with the target %q on the device %s", t.run.Operation, target, t.agent.me.UDID)
		return "", fail(codeGeneric, "this device is not %q", target)
	}
	if source != "" {
		return source, nil
	}
	return target, nil
}

func (t *talk) backup(request map[string]any) error {
	dir, err := t.folderOf(request)
	if err != nil {
		return err
	}
	if err := t.unlocked(); err != nil {
		return err
	}
	work, err := os.MkdirTemp(t.agent.opts.StateDir, "run-")
	if err != nil {
		return err
	}
	b := &backup{talk: t, dir: dir, work: work}
	return errors.Join(b.play(), os.RemoveAll(work))
}

func (b *backup) play() error {
	if err := b.at(StepStatus); err != nil {
		return err
	}
	status, err := b.readStatus()
	if err != nil {
		return err
	}
	if err := b.at(StepScan); err != nil {
		return err
	}
	if err := b.begin(status); err != nil {
		return err
	}
	if err := b.sendAll(); err != nil {
		return err
	}
	if err := b.sendManifests(); err != nil {
		return err
	}
	if err := b.moveAll(); err != nil {
		return err
	}
	if err := b.removeAll(); err != nil {
		return err
	}
	if err := b.sendStatus(StepFinished, "finished", "new", false); err != nil {
		return err
	}
	if err := b.verify(); err != nil {
		return err
	}
	b.agent.remember(b.cache)
	return nil
}

// begin finds out what kind of run this is.
func (b *backup) begin(s *status) error {
	switch {
	case s == nil:
	case s.old():
		b.aside = b.dir + "-" + b.now().Format("20060102-150405")
		if err := b.want(nil, b.moveName(), map[string]string{b.dir: b.aside}, map[string]any{}, 0.0); err != nil {
			return err
		}
	case s.snapshot == "uploading":
		return b.resume(s)
	case s.snapshot == "moving" || s.snapshot == "removing":
		b.note(func(r *Run) { r.Resumed = s.snapshot })
		if err := b.complete(s); err != nil {
			return err
		}
		if err := b.loadOld(true); err != nil {
			return err
		}
	case s.snapshot == "finished" && s.full:
		// The first thing that a host writes when it wants a full backup.
	case s.snapshot == "finished":
		if err := b.loadOld(true); err != nil {
			return err
		}
	}
	return b.newRun()
}

func (b *backup) newRun() error {
	c, err := b.newCache(b.old == nil)
	if err != nil {
		return err
	}
	if password := b.agent.secret(); len(password) > 0 {
		if b.old != nil {
			err = b.lock(c, nil, b.old.bag, b.old.keys)
		} else {
			err = b.lock(c, password, nil, nil)
		}
		if err != nil {
			return err
		}
	} else if b.old != nil {
		b.plainBag = b.old.bag
	}
	if b.old != nil {
		c.base = b.agent.sets[b.old.sum]
	}
	b.cache = c
	b.agent.unfinished = c
	b.note(func(r *Run) { r.UUID, r.Full = c.uuid, c.full })
	return nil
}

func (b *backup) note(change func(*Run)) { b.agent.note(b.run, change) }

func (b *backup) now() time.Time { return b.agent.opts.Clock().UTC().Truncate(time.Second) }

func (b *backup) moveName() string {
	if b.agent.opts.OldNames {
		return "DLMessageMoveFiles"
	}
	return "DLMessageMoveItems"
}

func (b *backup) removeName() string {
	if b.agent.opts.OldNames {
		return "DLMessageRemoveFiles"
	}
	return "DLMessageRemoveItems"
}

// scan looks at what is on the device.
func (b *backup) scan() (err error) {
	b.content, b.generation = b.agent.current()
	b.records, err = b.content.Records(b.ctx)
	return err
}

func (b *backup) oldRecord(id fileID) (mobilesync.Record, bool) {
	if b.old == nil {
		return mobilesync.Record{}, false
	}
	i, ok := b.old.records.ByFileID(id)
	if !ok {
		return mobilesync.Record{}, false
	}
	return b.old.records.At(i), true
}

// unchanged reports whether the old backup has the file as it is now.
func (b *backup) unchanged(r *mobilesync.Record) bool {
	old, ok := b.oldRecord(r.FileID)
	return ok && old.IsFile() && stateOf(&old) == stateOf(r) && (old.EncryptionKey != nil) == (b.cache.locks != nil)
}

// plan lists the records whose files have to be sent, and tells their size.
func (b *backup) plan() (list []int32, size int64) {
	kept, spared, resent := 0, 0, 0
	for i, rec := range b.records.All() {
		if !rec.IsFile() || !rec.HasFileID {
			continue
		}
		if s, ok := b.cache.sent[rec.FileID]; ok {
			if s.state == stateOf(&rec) && (b.run.Rounds > 0 || b.snapshot.has(rec.FileID)) {
				if b.run.Rounds == 0 {
					spared++
				}
				continue
			}
			if b.run.Rounds == 0 {
				resent++
			}
		} else if b.unchanged(&rec) {
			kept++
			continue
		}
		list = append(list, int32(i))
		size += rec.Size
	}
	b.note(func(r *Run) {
		if r.Rounds == 0 {
			r.Kept, r.Spared, r.Resent = kept, spared, resent
		}
	})
	return list, size
}

// sendAll sends the files, again and again until none has changed meanwhile.
func (b *backup) sendAll() error {
	for {
		if err := b.scan(); err != nil {
			return err
		}
		list, size := b.plan()
		if err := b.space(size); err != nil {
			return err
		}
		if err := b.folders(); err != nil {
			return err
		}
		state := "empty"
		if !b.cache.full {
			state = "old"
		}
		if err := b.sendStatus(StepUploading, "uploading", state, b.cache.full); err != nil {
			return err
		}
		b.note(func(r *Run) { r.Rounds++ })
		if err := b.sendFiles(list); err != nil {
			return err
		}
		if _, generation := b.agent.current(); generation == b.generation {
			return nil
		}
	}
}

// space makes sure that the host has room.
func (b *backup) space(size int64) error {
	if err := b.at(StepSpace); err != nil {
		return err
	}
	need := size + reserve
	if b.quirks.total > 0 {
		need, b.quirks.total = b.quirks.total, 0
	}
	free, known, err := b.freeSpace()
	if err != nil || !known || free >= need {
		return err
	}
	s, err := b.ask("DLMessagePurgeDiskSpace", need+purge, urgency)
	if err != nil {
		return err
	}
	if s.Code == devicelink.StatusOK {
		if free, known, err = b.freeSpace(); err != nil || !known || free >= need {
			return err
		}
	}
	return fail(codeHostFull, "%s (%d bytes needed, %d free)", describe(codeHostFull), need, free)
}

func (t *talk) freeSpace() (free int64, known bool, err error) {
	s, err := t.ask("DLMessageGetFreeDiskSpace")
	if err != nil || s.Code != devicelink.StatusOK {
		return 0, false, err
	}
	free, ok := devicelink.Int(s.Payload)
	if !ok {
		t.agent.violate("DLMessageGetFreeDiskSpace is answered by a %T", s.Payload)
	}
	return free, ok, nil
}

func (b *backup) folders() error {
	if err := b.at(StepFolders); err != nil {
		return err
	}
	for _, top := range []string{b.dir, b.dir + "/Snapshot"} {
		if err := b.mkdir(top); err != nil {
			return err
		}
		for i := range 256 {
			if err := b.mkdir(fmt.Sprintf("%s/%02x", top, i)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *backup) mkdir(path string) error {
	return b.want([]int64{devicelink.StatusExists}, "DLMessageCreateDirectory", path, map[string]any{})
}

// sendFiles sends the files of the records of list.
func (b *backup) sendFiles(list []int32) error {
	for done := 0; done < len(list); done += maxBatch {
		if err := b.at(StepUpload); err != nil {
			return err
		}
		batch := list[done:min(done+maxBatch, len(list))]
		progress := 100 * float64(done) / float64(len(list))
		if err := b.sendBatch(batch, progress); err != nil {
			return err
		}
	}
	return nil
}

func (b *backup) sendBatch(batch []int32, progress float64) error {
	files := make([]upload, 0, len(batch)+1)
	var total int64
	for _, i := range batch {
		rec := b.records.At(int(i))
		total += rec.Size
		files = append(files, b.file(rec))
	}
	if b.quirks.readError {
		files[0].content = half(files[0].content)
	}
	if b.quirks.twice {
		rec := b.records.At(int(batch[0]))
		files = append(files, b.file(rec))
		total += rec.Size
	}
	if b.quirks.total > 0 {
		total = b.quirks.total
	}
	b.quirks = quirks{}
	return b.uploads(files, progress, max(total, 1))
}

// file is how the file of a record is sent.
func (b *backup) file(rec mobilesync.Record) upload {
	var out *outgoing
	name := hex.EncodeToString(rec.FileID[:])
	return upload{
		device: "/.ba/mobile/" + rec.Domain + "/" + rec.RelativePath,
		host:   b.dir + "/Snapshot/" + name[:2] + "/" + name,
		content: func() (io.ReadCloser, error) {
			var err error
			out, err = b.cache.open(b.ctx, b.agent, b.content, &rec)
			if err != nil {
				return nil, err
			}
			return out, nil
		},
		sent: func(n int64, err error) {
			b.note(func(r *Run) {
				r.Files++
				r.Bytes += n
				if err != nil {
					r.Failed++
				}
			})
			if err != nil {
				delete(b.cache.sent, rec.FileID)
				return
			}
			b.cache.sent[rec.FileID] = sent{state: stateOf(&rec), digest: [20]byte(out.sum.Sum(nil)), key: out.key}
		},
	}
}

// half makes a file unreadable from its middle on.
func half(open func() (io.ReadCloser, error)) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) {
		file, err := open()
		if err != nil {
			return nil, err
		}
		b, err := io.ReadAll(io.LimitReader(file, 64<<10))
		if err != nil {
			return nil, errors.Join(err, file.Close())
		}
		return struct {
			io.Reader
			io.Closer
		}{io.MultiReader(newBytes(b[:len(b)/2]), broken{}), file}, nil
	}
}

// broken is what cannot be read.
type broken struct{}

func (broken) Read([]byte) (int, error) {
	return 0, errors.New("Error reading from the device (MBErrorDomain/101)")
}

// sendManifests sends what the backup will be judged by.
func (b *backup) sendManifests() error {
	if err := b.at(StepManifests); err != nil {
		return err
	}
	path := filepath.Join(b.work, mobilesync.ManifestDB)
	if err := b.buildManifest(path); err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	list, err := b.manifestPlist()
	if err != nil {
		return err
	}
	if err := b.uploads([]upload{bytesUpload(b.dir+"/Snapshot/"+mobilesync.ManifestPlist, list)}, -1, 0); err != nil {
		return err
	}
	sum := newSum()
	err = b.uploads([]upload{{
		device: "/var/.ba/" + mobilesync.ManifestDB,
		host:   b.dir + "/Snapshot/" + mobilesync.ManifestDB,
		content: func() (io.ReadCloser, error) {
			f, err := sealedFile(path, b.cache.locks)
			if err != nil {
				return nil, err
			}
			return struct {
				io.Reader
				io.Closer
			}{io.TeeReader(f, sum), f}, nil
		},
	}}, -1, 0)
	if err != nil {
		return err
	}
	b.agent.told.plist, b.agent.told.manifest, b.agent.told.uuid = list, [32]byte(sum.Sum(nil)), b.cache.uuid
	return nil
}

// moveAll moves what was sent, and is in the manifest, to its place.
func (b *backup) moveAll() error {
	if err := b.sendStatus(StepMoving, "moving", "new", b.cache.full); err != nil {
		return err
	}
	moves := &moves{talk: b.talk, name: b.moveName(), total: len(b.cache.sent)}
	for _, rec := range b.records.All() {
		if _, ok := b.cache.sent[rec.FileID]; ok && rec.IsFile() {
			if err := moves.add(b.dir+"/Snapshot/", b.dir+"/", mobilesync.BlobPath(mobilesync.Hashed, rec.FileID)); err != nil {
				return err
			}
		}
	}
	for _, name := range []string{"", mobilesync.ManifestPlist, mobilesync.ManifestDB} {
		if name != "" {
			if err := moves.add(b.dir+"/Snapshot/", b.dir+"/", name); err != nil {
				return err
			}
		}
		if err := moves.flush(); err != nil {
			return err
		}
	}
	return nil
}

// moves gathers moves into batches.
type moves struct {
	*talk
	name  string
	total int
	done  int
	batch map[string]string
}

func (m *moves) add(from, to, name string) error {
	if m.batch == nil {
		m.batch = map[string]string{}
	}
	m.batch[from+name] = to + name
	if len(m.batch) == maxBatch {
		return m.flush()
	}
	return nil
}

func (m *moves) flush() error {
	if len(m.batch) == 0 {
		return nil
	}
	if err := m.at(StepMove); err != nil {
		return err
	}
	if err := m.want(nil, m.name, m.batch, map[string]any{}, 100*float64(m.done)/float64(max(m.total, 1))); err != nil {
		return err
	}
	m.done += len(m.batch)
	m.agent.note(m.run, func(r *Run) { r.Moved += len(m.batch) })
	clear(m.batch)
	return nil
}

// removeAll removes what the manifest no longer names, and what is left over.
func (b *backup) removeAll() error {
	if err := b.sendStatus(StepRemoving, "removing", "new", b.cache.full); err != nil {
		return err
	}
	var gone []string
	for _, id := range b.names.sorted() {
		if _, ok := b.records.ByFileID(id); !ok {
			gone = append(gone, b.dir+"/"+mobilesync.BlobPath(mobilesync.Hashed, id))
		}
	}
	b.note(func(r *Run) { r.Removed = len(gone) })
	for len(gone) > 0 {
		n := min(maxBatch, len(gone))
		if err := b.removeItems(gone[:n]...); err != nil {
			return err
		}
		gone = gone[n:]
	}
	return b.removeLeftovers()
}

func (b *backup) removeLeftovers() error {
	last := []string{b.dir + "/Snapshot", b.dir + "/Manifest.mbdx"}
	if b.aside != "" {
		last = append(last, b.aside)
	}
	for _, path := range last {
		if err := b.removeItems(path); err != nil {
			return err
		}
	}
	return nil
}

func (b *backup) removeItems(paths ...string) error {
	if err := b.at(StepRemove); err != nil {
		return err
	}
	return b.want(nil, b.removeName(), paths, map[string]any{}, 99.0)
}

// remember ends a run: what it made is known from now on.
func (a *Agent) remember(c *cache) {
	sums := make(map[fileID][20]byte, len(c.sent))
	for id, s := range c.sent {
		sums[id] = s.digest
	}
	a.sets[a.told.manifest] = &set{parent: c.base, sums: sums}
	a.unfinished = nil
}
