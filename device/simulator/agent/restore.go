package agent

import (
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/protocol/plist"
	"github.com/snap-backup/snap/device/simulator/devicefiles"
	"github.com/snap-backup/snap/device/simulator/faults"
	"github.com/snap-backup/snap/device/simulator/hostfiles"
	"github.com/snap-backup/snap/device/simulator/mberror"
)

const (
	maxRestoreBatch = 31 // files in a batch
	maxRestoreBytes = 64 << 20
)

// RestoreOptions holds the options of a restore. If the host did not send an option,
// its field has the device's default. PreserveSettings has no effect.
type RestoreOptions struct {
	System, Reboot, DontCopy, PreserveSettings, RemoveOthers bool
}

func restoreOptions(request map[string]any) (o RestoreOptions, password []byte) {
	options, _ := request["Options"].(map[string]any)
	flag := func(name string, standard bool) bool {
		if v, ok := options[name].(bool); ok {
			return v
		}
		return standard
	}
	return RestoreOptions{
		System:           flag("RestoreSystemFiles", true),
		Reboot:           flag("RestoreShouldReboot", true),
		DontCopy:         flag("RestoreDontCopyBackup", false),
		PreserveSettings: flag("RestorePreserveSettings", false),
		RemoveOthers:     flag("RemoveItemsNotRestored", true),
	}, textOf(options["Password"])
}

// restore is a running restore.
type restore struct {
	*session
	dir     string // the backup folder on the host
	work    string
	options RestoreOptions

	manifest map[string]any // Manifest.plist
	info     []byte         // Info.plist
	backup   *oldBackup
	known    *digests // nil if this agent did not make the backup
	size     int64    // of Manifest.db, as stored on the host

	target string                               // folder of the new content
	plain  map[hostfiles.FileID][sha1.Size]byte // digests of the decrypted files

	refused error // in a rehearsal, why a device would have stopped
}

func (t *session) restore(request map[string]any) error {
	dir, err := t.folderOf(request)
	if err != nil {
		return err
	}
	if err := t.beginUnlocked(); err != nil {
		return err
	}
	r := &restore{session: t, dir: dir, plain: map[hostfiles.FileID][sha1.Size]byte{}}
	var password []byte
	r.options, password = restoreOptions(request)
	t.agent.note(t.run, func(run *Run) { run.Options = r.options })
	if t.agent.opts.Rehearsal != nil {
		return r.rehearse(password)
	}
	if r.work, err = os.MkdirTemp(t.agent.opts.StateDir, "run-"); err != nil {
		return err
	}
	return errors.Join(r.perform(password), os.RemoveAll(r.work))
}

