package agent

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/protocol/devicelink"
	"github.com/snap-backup/snap/device/simulator/faults"
	"github.com/snap-backup/snap/device/simulator/hostfiles"
	"github.com/snap-backup/snap/device/simulator/mberror"
)

// sendAll sends the files, in rounds, until the content no longer changes.
func (b *backup) sendAll() error {
	for {
		if err := b.scan(); err != nil {
			return err
		}
		list, size := b.plan()
		if err := b.checkSpace(size); err != nil {
			return err
		}
		if err := b.folders(); err != nil {
			return err
		}
		state := "empty"
		if !b.cache.full {
			state = "old"
		}
		if err := b.sendStatus(faults.StepUploading, "uploading", state, b.cache.full); err != nil {
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

// checkSpace checks that the host has enough free space for size bytes.
func (b *backup) checkSpace(size int64) error {
	if err := b.reach(faults.StepSpace); err != nil {
		return err
	}
	need := size + reserve
	if b.quirks.total > 0 {
		need, b.quirks.total = b.quirks.total, 0
	}
	free, known, err := b.FreeSpace()
	if err != nil || !known || free >= need {
		return err
	}
	s, err := b.Ask("DLMessagePurgeDiskSpace", need+purge, urgency)
	if err != nil {
		return err
	}
	if s.Code == devicelink.StatusOK {
		if free, known, err = b.FreeSpace(); err != nil || !known || free >= need {
			return err
		}
	}
	return mberror.Errorf(mberror.HostFull, "%s (%d bytes needed, %d free)", mberror.Describe(mberror.HostFull), need, free)
}

func (b *backup) folders() error {
	if err := b.reach(faults.StepFolders); err != nil {
		return err
	}
	for _, top := range []string{b.dir, b.dir + "/Snapshot"} {
		if err := b.Mkdir(top); err != nil {
			return err
		}
		for i := range 256 {
			if err := b.Mkdir(fmt.Sprintf("%s/%02x", top, i)); err != nil {
				return err
			}
		}
	}
	return nil
}

// sendFiles sends the files of some records.
func (b *backup) sendFiles(list []int32) error {
	for done := 0; done < len(list); done += maxBatch {
		if err := b.reach(faults.StepUpload); err != nil {
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
	files := make([]hostfiles.Upload, 0, len(batch)+1)
	var total int64
	for _, i := range batch {
		rec := b.records.At(int(i))
		total += rec.Size
		files = append(files, b.file(rec))
	}
	if b.quirks.readError {
		files[0].Open = failHalfway(files[0].Open)
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
	return b.Upload(files, progress, max(total, 1))
}

// file returns the upload that sends the file of a record.
func (b *backup) file(rec manifest.Record) hostfiles.Upload {
	var out *outgoing
	name := hex.EncodeToString(rec.FileID[:])
	return hostfiles.Upload{
		DevicePath: "/.ba/mobile/" + rec.Domain + "/" + rec.RelativePath,
		HostPath:   b.dir + "/Snapshot/" + name[:2] + "/" + name,
		Open: func() (io.ReadCloser, error) {
			var err error
			out, err = b.cache.open(b.ctx, b.agent, b.content, &rec)
			if err != nil {
				return nil, err
			}
			return out, nil
		},
		Sent: func(n int64, err error) {
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

// failHalfway makes the second half of a file unreadable.
func failHalfway(open func() (io.ReadCloser, error)) func() (io.ReadCloser, error) {
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
		}{io.MultiReader(bytes.NewReader(b[:len(b)/2]), failing{}), file}, nil
	}
}

// failing is a reader that always fails.
type failing struct{}

func (failing) Read([]byte) (int, error) {
	return 0, errors.New("Error reading from the device (MBErrorDomain/101)") //nolint:staticcheck // Apple's text
}

// sendManifests sends Manifest.plist and Manifest.db.
func (b *backup) sendManifests() error {
	if err := b.reach(faults.StepManifests); err != nil {
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
	if err := b.UploadBytes(b.dir+"/Snapshot/"+mobilesync.ManifestPlist, list); err != nil {
		return err
	}
	sum := sha256.New()
	err = b.Upload([]hostfiles.Upload{{
		DevicePath: "/var/.ba/" + mobilesync.ManifestDB,
		HostPath:   b.dir + "/Snapshot/" + mobilesync.ManifestDB,
		Open: func() (io.ReadCloser, error) {
			f, err := encryptedFile(path, b.cache.encryption)
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
	if b.agent.expected.older == nil {
		b.agent.expected.older = map[string]bool{}
	}
	b.agent.expected.older[string(b.agent.expected.plist)] = true
	b.agent.expected.plist, b.agent.expected.manifest, b.agent.expected.uuid = list, [32]byte(sum.Sum(nil)), b.cache.uuid
	return nil
}
