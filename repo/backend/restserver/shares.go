package restserver

import (
	"sync"

	"golang.org/x/sync/semaphore"
)

// shares bound the memory that the uploads of one user take. Otherwise somebody who sends slowly
// could keep all others from storing anything. A file that is larger than a share takes the
// whole share.
type shares struct {
	limit int64 // bytes for each user

	mu    sync.Mutex
	users map[string]*semaphore.Weighted
}

// of returns the share of a user.
func (s *shares) of(user string) *semaphore.Weighted {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users[user] == nil {
		s.users[user] = semaphore.NewWeighted(s.limit)
	}
	return s.users[user]
}
