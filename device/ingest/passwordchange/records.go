package passwordchange

import (
	"context"
	"errors"
	"slices"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// Parents returns the complete snapshots of a device, the newest first. The
// device's next backup continues from the first usable one.
func Parents(ctx context.Context, r *repo.Repo, udid string) ([]*repo.Snapshot, error) {
	list, err := r.KnownSnapshots(ctx)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(s *repo.Snapshot) bool {
		return !s.Complete || !repo.SameDevice(s.Device.UDID, udid)
	})
	slices.Reverse(list)
	return list, nil
}

// records returns the records of password changes of a device, the oldest first.
func records(ctx context.Context, r *repo.Repo, udid string) ([]*repo.Unfinished, error) {
	list, _, err := r.Unfinished(ctx)
	if err != nil {
		return nil, err
	}
	var out []*repo.Unfinished
	for _, u := range list {
		if u.Kind == repo.UnfinishedPasswordChange && repo.SameDevice(u.UDID, udid) {
			out = append(out, u)
		}
	}
	return out, nil
}

// Apply calls fn for the files that password changes have written since a
// snapshot, the oldest first. They replace the files of the snapshot.
func Apply(ctx context.Context, r *repo.Repo, udid string, parent *repo.Snapshot, fn func(*tree.Entry) error) error {
	list, err := records(ctx, r, udid)
	if err != nil {
		return err
	}
	for _, u := range list {
		if u.Parent == nil || !parent.Has(*u.Parent) {
			continue
		}
		// If a record is damaged, the device sends everything; nothing is lost.
		if err := r.WalkUnfinished(ctx, u, fn); err != nil && !errors.Is(err, repo.ErrDamaged) {
			return err
		}
	}
	return nil
}

// RemoveAll removes the records of password changes of a device, which a new
// snapshot has made unnecessary.
func RemoveAll(ctx context.Context, r *repo.Repo, udid string) error {
	list, err := records(ctx, r, udid)
	if err != nil {
		return err
	}
	for _, u := range list {
		if err := r.RemoveUnfinished(ctx, u); err != nil {
			return err
		}
	}
	return nil
}
