package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/device/judge"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/folder"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/repo"
)

// Import stores a backup folder as a snapshot. The repository's index
// must have been loaded. If Import fails, no snapshot was made, but the next
// run reuses the content that was stored.
func Import(ctx context.Context, r *repo.Repo, b *mobilesync.Backup, opts Options) (*Result, error) {
	j := newJob(r, b, &folderSource{r: r, b: b, rescan: opts.Rescan}, opts)
	if err := j.begin(ctx); err != nil {
		return nil, err
	}
	if j.askFirst() {
		return unlockAndImport(ctx, r, b, opts)
	}
	same, err := j.sameAsParent(ctx)
	switch {
	case err != nil:
		return nil, err
	case same:
		return j.commit(ctx, func(context.Context, *repo.Writer) (chunk.ID, error) { return j.parent.Root, nil })
	case j.justLook:
		return unlockAndImport(ctx, r, b, opts)
	}
	if err := j.list(ctx); err != nil {
		return nil, err
	}
	return j.commit(ctx, j.store)
}

// askFirst reports whether a backup cannot be found unchanged while it is locked. It sets
// justLook if it can.
func (j *job) askFirst() bool {
	if j.opts.Unlock == nil || !j.b.Encrypted() || j.b.Unlocked() {
		return false
	}
	j.justLook = j.opts.SkipIfUnchanged && !j.opts.Rescan && j.parent != nil && j.parent.Unlocked
	return !j.justLook
}

// unlockAndImport unlocks a backup and begins again, since keys change what is known of it.
func unlockAndImport(ctx context.Context, r *repo.Repo, b *mobilesync.Backup, opts Options) (*Result, error) {
	if err := opts.Unlock(ctx); err != nil {
		return nil, err
	}
	opts.Unlock = nil
	return Import(ctx, r, b, opts)
}

// Publish is like Import, but for a backup that a device has just sent. Most of
// its content is already in the repository.
func Publish(ctx context.Context, r *repo.Repo, b *mobilesync.Backup, src Source, opts Options) (*Result, error) {
	j := newJob(r, b, src, opts)
	if err := j.begin(ctx); err != nil {
		return nil, err
	}
	if err := j.list(ctx); err != nil {
		return nil, err
	}
	return j.commit(ctx, j.store)
}

// job ingests one backup.
type job struct {
	r       *repo.Repo
	b       *mobilesync.Backup
	src     Source
	opts    Options
	res     *Result
	items   items
	order   []int32 // numbers of the items that are stored, sorted by key
	records *manifest.Records
	parent  *repo.Snapshot
	log     finding.Log
	judge   judge.Judge
	suspect suspects
	// decrypted says that a program has decrypted the files in the backup folder.
	decrypted bool
	unread    unread
	// justLook says that a person may still be asked for the password: no content is read
	// to find out whether the backup is unchanged.
	justLook bool
	// unlisted are files and folders that could not be listed.
	unlisted unreadable
	special  special

	mu sync.Mutex // guards counters of res while files are read
}

func newJob(r *repo.Repo, b *mobilesync.Backup, src Source, opts Options) *job {
	if opts.Progress == nil {
		opts.Progress = &blob.Progress{}
	}
	j := &job{r: r, b: b, src: src, opts: opts, special: special{}, items: items{flat: b.Layout() == mobilesync.Flat}, res: &Result{Skipped: []string{}, Problems: []Problem{}}}
	j.judge = judge.Judge{Log: &j.log, Backup: b, DigestsDecide: true, Unreadable: j.unlisted.has, Replaced: j.special.has}
	return j
}

// begin finds the parent. It refuses an incomplete backup unless
// AllowIncomplete is set.
func (j *job) begin(ctx context.Context) error {
	problems, err := j.b.Problems(ctx)
	if err != nil {
		return err
	}
	if j.opts.Broken != nil {
		j.opts.AllowIncomplete = true
		j.log.Note(string(mobilesync.ProblemUnfinished), repo.Incomplete, "the backup ended early: "+j.opts.Broken.Error())
	}
	var reasons []string
	for _, p := range problems {
		j.res.Problems = append(j.res.Problems, Problem(p))
		c := repo.Remark
		if p.Fatal {
			reasons = append(reasons, p.Text)
			c = repo.Incomplete
		}
		j.log.Note(string(p.Kind), c, p.Text)
	}
	if len(reasons) > 0 && !j.opts.AllowIncomplete {
		lost := slices.ContainsFunc(problems, func(p mobilesync.Problem) bool { return p.Kind == mobilesync.ProblemManifest })
		return &IncompleteError{j.b.Dir(), reasons, lost}
	}
	j.judgeKeybag()
	if j.parent, err = j.src.Parent(ctx); err != nil {
		return err
	}
	j.suspect = suspectsOf(j.parent)
	j.unread = unreadIn(j.parent)
	return nil
}

