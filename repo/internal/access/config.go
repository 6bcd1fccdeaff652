package access

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/configs"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/replace"
)

// ConfigRepair says what RepairConfig found and did, or would do.
type ConfigRepair struct {
	// Damage says what was wrong with config; empty if nothing was.
	Damage string `json:"damage,omitempty"`
	// Aside is the new name of a folder, link or pipe that had the name of config.
	Aside string `json:"aside,omitempty"`
	// Copy is the name of the copy of config. Stored says that the copy was missing or
	// damaged, and that a new one was stored.
	Copy   string `json:"copy"`
	Stored bool   `json:"stored"`
	// Made says that config and all its copies were lost, and that a new one was made:
	// the repository has another ID now, and content is cut in other places.
	Made bool `json:"made,omitempty"`
	// Removed are files in configs/ that are damaged, or that the key does not open.
	Removed []string `json:"removed"`
}

// Changed reports whether anything was wrong.
func (x *ConfigRepair) Changed() bool { return x.Damage != "" || x.Stored || len(x.Removed) > 0 }

// KeepConfig stores a copy of config if there is none. Older programs made none.
func KeepConfig(ctx context.Context, r *store.Store) error {
	if r.Sealed == nil {
		return nil
	}
	_, _, err := configs.Keep(ctx, r.Backend, r.Sealed.Bytes())
	return err
}

// lastResort finds a config if the secret opens slots in list, but none of their master
// keys opens a config that was found. It takes the copy of config in a slot or, if the
// options say so, makes a new one. The master key must open a record of this repository,
// since the slot may belong to another one.
func lastResort(ctx context.Context, be backend.Backend, list []opened, opts store.Options) (*unlocked, error) {
	for _, o := range list {
		info, _ := o.Info(o.Master)
		f, err := store.ParseConfig(info.Config)
		made := err != nil
		if errors.Is(err, store.ErrUnsupported) {
			return nil, err
		}
		if made && !opts.MakeConfig {
			continue
		}
		if ours, err := opensRecord(ctx, be, o.Master); err != nil || !ours {
			if err != nil {
				return nil, err
			}
			continue
		}
		var cfg store.Config
		if made {
			if cfg, err = store.NewConfig(opts); err == nil {
				f, err = cfg.Seal(o.Master, opts.Rand)
			}
		} else {
			cfg, err = f.Open(o.Master)
		}
		if err != nil {
			return nil, err
		}
		u := o.with(f, cfg)
		u.made = made
		return u, nil
	}
	return nil, nil
}

// magicSize is the length of the magic before the sealed bytes of a record.
const magicSize = 8

// opensRecord reports whether a master key opens an index file or a snapshot record.
func opensRecord(ctx context.Context, be backend.Backend, master crypto.Key) (bool, error) {
	done := errors.New("opened")
	for dir, purpose := range map[string]crypto.Purpose{layout.IndexDir: crypto.ForIndexes, layout.SnapshotsDir: crypto.ForSnapshots} {
		sealer := crypto.NewSealer(master.Derive(purpose), nil)
		err := store.List(ctx, be, dir, func(f backend.Info) error {
			b, err := store.ReadNamed(ctx, be, f.Name, layout.MaxFileSize)
			if err != nil && !errors.Is(err, store.ErrDamaged) {
				return err
			}
			if len(b) > magicSize {
				if _, err := sealer.Open(nil, b[magicSize:], nil); err == nil {
					return done
				}
			}
			return nil
		})
		if err != nil {
			if errors.Is(err, done) {
				return true, nil
			}
			return false, err
		}
	}
	return false, nil
}