func (r *restore) perform(password []byte) error {
	file, err := os.OpenFile(filepath.Join(r.work, mobilesync.ManifestDB), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(r.inspect(password, file), file.Close()); err != nil {
		return err
	}
	if err := r.safetyCopy(); err != nil {
		return err
	}
	if err := r.prepare(); err != nil {
		return err
	}
	if err := r.getFiles(r.getBatch); err != nil {
		return err
	}
	content, err := r.newContent()
	if err != nil {
		return err
	}
	r.applications()
	r.agent.SetContent(content)
	r.reboot = r.options.Reboot
	return nil
}

// inspect downloads the four files that describe the backup, and decides whether it
// can be restored. It keeps Manifest.db in file.
func (r *restore) inspect(password []byte, file Scratch) error {
	if err := r.reach(faults.StepStatus); err != nil {
		return err
	}
	raw, err := r.SmallFile(r.dir + "/" + mobilesync.StatusPlist)
	if err != nil {
		return err
	}
	if s := parseStatus(raw); s == nil || s.snapshot != "finished" {
		return mberror.Of(mberror.NoBackup)
	} else if text, refused := mobilesync.StatusVersion(s.version); refused {
		return mberror.Errorf(mberror.Incompatible, "%s", text)
	}
	if err := r.reach(faults.StepManifest); err != nil {
		return err
	}
	if raw, err = r.SmallFile(r.dir + "/" + mobilesync.ManifestPlist); err != nil {
		return err
	}
	if r.manifest, err = plist.Dict(raw); err != nil {
		return mberror.Errorf(mberror.Damaged, "%s: %v", mobilesync.ManifestPlist, err)
	}
	sum, size, found, err := r.downloadInto(r.dir+"/"+mobilesync.ManifestDB, file)
	if err != nil {
		return err
	}
	if !found {
		return mberror.Errorf(mberror.Damaged, "%s is missing", mobilesync.ManifestDB)
	}
	if r.info, err = r.SmallFile(r.dir + "/" + mobilesync.InfoPlist); err != nil {
		return err
	}
	info, err := plist.Dict(r.info)
	if err != nil {
		return mberror.Errorf(mberror.Damaged, "%s: %v", mobilesync.InfoPlist, err)
	}
	if err := r.compatible(info); err != nil {
		return err
	}
	r.known = r.agent.backups[sum]
	return r.open(file, sum, size, password)
}

// open reads the manifest, with the password if it is encrypted.
func (r *restore) open(file Scratch, sum [sha256.Size]byte, size int64, password []byte) (err error) {
	r.backup = &oldBackup{sum: sum}
	if encrypted, _ := r.manifest["IsEncrypted"].(bool); encrypted {
		if r.backup.keys, err = unlock(r.session, r.manifest, password); err != nil {
			if r.ctx.Err() != nil {
				return r.ctx.Err()
			}
			code := int64(mberror.Damaged)
			if errors.Is(err, keybag.ErrWrongPassword) {
				code = mberror.Password
			}
			return mberror.Errorf(code, "%s: %v", mberror.Describe(code), err)
		}
		r.backup.manifestKey, _ = r.manifest["ManifestKey"].([]byte)
	}
	if err := r.readManifest(file, size); err != nil {
		if r.ctx.Err() != nil {
			return r.ctx.Err()
		}
		return mberror.Errorf(mberror.Damaged, "%s: %v", mobilesync.ManifestDB, err)
	}
	r.size = size
	return nil
}

func (r *restore) readManifest(file Scratch, size int64) error {
	plain, size, err := r.backup.decrypted(file, size)
	if err != nil {
		return err
	}
	if rehearsal := r.agent.opts.Rehearsal; rehearsal != nil {
		if err := r.collect(rehearsal.Manifest(plain, size)); err != nil {
			return err
		}
	}
	r.backup.records, err = manifest.ReadDB(r.ctx, plain, size)
	return err
}

// compatible compares the version of the backup with that of the device.
func (r *restore) compatible(info map[string]any) error {
	own := r.agent.device.ProductVersion
	for _, v := range []any{r.manifest["RequiredProductVersion"], info["Product Version"]} {
		if needed, ok := v.(string); ok && own != "" && newer(needed, own) {
			return mberror.Errorf(mberror.Incompatible, "the backup is of iOS %s, this device has %s", needed, own)
		}
	}
	return nil
}

// newer reports whether version a, such as 17.6.1, is newer than b.
func newer(a, b string) bool {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	for i := range max(len(x), len(y)) {
		var m, n int
		if i < len(x) {
			m, _ = strconv.Atoi(x[i])
		}
		if i < len(y) {
			n, _ = strconv.Atoi(y[i])
		}
		if m != n {
			return m > n
		}
	}
	return false
}

// safetyCopy makes the host copy its backup of this device.
func (r *restore) safetyCopy() error {
	if r.options.DontCopy {
		return nil
	}
	if err := r.reach(faults.StepCopy); err != nil {
		return err
	}
	target := r.agent.device.UDID
	files, others, err := r.List(target)
	if err != nil || len(files)+len(others) == 0 {
		return err
	}
	if _, _, err := r.FreeSpace(); err != nil {
		return err
	}
	aside := target + "-" + r.agent.opts.Clock().UTC().Format("20060102-150405")
	return r.Require(nil, "DLMessageCopyItem", target, aside, map[string]any{}, 0.0)
}

// prepare creates the folder of the new content.
func (r *restore) prepare() error {
	for {
		r.agent.restored++
		r.target = filepath.Join(r.agent.opts.StateDir, fmt.Sprintf("restored-%d", r.agent.restored), r.agent.device.UDID)
		if _, err := os.Lstat(filepath.Dir(r.target)); err != nil {
			break // the folder does not exist yet
		}
	}
	return os.MkdirAll(r.target, 0o700)
}

// create creates a file of the new content.
func (r *restore) create(id hostfiles.FileID) (*os.File, error) {
	path := filepath.Join(r.target, filepath.FromSlash(mobilesync.BlobPath(mobilesync.Hashed, id)))
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
			return nil, err
		}
		return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	}
	return file, err
}

// wanted reports whether the restore includes a row of the backup.
func (r *restore) wanted(rec *manifest.Record) bool {
	return r.options.System || !devicefiles.System(rec.Domain)
}

// getFiles calls getBatch for batches of files, in the order of the manifest. share is
// the part of the files that have been downloaded after the batch.
func (r *restore) getFiles(getBatch func(batch []int, share float64) error) error {
	var batch []int
	var size int64
	total := r.backup.records.Len()
	for i, rec := range r.backup.records.All() {
		if !rec.IsFile() || !rec.HasFileID || !r.wanted(&rec) {
			continue
		}
		if len(batch) > 0 && (len(batch) == maxRestoreBatch || size+rec.Size >= maxRestoreBytes) {
			if err := getBatch(batch, float64(i)/float64(total)); err != nil {
				return err
			}
			batch, size = batch[:0], 0
		}
		batch, size = append(batch, i), size+rec.Size
	}
	if len(batch) == 0 {
		return nil
	}
	return getBatch(batch, 1)
}

