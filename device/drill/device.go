package drill

import (
	"context"
	"errors"
	"fmt"
	"path"

	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/device/host"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/protocol/backup2"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// Device rehearses a full restore to a simulated device. The error says why the drill
// could not be done: damage of the backup or of the repository is no error.
func Device(ctx context.Context, o Options) (*Report, error) {
	if err := o.check(ctx); err != nil {
		return nil, err
	}
	report := o.begin(repo.LevelDevice)
	report.IOS, report.Model = o.ios(), device.Model(o.Snapshot.Device.ProductType)
	report.Storage, _ = o.storage()
	r := &rehearsal{judge: &judge{ctx: ctx, opts: &o, layout: mobilesync.Hashed}}
	if err := o.restore(ctx, r, report); err != nil {
		return nil, fmt.Errorf("drill snapshot %s: %w", o.Snapshot.ID.Short(), err)
	}
	o.noteDevice(report)
	o.finish(report, r.judge, r.ended)
	return report, nil
}

// check refuses snapshots that the simulated device cannot restore.
func (o *Options) check(ctx context.Context) error {
	s := o.Snapshot
	if s.Encrypted && o.Password == nil {
		return fmt.Errorf("snapshot %s: %w", s.ID.Short(), ErrNoPassword)
	}
	old, err := o.Repo.Find(ctx, s, tree.Key{Path: mobilesync.ManifestMBDB})
	if err != nil || old == nil {
		return err
	}
	if db, err := o.Repo.Find(ctx, s, tree.Key{Path: mobilesync.ManifestDB}); err != nil || db != nil {
		return err
	}
	return fmt.Errorf("snapshot %s: %w", s.ID.Short(), ErrOld)
}

// noteDevice adds to the report what a simulated device cannot check.
func (o *Options) noteDevice(r *Report) {
	add := func(format string, args ...any) { r.NotChecked = append(r.NotChecked, fmt.Sprintf(format, args...)) }
	if o.Storage == 0 {
		add("whether your device has room: the simulated one has %d GB", r.Storage/1e9)
	}
	if o.ios() == "" {
		add("whether iOS of your device is new enough: the snapshot does not say which it needs")
	}
	add("what only a real device knows: whether it is activated, Find My is off, and its apps are still in the App Store")
}

// restore restores to the simulated device and adds what it finds to the log and the
// report.
func (o *Options) restore(ctx context.Context, r *rehearsal, report *Report) error {
	p, err := o.newPhone(ctx, r)
	if err != nil {
		return err
	}
	defer p.close()
	h := host.Host{Mux: p.mux, Repo: o.Repo, Name: o.Name, Program: o.Program, Now: o.Now, Random: o.Random, Bytes: o.Bytes}
	e, err := p.mux.Find(ctx, p.UDID())
	if err != nil {
		return err
	}
	plan, err := h.PlanRestore(ctx, e, o.Snapshot)
	if errors.Is(err, repo.ErrDamaged) {
		return o.lostBefore(ctx, r, err)
	}
	if err != nil {
		return err
	}
	plan.IgnoreDamage() // the drill finds all of it
	if err := plan.Err(); err != nil {
		report.Refusal = err
		for _, text := range append(plan.Refusals, plan.Room) {
			if text != "" {
				r.log.Note(finding.Refused, repo.Damage, "a restore is refused: "+text)
			}
		}
		return nil
	}
	opt := host.RestoreOptions{RestoreOptions: backup2.RestoreOptions{SystemFiles: true, RemoveOthers: true}, Password: o.Password}
	_, err = h.Restore(ctx, plan, opt, quiet{o.Observer})
	p.close()
	return o.outcome(ctx, p, plan, r, report, err)
}

// lostBefore records that the repository has lost a part of the snapshot that even the
// preparation of a restore needs.
func (o *Options) lostBefore(ctx context.Context, r *rehearsal, err error) error {
	r.log.Note(finding.Lost, repo.Damage, fmt.Sprintf("the repository has lost a part of the snapshot: %v", err))
	return ctx.Err()
}

// outcome turns the outcome of a restore into findings. err is that of the host.
func (o *Options) outcome(ctx context.Context, p *phone, plan *host.Plan, r *rehearsal, report *Report, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if r.fatal != nil {
		return r.fatal
	}
	lost := 0
	for _, f := range plan.Failures() {
		if !errors.Is(f.Err, repo.ErrDamaged) {
			return f.Err // the repository cannot be read now; that says nothing about the backup
		}
		r.log.File(finding.Lost, r.nameOf(f.Path))
		lost++
	}
	run := p.agent.LastRun()
	report.Apps = max(0, run.Applications)
	var refusal *backup2.DeviceError
	switch {
	case run.Code == 0 && r.ended:
	case errors.Is(err, backup2.ErrWrongPassword):
		return err
	case errors.As(err, &refusal):
		if !r.ended && lost == 0 {
			r.log.Note(finding.Refused, repo.Damage, "the simulated device refuses the backup: "+refusal.Error())
		}
	case err != nil:
		return err
	default:
		return fmt.Errorf("the simulated device did not end the restore: %s", run.Err)
	}
	if wrong := p.Violations(); len(wrong) > 0 {
		return fmt.Errorf("a mistake of this program, which a device would not accept: %q", wrong)
	}
	return nil
}

// nameOf names a blob in findings by its path in the backup folder.
func (r *rehearsal) nameOf(blobPath string) string {
	if id, err := fileID(path.Base(blobPath)); err == nil && r.records != nil {
		if i, ok := r.records.ByFileID(id); ok {
			rec := r.records.At(i)
			return r.name(&rec)
		}
	}
	return blobPath
}

// quiet passes on progress, and nothing else: what happens to files becomes a finding.
type quiet struct{ o host.Observer }

func (q quiet) Phase(p backup2.Phase) {
	if q.o != nil {
		q.o.Phase(p)
	}
}

func (q quiet) Progress(p backup2.Progress) {
	if q.o != nil {
		q.o.Progress(p)
	}
}

func (quiet) Warning(string) {}
func (quiet) Remark(string)  {}
func (quiet) Prompt(bool)    {}