// RepairConfig replaces a damaged config by the one that the key of this repository has
// opened, stores a copy of it in configs/, and removes all other files there.
func RepairConfig(ctx context.Context, r *store.Store, dryRun bool) (*ConfigRepair, error) {
	good := r.Sealed.Bytes()
	x := &ConfigRepair{Copy: configs.Name(good), Made: r.ConfigMade, Removed: []string{}}
	if r.ConfigDamage != nil {
		x.Damage = r.ConfigDamage.Error()
	}
	extra, kept, err := judgeCopies(ctx, r, good)
	if err != nil {
		return nil, err
	}
	x.Stored, x.Removed = !kept, extra
	if dryRun {
		return x, nil
	}
	if x.Aside, err = configs.Restore(ctx, r.Backend, good); err != nil {
		return nil, fmt.Errorf("repair config: %w", configDamage(ctx, r, err))
	}
	r.ConfigDamage, r.ConfigMade = nil, false
	for _, name := range append(extra, replace.Dir+layout.ConfigName) {
		if err := remove(ctx, r.Backend, name); err != nil {
			return nil, fmt.Errorf("config is good now, but a file that is not needed could not be removed: %w", err)
		}
	}
	return x, nil
}

// configDamage returns a *store.DamageError if err says that config or its copy was stored
// and cannot be read back.
func configDamage(ctx context.Context, r *store.Store, err error) error {
	bad, ok := errors.AsType[*configs.BadCopyError](err)
	switch {
	case !ok:
		return err
	case bad.Different():
		return &store.DamageError{File: bad.Name, Err: bad}
	}
	return store.Judge(ctx, r.Backend, bad.Name, bad)
}

// judgeCopies returns the files in configs/ that are not the copy of the good config, and
// whether the copy of the good config is there. The name of a file tells what it is a
// copy of, so the others need not be read, however many somebody has added.
func judgeCopies(ctx context.Context, r *store.Store, good []byte) (extra []string, kept bool, err error) {
	names, err := configs.Names(ctx, r.Backend)
	if err != nil {
		return nil, false, err
	}
	extra = slices.DeleteFunc(names, func(name string) bool { return name == configs.Name(good) })
	kept, err = hasCopy(ctx, r, good)
	return append([]string{}, extra...), kept, err
}

// hasCopy reports whether configs/ has a copy of a config.
func hasCopy(ctx context.Context, r *store.Store, config []byte) (bool, error) {
	b, err := backend.ReadAll(ctx, r.Backend, configs.Name(config), layout.MaxConfigSize)
	return err == nil && bytes.Equal(b, config), ctx.Err()
}

// ConfigProblem is something that is wrong with config or its copies.
type ConfigProblem struct {
	File string
	Err  error
}

// CheckConfig says what is wrong with config and its copies. RepairConfig helps against
// each problem.
func CheckConfig(ctx context.Context, r *store.Store) ([]ConfigProblem, error) {
	var found []ConfigProblem
	good := r.Sealed.Bytes()
	b, err := backend.ReadAll(ctx, r.Backend, layout.ConfigName, layout.MaxConfigSize)
	var d *store.DamageError
	switch err = store.Judge(ctx, r.Backend, layout.ConfigName, err); {
	case errors.As(err, &d):
		found = append(found, ConfigProblem{layout.ConfigName, d.Err})
	case err != nil:
		return nil, err
	case !bytes.Equal(b, good):
		found = append(found, ConfigProblem{layout.ConfigName, errors.New("it differs from the config that the key of this repository opens")})
	}
	copies, err := configs.List(ctx, r.Backend)
	if err != nil {
		return nil, err
	}
	kept, err := hasCopy(ctx, r, good)
	if err != nil {
		return nil, err
	}
	for _, c := range copies {
		switch {
		case bytes.Equal(c.Bytes, good):
		case c.Bytes == nil:
			kept = kept || c.Name == configs.Name(good)
			found = append(found, ConfigProblem{c.Name, fmt.Errorf("this copy of config is damaged: %w", c.Err)})
		default:
			found = append(found, ConfigProblem{c.Name, errors.New("this is not the config of this repository: someone has put it there, or a repair was interrupted. Without a password, nobody can tell which one is right")})
		}
	}
	if !kept && hasBoundSlot(ctx, r) {
		found = append(found, ConfigProblem{configs.Name(good), errors.New("this copy of config is missing")})
	}
	return found, nil
}

// hasBoundSlot reports whether the repository was opened with a slot of the newest
// version. Programs that make one also store a copy of config, which older ones do not.
func hasBoundSlot(ctx context.Context, r *store.Store) bool {
	s, err := readSlot(ctx, r.Backend, layout.KeysDir+r.Slot.String())
	return err == nil && s.Bound()
}
