// Package mirror keeps an exact copy of a repository in another store. The copy has the
// same files under the same names, and so the same keys and snapshots.
//
// # What it promises
//
// The target always has all files that its snapshots need, even if a run is
// interrupted. Files are copied in the order in which a repository writes them. They
// are removed in the opposite order, after all new files are durable. Files that an
// interrupted run has copied stay, and the next run copies the others.
//
// A file is copied only if it has the hash that is its name. The target is not changed if
// the source seems to have lost files instead of removing them (guard.go).
//
// # What it never does
//
// It never changes the source. It has no key. So it only checks that a file's name is its
// hash, and that it begins like the other files of its folder. A [Judge], if the caller
// gives it one, opens files.
package mirror

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/snap-backup/snap/repo/backend"
	"golang.org/x/sync/semaphore"
)

// The kinds of failure that callers distinguish.
var (
	// ErrRefused says that copying would do harm. The error is a *RefusedError.
	ErrRefused = errors.New("not mirrored")
	// ErrDamaged says that files are damaged or missing. The report lists them.
	ErrDamaged = errors.New("damaged files")
	// ErrChanging says that the source changed too often during the copy.
	ErrChanging = errors.New("the repository changes faster than it can be copied")
)

// Options are the options of Run and Check.
type Options struct {
	// AcceptRemovals removes all files from the target that the source does not
	// have, even if the source seems to have lost them.
	AcceptRemovals bool
	// DryRun changes nothing and reports what would be done.
	DryRun bool
	// Judge opens files with the repository's key. Without it, a file that the source has
	// replaced leaves the target only after many runs that did not find it in the source.
	Judge Judge
	// Heal makes Check replace damaged files of the target by good ones of the
	// source.
	Heal bool
	// Workers is the number of files copied at a time. The default is 16, since workers
	// mostly wait until written files are durable.
	Workers int
	// Progress, if not nil, is called by one goroutine at a time.
	Progress func(Progress)
}

// Progress is the progress of a run.
type Progress struct{ Files, TotalFiles, Bytes, TotalBytes int64 }

// Damage is a file that is damaged or missing.
type Damage struct {
	File string `json:"file"`
	Text string `json:"text"`
	err  error  // Text is its text
}

func damage(name string, why error) Damage { return Damage{name, why.Error(), why} }

// Report says what Run has done. After a dry run it says what Run would do.
type Report struct {
	Files        int64    `json:"files"` // of the source
	Bytes        int64    `json:"bytes"`
	Snapshots    int64    `json:"snapshots"`
	CopiedFiles  int64    `json:"copied_files"`
	CopiedBytes  int64    `json:"copied_bytes"`
	HealedFiles  int64    `json:"healed_files"` // copied files that were damaged on the target
	RemovedFiles int64    `json:"removed_files"`
	RemovedBytes int64    `json:"removed_bytes"`
	Damaged      []Damage `json:"damaged"` // files of the source that were not copied
	// Judged says whether the key has judged what was copied and removed.
	Judged bool `json:"judged"`
	// Unjudged says that no run has had the key yet, or that a note about this was damaged:
	// nobody knows whether the target can give anything back.
	Unjudged bool `json:"unjudged"`
	// KeptFiles are files that the source no longer has and that stay on the target for
	// now, KeptBytes their length. KeptRuns says how many more runs without the key it
	// takes until the first of them leaves the target; 0 if there are none.
	KeptFiles int64 `json:"kept_files"`
	KeptBytes int64 `json:"kept_bytes"`
	KeptRuns  int   `json:"kept_runs"`
	// Kept says why files stay that could be removed; empty if there are none.
	Kept string `json:"kept,omitempty"`
	// Aside is the new name of a folder, link or pipe that had the name of a file on the
	// target; the last one if there were several.
	Aside string `json:"aside,omitempty"`
	// Foreign are files in configs/ of the source that are no copies of its config. Without
	// the key they are not copied; with it they are among Damaged if it does not open them.
	Foreign []string `json:"foreign,omitempty"`
	// OldKeys are key slots that the source no longer has. They still open the target.
	OldKeys int64 `json:"old_keys"`
	// Leaving describes snapshots that the source has lost or forgotten since the last
	// run with the key, LeavingOther describes keys and backup passwords that are gone
	// since then. Removed describes what left the target in this run. Better describes
	// snapshots that stay on the target, since the record in the source is older or lists
	// more lost files. Without the key, all four are empty.
	Leaving      []string `json:"leaving,omitempty"`
	LeavingOther []string `json:"leaving_other,omitempty"`
	Removed      []string `json:"removed,omitempty"`
	Better       []string `json:"better,omitempty"`
	DryRun       bool     `json:"dry_run"`
}

// maxRounds is the maximum number of rounds of a Run. If the source changes during a
// round, Run starts another one. Each round has less to copy.
const maxRounds = 10

// inFlight is the maximum number of bytes of files in memory.
const inFlight = 64 << 20

// Run makes target an exact copy of source. Both are stores of a repository; target
// may be empty. Other processes may use the source at the same time.
//
// Run returns the report so far even with an error. If files of the source are
// damaged, it copies all files that can be used without them, removes nothing and
// returns ErrDamaged.
func Run(ctx context.Context, source, target backend.Backend, opts Options) (*Report, error) {
	if opts.Workers <= 0 {
		opts.Workers = 16
	}
	m := &mirrorer{source: source, target: target, opts: opts, memory: semaphore.NewWeighted(inFlight)}
	m.report = &Report{Damaged: []Damage{}, DryRun: opts.DryRun, Judged: opts.Judge != nil}
	for n := range maxRounds {
		done, err := m.round(ctx, n == maxRounds-1)
		if err != nil || done {
			return m.report, err
		}
	}
	return m.report, fmt.Errorf("%w: the copied files stay; run the command again when fewer processes use the repository", ErrChanging)
}

// mirrorer holds the state of one call of Run or Check.
type mirrorer struct {
	source, target backend.Backend
	opts           Options
	memory         *semaphore.Weighted // limits the bytes of files in memory
	buffers        sync.Pool           // *[]byte
	hashers        sync.Pool           // *blake.Hasher

	mu       sync.Mutex // guards the fields below
	report   *Report
	progress Progress
	lacking  map[string]bool // files that are damaged in the source and not good on the target
}

// errChanged says that files of the source changed since they were listed.
var errChanged = errors.New("changed during the copy")
