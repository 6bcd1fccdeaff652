package repo

import "github.com/snap-backup/snap/repo/internal/store"

// Store lets tests use the store of a repository.
func Store(r *Repo) *store.Store { return r.store }
