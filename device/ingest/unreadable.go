package ingest

import (
	"errors"
	"fmt"
	"strings"

	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/device/mobilesync/folder"
	"github.com/snap-backup/snap/internal/words"
	"github.com/snap-backup/snap/repo"
)

// ErrUnreadable says that a part of a backup folder cannot be read. The error
// returned is an *UnreadableError.
var ErrUnreadable = errors.New("a part of the backup cannot be read")

// UnreadableError says what of a backup folder cannot be read, and what can. It
// matches ErrUnreadable.
type UnreadableError struct {
	Dir      string
	First    error // of the first file or folder that cannot be read
	More     int   // other files and folders that cannot be read
	Readable int64 // files that can be read; 0 if that is not known
}

func (e *UnreadableError) Error() string {
	text := fmt.Sprintf("%s: %v: %v", e.Dir, ErrUnreadable, e.First)
	if e.More > 0 {
		text += fmt.Sprintf(" (and %d more)", e.More)
	}
	if e.Readable > 0 {
		text += fmt.Sprintf("; %s can be read", words.Plural(e.Readable, "file"))
	}
	return text
}

func (e *UnreadableError) Unwrap() error { return e.First }

// Is makes errors.Is(err, ErrUnreadable) true.
func (e *UnreadableError) Is(target error) bool { return target == ErrUnreadable }

// unreadable are the files and folders that could not be listed, by path.
type unreadable struct {
	paths map[string]bool
	errs  []error // in the order of the walk
}

// pass notes a file or folder that cannot be listed, and lets the walk go on.
func (u *unreadable) pass(path string, err error) error {
	if u.paths == nil {
		u.paths = map[string]bool{}
	}
	u.paths[path] = true
	u.errs = append(u.errs, err)
	return nil
}

// has reports whether a file or the folder that it is in could not be listed.
func (u *unreadable) has(path string) bool {
	dir, _, _ := strings.Cut(path, "/")
	return u.paths[path] || u.paths[dir]
}

// judgeUnreadable decides about files and folders that could not be listed. They
// are left out if AllowIncomplete is set.
func (j *job) judgeUnreadable() error {
	errs := j.unlisted.errs
	if len(errs) == 0 {
		return nil
	}
	if !j.opts.AllowIncomplete {
		if !j.fromFolder() {
			return errs[0]
		}
		files := int64(0)
		for i := range j.items.len() {
			if it := j.items.at(i); !it.dir && !it.odd {
				files++
			}
		}
		return &UnreadableError{j.b.Dir(), errs[0], len(errs) - 1, files}
	}
	const most = 3
	var texts []string
	for _, err := range errs[:min(len(errs), most)] {
		texts = append(texts, err.Error())
	}
	if more := len(errs) - len(texts); more > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", more))
	}
	j.log.Note(finding.Unreadable, repo.Damage, "a part of the backup could not be read and was left out: "+strings.Join(texts, "; "))
	return nil
}

// readError returns the error of a file that cannot be read.
func (j *job) readError(err *sourceError) error {
	if !j.fromFolder() || errors.Is(err, folder.ErrChanged) {
		return err
	}
	return &UnreadableError{Dir: j.b.Dir(), First: err}
}

func (j *job) fromFolder() bool {
	_, ok := j.src.(*folderSource)
	return ok
}
