// Package verify judges a snapshot as a backup of a device: whether a device could
// be restored from it.
//
// A quick verification looks at the file tree, the manifest, the property lists
// and the keys, and reads no content. A full one also reads all content: it decrypts,
// compares digests, and checks databases and property lists. It does not read again
// what was verified in another snapshot before.
//
// What the backup itself lacks and what the repository has lost are findings, not
// errors. Content of the device is never written to a disk. Memory does not grow with
// the number of files, except for the rows of the manifest and for findings.
package verify

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/device/judge"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/stored"
	"github.com/snap-backup/snap/internal/words"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// Level says how much is read.
type Level string

// The levels.
const (
	Quick Level = repo.LevelQuick
	Full  Level = repo.LevelFull
)

// Options say how to verify.
type Options struct {
	Level   Level
	Workers int // goroutines that read, at least 1
	// Unlock, if not nil, unlocks an encrypted backup if its password is known, and
	// leaves it locked if not.
	Unlock func(ctx context.Context, b *mobilesync.Backup) error
	// Bases are snapshots with files that need not be read again.
	Bases []Base
	// Deadline, unless zero, is when a full verification stops reading.
	Deadline time.Time
	// Grace is how long files that are being read may take if ctx ends meanwhile. The
	// Report then says which files are left, as at the Deadline, and err is nil.
	Grace    time.Duration
	Progress *blob.Progress
}

// Report says what was found.
type Report struct {
	Snapshot repo.FileID `json:"snapshot"`
	Level    Level       `json:"level"`
	Passed   bool        `json:"passed"` // nothing was found but remarks
	Files    int64       `json:"files"`  // of the snapshot
	Bytes    int64       `json:"bytes"`
	// ReadFiles were read by this verification, SharedFiles by an earlier one.
	// LeftFiles were not read, since the time was up.
	ReadFiles   int64 `json:"read_files"`
	ReadBytes   int64 `json:"read_bytes"`
	SharedFiles int64 `json:"shared_files"`
	SharedBytes int64 `json:"shared_bytes"`
	LeftFiles   int64 `json:"left_files"`
	LeftBytes   int64 `json:"left_bytes"`
	// DigestFiles have a digest in the manifest; a full verification compares them
	// with it.
	DigestFiles int64 `json:"digest_files"`
	DigestBytes int64 `json:"digest_bytes"`
	CloudFiles  int64 `json:"cloud_files"`    // their content was only in a cloud
	Databases   int64 `json:"databases"`      // that were read
	Plists      int64 `json:"property_lists"` // that were read
	// NotChecked says what could not be looked at, and why.
	NotChecked []string       `json:"not_checked"`
	Findings   []repo.Finding `json:"findings"` // with all names
	Losses     []string       `json:"losses"`   // in words for people
	Seconds    float64        `json:"seconds"`

	stopped *tree.Key // the last file that was read
	locked  bool      // files could not be decrypted, since no password is known
}

// Lost reports whether the repository has lost content of the snapshot.
func (r *Report) Lost() bool {
	for _, f := range r.Findings {
		if f.Kind == finding.Lost {
			return true
		}
	}
	return false
}

// Verify verifies a snapshot. The repository's index must have been loaded.
func Verify(ctx context.Context, r *repo.Repo, s *repo.Snapshot, opts Options) (*Report, error) {
	begun := time.Now()
	if opts.Progress == nil {
		opts.Progress = &blob.Progress{}
	}
	j := &job{r: r, s: s, opts: opts, rep: &Report{
		Snapshot: s.ID, Level: opts.Level, NotChecked: []string{}, Losses: []string{},
	}}
	if err := j.run(ctx); err != nil {
		return nil, fmt.Errorf("verify snapshot %s: %w", s.ID.Short(), err)
	}
	j.finish(begun)
	return j.rep, nil
}

// job verifies one snapshot.
type job struct {
	r       *repo.Repo
	s       *repo.Snapshot
	opts    Options
	rep     *Report
	log     finding.Log
	b       *stored.Backup // nil if the repository has lost the top of the snapshot
	records *manifest.Records
	judge   judge.Judge
	keys    keyCheck
	content contentCount

	headErr   error           // of reading the first bytes of a file
	unlockErr error           // why no password can unlock the backup
	lostTree  bool            // a part of the tree is lost
	lostPaths map[string]bool // of files that the record lists as lost
}