// beginBatch reaches StepFiles, and returns the paths of a batch's files. index maps each
// path to the number of its record.
func (r *restore) beginBatch(batch []int) (paths []string, index map[string]int, err error) {
	if err := r.reach(faults.StepFiles); err != nil {
		return nil, nil, err
	}
	paths, index = make([]string, len(batch)), map[string]int{}
	for i, at := range batch {
		rec := r.backup.records.At(at)
		paths[i] = r.dir + "/" + mobilesync.BlobPath(mobilesync.Hashed, rec.FileID)
		index[paths[i]] = at
	}
	return paths, index, nil
}

func (r *restore) getBatch(batch []int, share float64) error {
	paths, index, err := r.beginBatch(batch)
	if err != nil {
		return err
	}
	temp := filepath.Join(r.work, "file")
	var file *os.File
	defer func() {
		if file != nil {
			_ = file.Close() // still open after an error
		}
	}()
	missing, err := r.DownloadAll(paths, 100*share, func(string) (_ io.Writer, err error) {
		if file != nil {
			_ = file.Close() // the previous file is still open if the host could not read it
		}
		file, err = os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
		return file, err
	}, func(path string) error {
		rec := r.backup.records.At(index[path])
		return r.addFile(&rec, file)
	})
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return mberror.Errorf(mberror.Damaged, "Manifest references files not in backup: %s", missing[0])
	}
	return nil
}

// addFile checks a downloaded file and adds its decrypted form to the content.
func (r *restore) addFile(rec *manifest.Record, file *os.File) error {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	stored := sha1.New()
	var plain io.Reader = io.TeeReader(file, stored)
	if info, err := file.Stat(); err != nil {
		return err
	} else if r.backup.keys != nil && rec.EncryptionKey != nil && info.Size() > 0 {
		key, err := r.backup.keys.Unwrap(rec.EncryptionKey)
		if err != nil {
			return mberror.Errorf(mberror.Damaged, "%s/%s: %v", rec.Domain, rec.RelativePath, err)
		}
		plain = keybag.NewDecrypter(plain, key)
	}
	out, err := r.create(rec.FileID)
	if err != nil {
		return err
	}
	sum := sha1.New()
	n, err := io.Copy(io.MultiWriter(out, sum), plain)
	if errors.Is(err, keybag.ErrPadding) && rec.HasDigest && [sha1.Size]byte(stored.Sum(nil)) == rec.Digest {
		err = nil // the device wrote it like that
	}
	if cerr := out.Close(); cerr != nil {
		return cerr
	}
	if err != nil {
		r.agent.violate("restore: %s/%s cannot be decrypted: %v", rec.Domain, rec.RelativePath, err)
		return mberror.Errorf(mberror.Damaged, "%s/%s: %v", rec.Domain, rec.RelativePath, err)
	}
	if err := r.check(rec, [sha1.Size]byte(stored.Sum(nil))); err != nil {
		return err
	}
	r.plain[rec.FileID] = [sha1.Size]byte(sum.Sum(nil))
	r.agent.note(r.run, func(run *Run) { run.Files++; run.Bytes += n })
	return nil
}

// check compares the sum of a downloaded file with the digest in the manifest, and
// with the sum of what this agent sent in the backup.
func (r *restore) check(rec *manifest.Record, sum [sha1.Size]byte) error {
	want, known := r.known.digest(rec.FileID)
	switch {
	case rec.HasDigest && sum != rec.Digest, known && sum != want:
		r.agent.violate("restore: %s/%s differs from what was sent", rec.Domain, rec.RelativePath)
		return mberror.Errorf(mberror.Damaged, "%s/%s is not what was backed up", rec.Domain, rec.RelativePath)
	case !rec.HasDigest && devicefiles.HasDigests(rec.Domain):
		return mberror.Errorf(mberror.Damaged, "%s/%s has no digest", rec.Domain, rec.RelativePath)
	}
	return nil
}

// applications counts the apps that the device must install again.
func (r *restore) applications() {
	var raw []byte
	ok := r.agent.opts.Applications != nil
	if ok {
		raw, ok = r.agent.opts.Applications()
	}
	if !ok {
		r.agent.note(r.run, func(run *Run) { run.Applications = -1 })
		return
	}
	apps, err := plist.Dict(raw)
	if err != nil {
		r.agent.violate("restore: RestoreApplications.plist: %v", err)
		return
	}
	r.agent.note(r.run, func(run *Run) { run.Applications = len(apps) })
}
