package drill

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/device/materialize"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/internal/abandoned"
	"github.com/snap-backup/snap/internal/process"
	"github.com/snap-backup/snap/repo"
)

// Folder rehearses materializing: it writes the snapshot as a backup folder below dir,
// reads the folder back, and removes it unless Keep is set. dir is made if it does not
// exist. With Keep the folder has the name that materialize.Write gives it.
func Folder(ctx context.Context, o Options, dir string) (_ *Report, err error) {
	if o.Progress == nil {
		o.Progress = &blob.Progress{}
	}
	report := o.begin(repo.LevelFolder)
	j := &judge{ctx: ctx, opts: &o}
	if err := o.throughFolder(ctx, dir, j, report); err != nil {
		return nil, fmt.Errorf("drill snapshot %s: %w", o.Snapshot.ID.Short(), err)
	}
	o.finish(report, j, j.records != nil)
	return report, nil
}

func (o *Options) throughFolder(ctx context.Context, dir string, j *judge, report *Report) (err error) {
	if err := o.addLost(ctx, &j.log); err != nil {
		return err
	}
	target := dir
	if !o.Keep {
		remove, err := makeParent(dir)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, remove()) }()
		var removeWork func() error
		if target, removeWork, err = o.workFolder(ctx, dir); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, removeWork()) }()
	}
	res, err := materialize.Write(ctx, o.Repo, o.Snapshot, target, materialize.Options{Verify: true, Workers: o.Workers, Progress: o.Progress, Bytes: o.Bytes, Abandoned: o.Abandoned})
	var unfinished *materialize.UnfinishedError
	if errors.As(err, &unfinished) && !o.Keep {
		err = unfinished.Err // nothing will be left
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, repo.ErrDamaged):
		j.log.Note(finding.Lost, repo.Damage, fmt.Sprintf("the folder cannot be written: %v", err))
		return nil
	case err != nil:
		return err
	}
	if o.Keep {
		report.Dir = res.Dir
	}
	return o.readBack(ctx, res, j, report)
}

// workName matches the names of the folders of runs without Keep.
var workName = regexp.MustCompile(`^snap-drill-[0-9a-f]+$`)

// workFolder makes a folder for this run. It first removes those of runs that were
// killed.
func (o *Options) workFolder(ctx context.Context, dir string) (work string, remove func() error, err error) {
	self, found := process.Current(), o.Abandoned
	if found == nil {
		found = func(abandoned.Folder) {}
	}
	if err := abandoned.Sweep(ctx, dir, abandoned.ClaimedIf(workName.MatchString), self, found); err != nil {
		return "", nil, err
	}
	var random [8]byte
	if _, err := io.ReadFull(o.Random, random[:]); err != nil {
		return "", nil, err
	}
	work = filepath.Join(dir, fmt.Sprintf("snap-drill-%x", random))
	release, err := abandoned.Claim(work, self)
	if err != nil {
		return "", nil, err
	}
	if err := os.Mkdir(work, 0o700); err != nil {
		return "", nil, errors.Join(err, release())
	}
	return work, func() error {
		if err := os.RemoveAll(work); err != nil {
			return err
		}
		return release()
	}, nil
}

// makeParent makes the folder dir if it does not exist. If makeParent has made it, remove
// removes it again.
func makeParent(dir string) (remove func() error, err error) {
	err = os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return func() error { return nil }, nil
	}
	return func() error { return os.Remove(dir) }, err
}

// readBack judges the files of the folder.
func (o *Options) readBack(ctx context.Context, res *materialize.Result, j *judge, report *Report) (err error) {
	b, err := mobilesync.Open(ctx, res.Dir)
	if err != nil {
		j.log.Note(finding.Refused, repo.Damage, fmt.Sprintf("the folder is no backup: %v", err))
		return ctx.Err()
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	problems, err := b.Problems(ctx)
	if err != nil {
		return err
	}
	for _, p := range problems {
		if p.Fatal {
			j.log.Note(string(p.Kind), repo.Incomplete, p.Text)
		}
	}
	if b.Encrypted() {
		if o.Password == nil {
			report.NotChecked = append(report.NotChecked, "keys, padding, digests and databases, because the backup password is not known")
			j.files, j.bytes = res.Files, res.Bytes // read back by materialize
			return nil
		}
		if j.keys, err = b.Unlock(ctx, o.Password, nil); err != nil {
			if ctx.Err() != nil || errors.Is(err, keybag.ErrWrongPassword) {
				return err
			}
			j.log.Note(finding.Refused, repo.Damage, fmt.Sprintf("the backup cannot be opened: %v", err))
			return nil
		}
		defer j.keys.Destroy()
	}
	j.layout, j.encrypted = b.Layout(), b.Encrypted()
	if err := j.folderManifest(b); err != nil {
		return err
	}
	if j.records, err = b.Records(ctx); errors.Is(err, manifest.ErrCorrupt) {
		j.records = nil
		j.log.Note(finding.Manifest, repo.Damage, fmt.Sprintf("the manifest cannot be read: %v", err))
		return nil
	} else if err != nil {
		return err
	}
	j.noteAnomalies()
	o.Progress.Enter("judging files")
	if err := j.folder(b); err != nil {
		return err
	}
	_, err = j.judgeMissing()
	return err
}

// folderManifest judges the Manifest.db of a folder.
func (j *judge) folderManifest(b *mobilesync.Backup) error {
	if j.layout != mobilesync.Hashed {
		return nil
	}
	file, size, err := b.OpenManifest()
	if err != nil {
		return err
	}
	defer file.Close()
	var db io.ReaderAt = file
	if key, encrypted := b.ManifestDBKey(); encrypted {
		if db, size, err = keybag.DecrypterAt(file, size, key); err != nil {
			return nil // reading the rows will fail and report it
		}
	}
	_, err = j.manifest(db, size)
	return err
}

// folder judges all listed files of a folder.
func (j *judge) folder(b *mobilesync.Backup) error {
	for row, rec := range j.records.All() {
		if !rec.IsFile() || !rec.HasFileID {
			continue
		}
		f, err := b.OpenFile(mobilesync.BlobPath(j.layout, rec.FileID))
		if errors.Is(err, fs.ErrNotExist) {
			j.missing = append(j.missing, row)
			continue
		}
		if err == nil {
			_, err = j.file(&rec, io.Reader(f))
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			return err
		}
	}
	return nil
}