// commit calls storeTree, which stores the tree and returns its root, and writes
// the snapshot.
func (j *job) commit(ctx context.Context, storeTree func(context.Context, *repo.Writer) (chunk.ID, error)) (*Result, error) {
	w := j.r.NewWriter(ctx)
	defer w.Close()
	w.Continue(j.src.Written())
	root, err := storeTree(ctx, w)
	if err != nil {
		return nil, err
	}
	j.opts.Progress.Enter("finishing")
	if err := j.b.CheckStable(ctx); err != nil {
		if !j.opts.AllowIncomplete || !errors.Is(err, folder.ErrChanged) {
			return nil, err
		}
		j.log.Note(finding.Changed, repo.Incomplete, err.Error())
	}
	j.judgeKeys()
	t, note := repo.BackupTime(w.Now(), j.b.Dates()...)
	if note != "" {
		j.log.Note(finding.Date, repo.Remark, note)
	}
	j.noteComplaints()
	j.res.Findings = j.log.Findings()
	// If the tree is the parent's and chunks were stored nevertheless, the
	// repository had lost them, and they must be committed.
	if j.opts.SkipIfUnchanged && j.parent != nil && j.parent.Root == root && w.Stats().Chunks == 0 && j.asCompleteAsParent() {
		// Somebody may have forgotten the parent since the snapshots were listed.
		there, err := j.r.HasRecord(ctx, j.parent.ID)
		if err != nil {
			return nil, err
		}
		if there {
			j.res.Snapshot, j.res.Unchanged = j.parent, true
			if err := w.Close(); err != nil {
				return nil, err
			}
			return j.res, j.noteUnchanged(ctx)
		}
	}
	s := j.snapshot()
	s.Time, s.Root = t, root
	earlier, err := j.r.KnownSnapshots(ctx)
	if err != nil {
		return nil, err
	}
	s.Follow(earlier)
	if err := w.Commit(ctx, s); err != nil {
		return nil, err
	}
	j.res.Snapshot = s
	return j.res, j.certify(ctx, s)
}

// certify stores the names of all affected files, if the snapshot's record has no
// room for them.
func (j *job) certify(ctx context.Context, s *repo.Snapshot) error {
	if !repo.MoreNames(j.res.Findings) {
		return nil
	}
	c := j.certificate(s)
	c.Snapshot, c.Root, c.Kind, c.Findings = s.FirstID(), s.Root, repo.CertificateImport, j.res.Findings
	_, err := j.r.WriteCertificate(ctx, c)
	if err != nil {
		return fmt.Errorf("snapshot %s is stored, but not the names of all files with findings: %w", s.ID.Short(), err)
	}
	return nil
}

// noteUnchanged stores that somebody has looked at the backup, so that its age is not taken
// for a sign that nobody did.
func (j *job) noteUnchanged(ctx context.Context) error {
	if err := j.r.NoteUnchanged(ctx, j.parent, j.certificate(j.parent)); err != nil {
		return fmt.Errorf("the backup is unchanged since snapshot %s, but the note that it was looked at is not stored: %w", j.parent.ID.Short(), err)
	}
	return nil
}

// certificate returns a certificate of an import whose result is the snapshot.
func (j *job) certificate(s *repo.Snapshot) *repo.Certificate {
	result := repo.ResultPassed
	if !s.Complete {
		result = repo.ResultFailed
	}
	return &repo.Certificate{
		Host: j.opts.Host, Program: j.opts.Program, Result: result,
		Files: j.res.Files, Bytes: j.res.Bytes, ReadFiles: j.res.ReadFiles, ReadBytes: j.res.ReadBytes,
	}
}

// snapshot returns the snapshot's record, without what the writer adds.
func (j *job) snapshot() *repo.Snapshot {
	d := j.b.Device()
	s := &repo.Snapshot{
		Host: j.opts.Host, Program: j.opts.Program,
		Device: repo.Device{
			UDID: d.UDID, Name: d.Name, ProductType: d.ProductType,
			ProductVersion: d.ProductVersion, BuildVersion: d.BuildVersion, SerialNumber: d.SerialNumber,
		},
		Source:    j.src.Origin(),
		Encrypted: j.b.Encrypted(), Unlocked: j.b.Unlocked() || j.res.NoPassword,
		Complete: finding.Worst(j.res.Findings) == repo.Remark, Findings: j.res.Findings,
		Tags:  j.opts.Tags,
		Files: j.res.Files, Bytes: j.res.Bytes,
	}
	if j.parent != nil {
		s.Parent = &j.parent.ID
	}
	return s
}