func (j *job) run(ctx context.Context) error {
	// Even if the backup cannot be opened, its files may be read and judged.
	j.judge = judge.Judge{Log: &j.log, DigestsDecide: j.opts.Level == Full || j.s.Findings != nil}
	b, err := stored.Open(ctx, j.r, j.s)
	switch {
	case errors.Is(err, repo.ErrDamaged):
		j.lost("the beginning of the backup cannot be read", err)
	case errors.Is(err, mobilesync.ErrNoBackup):
		j.log.Note(finding.Manifest, repo.Incomplete, "the snapshot has neither a manifest nor the property lists of a backup")
	case err != nil:
		return err
	default:
		defer b.Close()
		j.b, j.judge.Backup = b, b.Backup
	}
	if err := j.open(ctx); err != nil {
		return err
	}
	if err := j.quick(ctx); err != nil {
		return err
	}
	if j.opts.Level == Full {
		reading, end := graceful(ctx, j.opts.Grace)
		defer end()
		if err := j.full(reading, ctx.Done()); err != nil {
			return err
		}
	}
	j.notChecked() // before the backup is closed, and locked
	return nil
}

// graceful returns a context that outlives ctx by grace.
func graceful(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	if grace == 0 {
		return context.WithCancel(ctx)
	}
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })
	return longer, func() { stop(); cancel() }
}

// open reads what all files need: problems, keys and rows.
func (j *job) open(ctx context.Context) error {
	if err := j.readLost(ctx); err != nil || j.b == nil {
		return err
	}
	if j.b.Encrypted() && j.opts.Unlock != nil {
		if err := j.unlock(ctx); err != nil {
			return err
		}
	}
	problems, err := j.b.Problems(ctx)
	if errors.Is(err, repo.ErrDamaged) {
		j.lost("a part of the file tree is lost", err)
	} else if err != nil {
		return err
	}
	for _, p := range problems {
		c := repo.Remark
		if p.Fatal {
			c = repo.Incomplete
		}
		j.log.Note(string(p.Kind), c, p.Text)
	}
	if err := j.checkBag(ctx); err != nil {
		return err
	}
	j.checkTail()
	if err := j.b.Err(); err != nil {
		return err
	}
	if !j.b.Readable() {
		return nil
	}
	j.opts.Progress.Enter("reading manifest")
	records, err := j.b.Records(ctx)
	switch {
	case err == nil:
		j.records, j.judge.Records = records, records
		j.keys.records = records
	case errors.Is(err, repo.ErrDamaged):
		j.lost("the manifest is lost", err)
	case errors.Is(err, manifest.ErrCorrupt):
		j.log.Note(finding.Manifest, repo.Incomplete, err.Error())
	default:
		return err
	}
	return nil
}

// checkTail notes bytes after the last page of Manifest.db. SQLite ignores them.
func (j *job) checkTail() {
	f, size, err := j.b.OpenManifest()
	if err != nil {
		return
	}
	defer f.Close()
	head := make([]byte, manifest.HeaderLen)
	n, _ := f.ReadAt(head, 0)
	if need := manifest.DatabaseSize(head[:n]); manifest.IsSQLite(head[:n]) && need > 0 && need < size {
		j.log.Note(finding.Anomaly, repo.Remark, fmt.Sprintf("Manifest.db has %d bytes after its last page: a program has decrypted it and left the padding", size-need))
	}
}

// unlock unlocks the backup. A backup that no password can unlock stays locked.
func (j *job) unlock(ctx context.Context) error {
	err := j.opts.Unlock(ctx, j.b.Backup)
	switch {
	case errors.Is(err, repo.ErrDamaged):
		j.lost("the manifest is lost", err)
	case errors.Is(err, keybag.ErrNoClass), errors.Is(err, keybag.ErrUnwrap), errors.Is(err, keybag.ErrUnsupportedKey), errors.Is(err, manifest.ErrCorrupt):
		j.log.Note(finding.NoKey, repo.Damage, err.Error())
	case errors.Is(err, mobilesync.ErrNotUnlockable):
		j.unlockErr = err
	default:
		return err
	}
	return nil
}

// readLost reads the tree of the files that a repair has marked as lost.
func (j *job) readLost(ctx context.Context) error {
	list, nodes, err := j.s.Lost.Entries(ctx, j.r.Chunk)
	if err != nil {
		return err
	}
	j.lostPaths = map[string]bool{}
	for i := range list {
		j.lostPaths[list[i].Path] = true
		j.log.File(finding.Lost, j.name(&list[i]))
	}
	if len(nodes) > 0 {
		j.lostTree = true
		j.log.Note(finding.Lost, repo.Damage, "a part of the file tree is lost")
	}
	return nil
}

// lost notes something other than a file that the repository has lost.
func (j *job) lost(what string, err error) {
	j.lostTree = true
	j.log.Note(finding.Lost, repo.Damage, fmt.Sprintf("%s: %v", what, err))
}

// name names an entry. If the snapshot was stored locked, the row of the manifest has the
// name, and the entry does not.
func (j *job) name(e *tree.Entry) string {
	if e.Domain == "" && j.records != nil {
		if f := j.b.File(e, j.records); f.Row >= 0 {
			return j.judge.RowName(f.Row)
		}
	}
	return judge.Name(e)
}

