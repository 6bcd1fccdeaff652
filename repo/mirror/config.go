package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/configs"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/replace"
)

// hintConfig is about a config of which nobody can say whether it is the good one.
const hintConfig = "nothing was changed. Do not delete or overwrite either config: one of them may be the last good one. Give the password, and snap can tell which (\"snap mirror --ask-password TARGET\"). To copy into another repository, use \"snap copy\""

// hintContested is the hint for a source whose config differs from its copies.
const hintContested = "nothing was changed; \"snap repair config\" asks for the password, finds out which one is right and puts it in place"

// configState says what to do with the config of the target.
type configState struct {
	good    []byte // the config of the repository
	put     bool   // the target has none
	replace bool   // the target's is damaged
	why     error  // why it is damaged
}

// settleConfig finds the good config of the source and compares the target's with it. It
// returns a *RefusedError unless the target is empty or a copy of the source. A damaged
// config of the source never replaces the target's. The good copy in the source's
// configs/ does, if there is one.
func (r *round) settleConfig(ctx context.Context) error {
	src, err := configs.Judge(ctx, r.source)
	if err != nil {
		return fmt.Errorf("source: %w", err)
	}
	dst, err := configs.Judge(ctx, r.target)
	if err != nil {
		return fmt.Errorf("target: %w", err)
	}
	mine, unreadable, err := readConfig(ctx, r.source, src)
	if err != nil {
		return fmt.Errorf("source: %w", err)
	}
	theirs, _, err := readConfig(ctx, r.target, dst)
	if err != nil {
		return fmt.Errorf("target: %w", err)
	}
	shares := r.sharesFiles()
	switch {
	case r.opts.Judge != nil:
		if mine, err = r.proveConfig(ctx, mine, src.Why); err != nil {
			return err
		}
	case src.State == configs.Damaged:
		r.damaged(layout.ConfigName, fmt.Errorf("%w; its copy %s is good: \"snap repair config\" puts it back", src.Why, src.Copy))
		mine = src.Bytes
	case src.State == configs.Unknown && dst.State == configs.Good && shares && !bytes.Equal(mine, theirs):
		r.damaged(layout.ConfigName, errors.New("it differs from the target's, which is good: \"snap repair config\" puts the good one in place"))
		mine = theirs
	case src.Contested && (dst.State != configs.Good || !shares):
		return &RefusedError{"the source's config is doubtful: " + src.Why.Error(), hintContested}
	case len(mine) == 0:
		return fmt.Errorf("%w: %w", &RefusedError{"the source has no config file that can be read", hintLost}, unreadable)
	}
	r.config.good = mine
	r.report.Foreign = nil
	for name := range r.src[copies] {
		if !r.wantsCopy(name) {
			r.report.Foreign = append(r.report.Foreign, name)
		}
	}
	slices.Sort(r.report.Foreign)
	switch {
	case len(r.dst[config]) == 0:
		r.config.put = true
		if !shares && r.dst.some() {
			return &RefusedError{"the target has files of a repository, but no config file and no file of this repository", "choose another target"}
		}
		return nil
	case bytes.Equal(mine, theirs):
		return nil
	}
	return r.settleOther(ctx, src, dst, shares)
}

// readConfig reads a config that was judged. unreadable says why it is empty.
func readConfig(ctx context.Context, be backend.Backend, j *configs.Judgement) (b []byte, unreadable, err error) {
	if j.State == configs.Good {
		return j.Bytes, nil, nil
	}
	b, err = backend.ReadAll(ctx, be, layout.ConfigName, layout.MaxConfigSize)
	switch {
	case err == nil && len(b) == 0:
		return nil, errors.New("it is empty"), nil
	case errors.Is(err, backend.ErrNotExist), errors.Is(err, backend.ErrTooLarge), backend.Unreadable(ctx, be, err):
		return nil, err, nil
	}
	return b, nil, err
}

