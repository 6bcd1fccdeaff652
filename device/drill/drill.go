// Package drill rehearses the restore of a snapshot, without a phone and without
// keeping what is restored.
//
// Device restores to a simulated device in this process, over the real protocol: the
// program does exactly what it does for a phone. Folder materializes the snapshot and
// reads the folder back. Both judge every file with the rules by which a device accepts
// a backup, and go on after damage, so that the report names all of it.
//
// # What it promises
//
//   - What a device refuses fails the drill.
//   - Device never writes content of the device to a disk in the clear. One database or
//     manifest at a time is held in scratch: in memory, and beyond 16 MiB in a sealed
//     file that no folder lists. Nothing else is kept.
//   - Nothing is left behind, whatever happens, except by Folder with Keep.
//
// # What it never does
//
// It does not write to the repository, and prints nothing. It does not say that a
// certain device will accept the backup: only that device can.
package drill

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/device/host"
	rules "github.com/snap-backup/snap/device/judge"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/internal/abandoned"
	"github.com/snap-backup/snap/internal/scratch"
	"github.com/snap-backup/snap/internal/words"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// Options say what to rehearse. Repo, Snapshot, Now and Random are required.
type Options struct {
	Repo     *repo.Repo // with its index loaded
	Snapshot *repo.Snapshot
	// Password is the backup password, in the form that the device expects. Device needs
	// it if the snapshot is encrypted. Without it, Folder does not decrypt.
	Password []byte
	// IOS is the version of iOS of the simulated device; "" means the snapshot's.
	IOS string
	// Storage is the storage of the simulated device in bytes; 0 means the smallest that
	// is sold and has room for the snapshot.
	Storage int64
	// Temp is the folder for scratch; "" means the system's folder for temporary files.
	Temp string
	// Keep makes Folder keep the folder.
	Keep    bool
	Workers int // goroutines of Folder that write, at least 1

	Name    string // of the computer
	Program string // and version
	Now     func() time.Time
	Random  io.Reader // must be cryptographic
	Bytes   func(int64) string
	// Observer is told about the progress of Device, and Progress about that of Folder.
	// Both may be nil.
	Observer host.Observer
	Progress *blob.Progress
	// Abandoned is told of folders that killed runs of Folder have left; see
	// materialize.Options. It may be nil.
	Abandoned func(abandoned.Folder)

	memory int64 // bytes of scratch in memory, for tests; 0 means inMemory
}

// Errors of drills that cannot begin.
var (
	// ErrNoPassword says that a device needs the backup password to open the snapshot.
	ErrNoPassword = errors.New("a device cannot open the snapshot without its backup password")
	// ErrOld says that no simulated device reads the backups of iOS 9 and earlier.
	ErrOld = errors.New("the simulated device cannot restore backups of iOS 9 and earlier")
)

// Report says what a drill has read and found.
type Report struct {
	Level string // repo.LevelDevice or repo.LevelFolder
	// Model and IOS of the simulated device, and its Storage in bytes. Folder leaves them
	// empty.
	Model, IOS string
	Storage    int64

	ReadFiles, ReadBytes     int64 // that arrived, or were read back
	DigestFiles, DigestBytes int64 // of these, compared with digests of the manifest
	Databases                int64 // of these, verified
	Apps                     int   // that the device would install again

	NotChecked []string       // for people
	Findings   []repo.Finding // with all names
	// Refusal is why the restore was refused before anything was sent; nil if it was
	// not. It matches host.ErrRefused or host.ErrNoRoom.
	Refusal error
	// Scratch is the greatest number of bytes that were in a sealed file at one time.
	Scratch int64
	Dir     string // the folder that Folder kept; "" if none
	Begun   time.Time
	Took    time.Duration
}

// Passed reports whether a device would restore the snapshot completely.
func (r *Report) Passed() bool { return finding.Worst(r.Findings) == repo.Remark }

// Lost reports whether the repository could not return content of the snapshot.
func (r *Report) Lost() bool {
	for _, f := range r.Findings {
		if f.Kind == finding.Lost {
			return true
		}
	}
	return false
}