// finish completes the report.
func (j *job) finish(begun time.Time) {
	j.inherit()
	rep := j.rep
	rep.Findings = j.log.Findings()
	rep.Passed = finding.Worst(rep.Findings) == repo.Remark
	rep.Databases, rep.Plists = j.content.databases.Load(), j.content.plists.Load()
	rep.ReadFiles, rep.ReadBytes = j.content.files.Load(), j.content.bytes.Load()
	rep.Losses = losses(rep.Findings, j.records)
	rep.Seconds = time.Since(begun).Seconds()
}

// inherit takes over those findings of the record that cannot be found again.
func (j *job) inherit() {
	worst := finding.Worst(j.log.Findings())
	for _, f := range j.s.Findings {
		switch f.Kind {
		case finding.Changed, finding.DeviceError, finding.Date, finding.Stray, finding.Unreadable, finding.Nested:
			j.log.Add(f)
		case finding.Missing: // earlier snapshots decide whether it is damage, and those may be gone by now
			if f.Consequence != repo.Remark && !j.found(f.Kind) {
				j.log.Add(f)
			}
		case finding.Digest, finding.Database, finding.Cipher, finding.NoKey:
			if j.opts.Level == Quick && !j.found(f.Kind) {
				j.log.Add(f)
			}
		}
	}
	complete := j.s.Complete || j.s.Lost != nil && j.s.Lost.WasComplete
	if !complete && worst == repo.Remark && finding.Worst(j.log.Findings()) == repo.Remark && j.s.Findings == nil {
		j.log.Note(finding.Changed, repo.Incomplete, "the snapshot's record says that the backup is incomplete")
	}
}

// found reports whether there is damage of a kind.
func (j *job) found(kind string) bool {
	for _, f := range j.log.Findings() {
		if f.Kind == kind && f.Consequence == repo.Damage {
			return true
		}
	}
	return false
}

// Reasons why something could not be checked.
const (
	noContent  = "the content of files, which a full verification reads"
	noKeys     = "whether the backup password opens the keys of files, since the password is not known"
	noPassword = "names, sizes, digests, keys and content of files, since the snapshot was stored locked and the backup password is not known"
)

// notChecked lists what could not be looked at.
func (j *job) notChecked() {
	add := func(format string, args ...any) {
		j.rep.NotChecked = append(j.rep.NotChecked, fmt.Sprintf(format, args...))
	}
	j.rep.locked = j.b != nil && j.b.Encrypted() && !j.b.Unlocked() && !j.s.Unlocked
	switch {
	case j.b == nil || !j.b.Encrypted() || j.b.Unlocked():
	case !j.b.Readable():
		add(noPassword)
	case j.unlockErr != nil:
		add("keys and content of encrypted files: %v", j.unlockErr)
	default:
		add(noKeys)
	}
	if j.opts.Level == Quick {
		add(noContent)
		return
	}
	if n := j.content.unjudged.Load(); n > 0 {
		add("%s, at least in part, for one of these reasons: encryption by an app, functions that only a device has, too much time", words.Plural(n, "database"))
	}
	if n := j.content.large.Load(); n > 0 {
		add("%s of more than %d MiB", words.Plural(n, "property list"), judge.MaxPropertyList>>20)
	}
	if j.rep.LeftFiles > 0 {
		add("%s, since the time was up", words.Plural(j.rep.LeftFiles, "file"))
	}
}

// Certificate returns the certificate of a verification. If the time was up before all
// files were read, and nothing was found, the certificate is that of a quick
// verification. It says how far the full one got.
func (r *Report) Certificate(s *repo.Snapshot, host, program string) *repo.Certificate {
	c := &repo.Certificate{
		Snapshot: s.FirstID(), Root: s.Root, Host: host, Program: program,
		Kind: repo.CertificateVerify, Level: string(r.Level), Result: repo.ResultFailed,
		Files: r.Files, Bytes: r.Bytes, ReadFiles: r.ReadFiles, ReadBytes: r.ReadBytes,
		SharedFiles: r.SharedFiles, SharedBytes: r.SharedBytes, DigestFiles: r.DigestFiles, DigestBytes: r.DigestBytes,
		Databases: r.Databases, Seconds: r.Seconds, Locked: r.locked, NotChecked: r.NotChecked, Findings: r.Findings,
	}
	if r.Passed {
		c.Result = repo.ResultPassed
	}
	if r.LeftFiles > 0 {
		if r.Passed {
			c.Level = repo.LevelQuick
		}
		if r.stopped != nil {
			c.StoppedAt = &repo.FileName{Domain: r.stopped.Domain, Name: r.stopped.Name, Path: r.stopped.Path}
		}
	}
	return c
}

// has reports whether the index has a chunk.
func (j *job) has(id chunk.ID) bool { return j.r.Index().Has(id) }
