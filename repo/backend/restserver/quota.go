package restserver

import (
	"context"
	"errors"
	"net/http"
	"path"
	"sync"
	"time"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/restapi"
)

// quotas count how much the files of users take.
type quotas struct {
	store backend.Backend
	limit int64 // bytes of one scope; 0 is no limit
	now   func() time.Time

	mu     sync.Mutex
	scopes map[string]*scope
}

// scope is what one quota is about: the folder of a user, or the whole store.
type scope struct {
	mu      sync.Mutex
	used    int64 // by files
	made    int64 // by folders, since the server began: listings have no folders
	pending int64 // of the uploads that run
	counted time.Time
}

// recount is how long a count is believed. Others may change the store, too: a prune that
// runs on the server does not go through it.
const recount = time.Hour

// block is what an empty file or a folder takes.
const block = 4096

// cost is how much of a quota a file takes. Small files count as a block of a disk, or many
// empty files would fill a disk and cost nothing.
func cost(size int64) int64 {
	return max(block, (size+block-1)/block*block)
}

func (q *quotas) scope(prefix string) *scope {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.scopes[prefix]
	if s == nil {
		s = &scope{}
		q.scopes[prefix] = s
	}
	return s
}

// count lists the files of a scope if the last count is old. The caller holds s.mu.
func (q *quotas) count(ctx context.Context, prefix string, s *scope) error {
	now := q.now()
	if !s.counted.IsZero() && now.Sub(s.counted) < recount {
		return nil
	}
	var used int64
	err := q.store.List(ctx, prefix, func(f backend.Info) error { used += cost(f.Size); return nil })
	if err != nil {
		return err
	}
	s.used, s.counted = used, now
	return nil
}

// take reserves room for files and new folders. The caller calls done when it knows whether
// they were stored.
func (q *quotas) take(ctx context.Context, prefix string, files, folders int64) (done func(stored bool), err error) {
	if q.limit == 0 {
		return func(bool) {}, nil
	}
	s, n := q.scope(prefix), files+folders
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := q.count(ctx, prefix, s); err != nil {
		return nil, err
	}
	if s.used+s.made+s.pending+n > q.limit {
		return nil, &refusal{status: http.StatusInsufficientStorage, reason: restapi.ReasonQuota, text: "the quota is used up"}
	}
	s.pending += n
	return func(stored bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.pending -= n
		if stored {
			s.used += files
			s.made += folders
		}
	}, nil
}

// give notes that a file was deleted.
func (q *quotas) give(prefix string, size int64) {
	if q.limit == 0 {
		return
	}
	s := q.scope(prefix)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used -= cost(size); s.used < 0 {
		s.used = 0 // others have changed the store since it was counted
	}
}

// free returns how much of the quota is left; ok is false if there is no limit.
func (q *quotas) free(ctx context.Context, prefix string) (left int64, ok bool, err error) {
	if q.limit == 0 {
		return 0, false, nil
	}
	s := q.scope(prefix)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := q.count(ctx, prefix, s); err != nil {
		return 0, false, err
	}
	return max(0, q.limit-s.used-s.made-s.pending), true, nil
}

// newFolders returns how much of a quota the folders above a name take that are missing.
func (q *request) newFolders(name string) (size int64, err error) {
	f, ok := q.store.(backend.Folders)
	if !ok || q.opts.Quota == 0 {
		return 0, nil
	}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		has, err := f.HasFolder(q.Context(), dir+"/")
		switch {
		case errors.Is(err, errors.ErrUnsupported), err == nil && has:
			return size, nil
		case err != nil:
			return 0, err
		}
		size += block
	}
	return size, nil
}
