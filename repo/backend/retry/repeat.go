package retry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/snap-backup/snap/repo/backend"
)

// repeat calls operation until it succeeds, fails for a reason that does not pass, or the
// time is over. size is how many bytes the operation moves.
func (r *retrier) repeat(ctx context.Context, op, name string, size int64, operation func(ctx context.Context) error) error {
	limit := r.limit(size)
	s := series{r: r, op: op, name: name}
	for {
		err := r.attempt(ctx, limit, operation)
		if again, err := s.again(ctx, err); !again {
			return err
		}
	}
}

// attempt calls operation once, when it is its turn, with a time limit.
func (r *retrier) attempt(ctx context.Context, limit time.Duration, operation func(ctx context.Context) error) error {
	if r.slots != nil {
		select {
		case r.slots <- struct{}{}:
			defer func() { <-r.slots }()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return overdue(ctx, limited, limit, operation(limited))
}

// overdue returns the error of an attempt, or a temporary one if its own limit has ended it
// and not the caller's context.
func overdue(ctx, limited context.Context, limit time.Duration, err error) error {
	if err == nil || ctx.Err() != nil || limited.Err() == nil || !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
		return err
	}
	return &backend.TemporaryError{Err: fmt.Errorf("%w: no answer within %s", backend.ErrOutOfReach, limit)}
}

// series is the attempts of one operation.
type series struct {
	r        *retrier
	op, name string
	attempts int       // that failed
	first    time.Time // when the first one failed
}

// again reports, after an attempt, whether there is another one, and waits for it. If not,
// it returns the error of the operation.
func (s *series) again(ctx context.Context, err error) (bool, error) {
	if !backend.Temporary(err) {
		return false, err
	}
	if cerr := ctx.Err(); cerr != nil {
		return false, fmt.Errorf("%s %s: %w", s.op, s.name, cerr)
	}
	now := time.Now()
	if s.attempts++; s.attempts == 1 {
		s.first = now
	}
	wait := s.wait(err)
	if elapsed := now.Sub(s.first); elapsed+wait > s.r.opts.Total {
		return false, fmt.Errorf("%w (gave up after %d attempts in %s)", err, s.attempts, elapsed.Round(time.Second))
	}
	if s.r.opts.Report != nil {
		s.r.opts.Report(Failure{s.op, s.name, err, s.attempts, wait})
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true, nil
	case <-ctx.Done():
		return false, fmt.Errorf("%s %s: %w", s.op, s.name, ctx.Err())
	}
}

// wait returns how long to wait after a failure.
func (s *series) wait(err error) time.Duration {
	longest := s.r.opts.Longest
	wait := s.r.opts.First
	for range s.attempts - 1 {
		if wait *= 2; wait >= longest {
			wait = longest
			break
		}
	}
	wait -= time.Duration(s.r.opts.Random() * float64(wait) / 2)
	if e, ok := errors.AsType[*backend.TemporaryError](err); ok {
		wait = max(wait, e.After)
	}
	return wait
}

// progressed begins a new series: what follows is not a repetition of what failed.
func (s *series) progressed() { s.attempts = 0 }

// List implements [backend.Backend].
func (r *retrier) List(ctx context.Context, prefix string, fn func(backend.Info) error) error {
	return r.list(ctx, prefix, fn, func(ctx context.Context, fn func(backend.Info) error) error { return r.inner.List(ctx, prefix, fn) })
}

// ListRange implements [backend.RangeLister].
func (r *retrier) ListRange(ctx context.Context, after, before string, fn func(backend.Info) error) error {
	inner, ok := r.inner.(backend.RangeLister)
	if !ok {
		return errors.ErrUnsupported
	}
	return r.list(ctx, after, fn, func(ctx context.Context, fn func(backend.Info) error) error {
		return inner.ListRange(ctx, after, before, fn)
	})
}

func (r *retrier) list(ctx context.Context, name string, fn func(backend.Info) error, do func(context.Context, func(backend.Info) error) error) error {
	l := listing{s: series{r: r, op: "list", name: name}, fn: fn}
	for {
		err := l.attempt(ctx, do)
		if l.err != nil {
			return l.err
		}
		if again, err := l.s.again(ctx, err); !again {
			return err
		}
	}
}

// listing is a List over several attempts.
type listing struct {
	s     series
	fn    func(backend.Info) error
	last  string // the last file that fn was called for
	any   bool   // whether there is one
	err   error  // of fn, which ends the listing whatever it is
	timer *time.Timer
}

// attempt lists once. The time limit is for each file: the time that fn takes does not
// count, and a listing may be long.
func (l *listing) attempt(ctx context.Context, list func(context.Context, func(backend.Info) error) error) error {
	limited, cancel := context.WithCancel(ctx)
	defer cancel()
	l.timer = time.AfterFunc(l.s.r.base(), cancel)
	defer l.timer.Stop()
	return overdue(ctx, limited, l.s.r.base(), list(limited, l.show))
}

func (l *listing) show(info backend.Info) error {
	l.timer.Stop()
	defer l.timer.Reset(l.s.r.base())
	if l.any && info.Name <= l.last {
		return nil // shown by an earlier attempt
	}
	l.last, l.any = info.Name, true
	l.s.progressed()
	l.err = l.fn(info)
	return l.err
}