// settleOther decides about a target whose config is not that of the source.
func (r *round) settleOther(ctx context.Context, src, dst *configs.Judgement, shares bool) error {
	other := &RefusedError{"the target is another repository: its config file is not the source's", "nothing was changed; choose another target, or copy into the other repository with \"snap copy\""}
	if !shares {
		return other
	}
	if r.opts.Judge != nil {
		v, err := r.opts.Judge.Files(ctx, viewOf(part{r.target, r.dst[:]}), []string{layout.ConfigName})
		if err != nil {
			return fmt.Errorf("target: %w", err)
		}
		r.config.why = v.Closed[layout.ConfigName]
		r.config.replace = r.config.why != nil
		return nil
	}
	var failed error
	if dst.State != configs.Good && src.State != configs.Unknown {
		// A copy of the source's config on the target shows that it was there before.
		b, err := backend.ReadAll(ctx, r.target, configs.Name(r.config.good), layout.MaxConfigSize)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil && bytes.Equal(b, r.config.good):
			r.config.replace, r.config.why = true, dst.Why
			return nil
		case errors.Is(err, backend.ErrNotExist), errors.Is(err, backend.ErrTooLarge):
		case err != nil && !backend.Unreadable(ctx, r.target, err):
			return fmt.Errorf("target: %w", err) // it no longer answers, so nothing is known
		default:
			failed = err
		}
	}
	err := error(&RefusedError{"the config of the target is not that of the source, although they have files in common: one of the two is damaged, or was replaced by that of another repository", hintConfig})
	if failed != nil {
		err = fmt.Errorf("%w; its copy cannot be read: %w", err, failed)
	}
	return err
}

// proveConfig returns the config of the source that the key opens: config itself, or one
// of its copies. missing says why there is no config, if there is none.
func (r *round) proveConfig(ctx context.Context, good []byte, missing error) ([]byte, error) {
	names := append(slices.Sorted(maps.Keys(r.src[copies])), layout.ConfigName)
	v, err := r.opts.Judge.Files(ctx, viewOf(part{r.source, r.src[:]}), names)
	if err != nil {
		return nil, fmt.Errorf("source: %w", err)
	}
	why := v.Closed[layout.ConfigName]
	switch {
	case len(r.src[config]) == 0 && missing != nil:
		why = missing
	case len(good) == 0 && why == nil:
		why = errors.New("it cannot be read")
	case why == nil:
		return good, nil
	}
	for _, name := range names {
		if v.Closed[name] != nil || name == layout.ConfigName {
			continue
		}
		b, err := backend.ReadAll(ctx, r.source, name, layout.MaxConfigSize)
		if err != nil {
			return nil, fmt.Errorf("source: %w", err)
		}
		r.exclude(layout.ConfigName, fmt.Errorf("%w; its copy %s is good: \"snap repair config\" puts it back", why, name))
		return b, nil
	}
	return nil, &RefusedError{"the key opens neither the config of the source nor a copy of it: " + why.Error(),
		"nothing was changed; \"snap repair config\" puts back the copy of config that is stored in the key slot"}
}

// copyConfig stores the good config on the target, if it has none or a damaged one.
func (r *round) copyConfig(ctx context.Context) (err error) {
	if r.config.put || r.config.replace {
		if err := r.moveAside(ctx, layout.ConfigName); err != nil {
			return err
		}
	}
	switch {
	case r.config.put:
		if err = r.target.Put(ctx, layout.ConfigName, r.config.good); errors.Is(err, backend.ErrExist) {
			err = nil
		}
	case r.config.replace:
		err = replace.Put(ctx, r.target, layout.ConfigName, r.config.good)
	default:
		return nil
	}
	if err != nil {
		return fmt.Errorf("target: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.advance(int64(len(r.config.good)))
	r.report.CopiedFiles++
	r.report.CopiedBytes += int64(len(r.config.good))
	if r.config.replace {
		r.report.HealedFiles++
	}
	return nil
}

// wantsCopy reports whether a copy of config may be copied: without a key, only that of
// the good config, since others would make it doubtful which one is right.
func (r *round) wantsCopy(name string) bool {
	return r.opts.Judge != nil || name == configs.Name(r.config.good)
}

// sharesFiles reports whether the target has a file of the source. Names are hashes of
// partly random bytes, so two repositories never have a file in common.
func (r *round) sharesFiles() bool {
	for c := range classes {
		for name := range r.dst[c] {
			if name != layout.ConfigName && r.src.has(name) {
				return true
			}
		}
	}
	return false
}