// Certificate returns the certificate of a drill.
func (r *Report) Certificate(o *Options) *repo.Certificate {
	s := o.Snapshot
	c := &repo.Certificate{
		Snapshot: s.FirstID(), Root: s.Root, Time: r.Begun.Add(r.Took).UTC(), Host: o.Name, Program: o.Program,
		Kind: repo.CertificateDrill, Level: r.Level, Result: repo.ResultFailed,
		Files: s.Files, Bytes: s.Bytes, ReadFiles: r.ReadFiles, ReadBytes: r.ReadBytes,
		DigestFiles: r.DigestFiles, DigestBytes: r.DigestBytes, Databases: r.Databases, Seconds: r.Took.Seconds(),
		Locked: s.Encrypted && o.Password == nil, NotChecked: r.NotChecked, Findings: r.Findings,
	}
	if r.Passed() {
		c.Result = repo.ResultPassed
	}
	return c
}

// inMemory is how many bytes of scratch are in memory.
const inMemory = 16 << 20

func (o *Options) newScratch() *scratch.File {
	return scratch.New(o.Temp, cmp.Or(o.memory, inMemory), o.Random)
}

// begin returns the report of a drill that begins now.
func (o *Options) begin(level string) *Report { return &Report{Level: level, Begun: o.Now()} }

// finish completes a report. rechecked says that the drill has judged all files itself,
// so that it need not rely on what was found when the snapshot was stored.
func (o *Options) finish(r *Report, j *judge, rechecked bool) {
	o.inherit(&j.log, rechecked)
	r.Findings = j.log.Findings()
	r.ReadFiles, r.ReadBytes, r.DigestFiles, r.DigestBytes = j.files, j.bytes, j.digestFiles, j.digestBytes
	r.Databases, r.Scratch = j.databases, j.scratch
	if n := j.files - j.digestFiles; n > 0 && r.Refusal == nil {
		r.NotChecked = append(r.NotChecked, fmt.Sprintf("the bytes of %s without a digest in the manifest, apart from size, padding, and the integrity of databases and property lists", words.Plural(n, "file")))
	}
	if j.unjudged > 0 {
		r.NotChecked = append(r.NotChecked, fmt.Sprintf("%s, at least in part, for one of these reasons: encryption by an app, functions that only a device has, too much time", words.Plural(j.unjudged, "database")))
	}
	if j.large > 0 {
		r.NotChecked = append(r.NotChecked, fmt.Sprintf("%s of more than %d MiB", words.Plural(j.large, "property list"), rules.MaxPropertyList>>20))
	}
	r.Took = o.Now().Sub(r.Begun)
}

// judged are the kinds of findings that a drill finds itself if it judges all files.
var judged = map[string]bool{
	finding.Missing: true, finding.Emptied: true, finding.Size: true, finding.Digest: true, finding.Database: true,
	finding.NoKey: true, finding.Cipher: true, finding.Lost: true, finding.Plist: true,
}

// inherit adds the findings of the snapshot's record.
func (o *Options) inherit(log *finding.Log, rechecked bool) {
	known := false
	for _, f := range o.Snapshot.Findings {
		known = known || f.Consequence != repo.Remark
		// Earlier snapshots decide whether a missing file is damage, and those may be
		// gone by now.
		missed := f.Kind == finding.Missing && f.Consequence != repo.Remark && !damaged(log, f.Kind)
		if !rechecked || !judged[f.Kind] || missed {
			log.Add(f)
		}
	}
	if !o.Snapshot.Complete && !known {
		log.Note(string(mobilesync.ProblemUnfinished), repo.Incomplete, "the snapshot is of an incomplete backup")
	}
}

// damaged reports whether a log has damage of a kind.
func damaged(log *finding.Log, kind string) bool {
	return slices.ContainsFunc(log.Findings(), func(f repo.Finding) bool { return f.Kind == kind && f.Consequence == repo.Damage })
}

// addLost adds a finding with the files whose content the repository has lost.
func (o *Options) addLost(ctx context.Context, log *finding.Log) error {
	return o.Repo.Walk(ctx, o.Snapshot, "", func(e *tree.Entry) error {
		present, err := blob.Present(ctx, o.Repo, &e.Content, o.Repo.Index().Has)
		if err == nil && !present {
			log.File(finding.Lost, finding.Name(e.Domain, e.Name, e.Path))
		}
		return err
	})
}
