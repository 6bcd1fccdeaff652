package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/cache"
	"github.com/snap-backup/snap/repo/backend/local"
	"github.com/snap-backup/snap/repo/backend/retry"
	"github.com/snap-backup/snap/repo/backend/window"
)

// cacheLimit is how many bytes the caches of all repositories may have together.
const cacheLimit = 1 << 30

// isAddress reports whether a repository is not in a folder of this computer, and snap can
// open it.
func isAddress(dir string) bool { return storeKindOf(dir) != nil }

// overlapping reports whether two addresses name the same place, or one that is in the other.
func overlapping(a, b string) bool {
	in := func(inner, outer string) bool {
		return strings.HasPrefix(inner+"/", strings.TrimSuffix(outer, "/")+"/")
	}
	return in(placeOf(a), placeOf(b)) || in(placeOf(b), placeOf(a))
}

// placeOf returns an address in one of its forms.
func placeOf(dir string) string {
	if k := storeKindOf(dir); k != nil {
		if place, err := k.place(dir); err == nil {
			return k.scheme + place
		}
	}
	return dir
}

// openFolder opens the store of a repository: a folder, or an address.
func (a *app) openFolder(ctx context.Context, dir string) (storage, error) {
	if _, err := parseOptions(a.storeOptions); err != nil {
		return nil, err // also where none is needed: it may be misspelled
	}
	if isAddress(dir) {
		return a.openAddress(ctx, dir, false)
	}
	be, err := local.Open(dir)
	return a.opened(dir, be, err)
}

// createFolder makes the folder of a repository, or prepares its address.
func (a *app) createFolder(ctx context.Context, dir string) (storage, error) {
	if isAddress(dir) {
		return a.openAddress(ctx, dir, true)
	}
	be, err := local.Create(dir)
	return a.opened(dir, be, err)
}

// closer is how the connection to a store ends, and how what killed runs left there is
// removed.
type closer struct {
	end   func() error
	stale func(ctx context.Context, age time.Duration) (int, error)
}

func (c closer) Close() error { return c.end() }

func (c closer) RemoveStale(ctx context.Context, age time.Duration) (int, error) {
	return c.stale(ctx, age)
}

// The kinds of distant stores. A store has more methods if it has folders, and if there is a
// cache in front of it.
type (
	distantStore struct {
		*window.Backend
		closer
	}
	distantFolders struct {
		*window.Backend
		backend.Folders
		closer
	}
	cachedStore struct {
		*cache.Backend
		closer
	}
	cachedFolders struct {
		*cache.Backend
		backend.Folders
		closer
	}
)

// openAddress opens the store at an address. Operations are repeated if the store does not
// answer.
func (a *app) openAddress(ctx context.Context, dir string, create bool) (storage, error) {
	o, err := parseOptions(a.storeOptions)
	if err != nil {
		return nil, err
	}
	far, err := storeKindOf(dir).open(ctx, a, o, dir, create)
	if err != nil {
		return nil, err
	}
	end := far.end
	again := retry.New(far.Backend, a.repeatOptions(far.connections))
	folders, hasFolders := again.(backend.Folders)
	repeating, _ := again.(window.Store)
	plain := window.New(repeating)
	if a.usesCache() {
		if c := a.cacheFor(ctx, plain); c != nil {
			if hasFolders {
				return cachedFolders{c, folders, end}, nil
			}
			return cachedStore{c, end}, nil
		}
	}
	if hasFolders {
		return distantFolders{plain, folders, end}, nil
	}
	return distantStore{plain, end}, nil
}

// reportRetry returns a function that says that a store does not answer. It says it once a
// minute at most, since several operations fail together.
func (a *app) reportRetry() func(retry.Failure) {
	var mu sync.Mutex
	var last time.Time
	return func(f retry.Failure) {
		mu.Lock()
		defer mu.Unlock()
		if time.Since(last) < time.Minute && !last.IsZero() {
			a.detail("%v; trying again in %v", f.Err, f.Wait.Round(time.Second))
			return
		}
		last = time.Now()
		a.warn("%v; trying again for up to 15 minutes", f.Err)
	}
}

// uncached are the commands that judge or change a repository as a whole. They ask the store
// for everything, and believe nothing. A verification or drill that read from the cache would
// prove nothing about the store.
var uncached = []string{"check", "copy", "drill", "forget", "init", "key", "mirror", "parity", "protect", "prune", "repair", "serve", "unlock", "verify"}

func (a *app) usesCache() bool {
	command, _, _ := strings.Cut(a.command, " ")
	return !a.noCache && !slices.Contains(uncached, command)
}

// cacheFor returns the cache for a store, or nil if there is none.
func (a *app) cacheFor(ctx context.Context, be backend.Backend) *cache.Backend {
	root, err := cacheDir("repositories")
	if err == nil {
		var c *cache.Backend
		if c, err = cache.New(ctx, be, root); err == nil {
			_ = cache.Trim(root, cacheLimit)
			return c
		}
	}
	if !errors.Is(err, backend.ErrNotExist) && ctx.Err() == nil {
		a.detail("no cache is used: %v", err)
	}
	return nil
}
