package agent

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/protocol/devicelink"
)

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
func (b *backup) file(rec manifest.Record) upload {
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
