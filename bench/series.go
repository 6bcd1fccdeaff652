package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/snap-backup/snap/device/simulator/synthetic"
)

// step is a measured kind of work.
type step string

const (
	stepFirst     step = "first import"
	stepNext      step = "next day"
	stepUnchanged step = "unchanged import"
	stepList      step = "list of snapshots"
	stepCheck     step = "check of all data"
	stepCopy      step = "cp -r"
	stepCopySync  step = "cp -r, then sync"
	stepSHA256    step = "sha256sum of the repository"
	stepB3        step = "b3sum of the repository"
)

func stepRestore(day int) step { return step(fmt.Sprintf("restore of day %d", day)) }

// toolRepo is a repository of a tool. Each tool has one per repetition.
type toolRepo struct {
	tool       *tool
	repo, home string
}

// bench is one run of the benchmark.
type bench struct {
	conf  config
	tools []*tool
	log   io.Writer
	// flush waits until all writes of earlier programs are on disk.
	flush func()
	// sync is the program that stepCopySync runs after cp.
	sync string

	devices []synthetic.Device
	backups string        // folder of the backup folders
	rounds  [][]*toolRepo // by repetition, one of each tool
	days    []contents    // of all backup folders together, by day
	turn    int           // number of rounds so far
	report  *report
}

// begin begins a series and makes the repositories. The caller closes the series.
func (b *bench) begin(ctx context.Context) (*synthetic.Series, error) {
	b.report = newReport(ctx, b.conf, b.tools)
	b.backups = filepath.Join(b.conf.dir, "backups")
	if err := os.Mkdir(b.backups, 0o700); err != nil {
		return nil, err
	}
	b.conf.series.StateDir = b.conf.dir
	series, err := synthetic.New(b.conf.series)
	if err != nil {
		return nil, err
	}
	b.devices = series.Devices()
	if err := b.createRepos(ctx); err != nil {
		return nil, errors.Join(err, series.Close())
	}
	return series, nil
}

// run runs the benchmark. It prints only progress.
func (b *bench) run(ctx context.Context) (_ *report, err error) {
	series, err := b.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, series.Close()) }()
	if err := b.storeDays(ctx, series); err != nil {
		return nil, err
	}
	if err := b.eachRepo(func(r *toolRepo) error { return b.store(ctx, r, stepUnchanged, b.conf.days) }); err != nil {
		return nil, err
	}
	if err := b.eachRepo(func(r *toolRepo) error { return b.list(ctx, r) }); err != nil {
		return nil, err
	}
	for _, day := range slices.Compact([]int{0, b.conf.days / 2, b.conf.days - 1}) {
		if err := b.restoreDay(ctx, day); err != nil {
			return nil, err
		}
	}
	return b.report, b.checkAll(ctx)
}

// logf prints progress.
func (b *bench) logf(format string, args ...any) {
	fmt.Fprintf(b.log, "%s  %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, args...))
}

// createRepos creates the repositories, without measuring.
func (b *bench) createRepos(ctx context.Context) error {
	for n := range b.conf.repeat {
		var round []*toolRepo
		for _, t := range b.tools {
			dir := filepath.Join(b.conf.dir, fmt.Sprintf("%s-%d", t.name, n))
			r := &toolRepo{t, filepath.Join(dir, "repo"), filepath.Join(dir, "home")}
			if err := os.MkdirAll(r.home, 0o700); err != nil {
				return err
			}
			commands := t.create(params{repo: r.repo, home: r.home})
			if len(commands) == 0 {
				if err := os.Mkdir(r.repo, 0o700); err != nil {
					return err
				}
			}
			for _, args := range commands {
				if _, _, err := t.command(args, params{repo: r.repo, home: r.home}, dir).measure(ctx); err != nil {
					return err
				}
			}
			round = append(round, r)
		}
		b.rounds = append(b.rounds, round)
	}
	return nil
}

// eachRepo calls do for every repository. A round has one repository of each tool. Each
// round begins with another tool, so that noise and caches favour no tool. At the end
// of each round, eachRepo calls the functions in after.
func (b *bench) eachRepo(do func(*toolRepo) error, after ...func() error) error {
	for _, round := range b.rounds {
		for i := range round {
			if err := do(round[(b.turn+i)%len(round)]); err != nil {
				return err
			}
		}
		for _, f := range after {
			if err := f(); err != nil {
				return err
			}
		}
		b.turn++
	}
	return nil
}

// storeDays generates each day and stores it with every tool.
func (b *bench) storeDays(ctx context.Context, series *synthetic.Series) (err error) {
	var floor *floorSeries
	if b.conf.floor {
		if floor, err = newFloorSeries(b.conf); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, floor.close()) }()
	}
	for day := range b.conf.days {
		if err := b.nextDay(ctx, series); err != nil {
			return err
		}
		if floor != nil {
			b.logf("day %d: floor", day)
			size, err := floor.next(ctx, b.backups, b.days[day])
			if err != nil {
				return err
			}
			b.report.addFloor(size)
		}
		b.logf("day %d: import", day)
		if err := b.storeDay(ctx, day); err != nil {
			return err
		}
		if day == 0 {
			if err := b.addHistory(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// nextDay generates the next day.
func (b *bench) nextDay(ctx context.Context, series *synthetic.Series) error {
	if err := series.Next(ctx, b.backups); err != nil {
		return err
	}
	now, err := readContents(b.backups)
	if err != nil {
		return err
	}
	b.days = append(b.days, now)
	b.report.addDay(now)
	return nil
}

// storeDay stores the folders with every tool and records the sizes of the repositories.
func (b *bench) storeDay(ctx context.Context, day int) error {
	kind := stepNext
	if day == 0 {
		kind = stepFirst
	}
	return b.eachRepo(func(r *toolRepo) error {
		if err := b.store(ctx, r, kind, day); err != nil {
			return err
		}
		size, err := diskUsage(r.repo)
		if err != nil {
			return err
		}
		b.report.addSize(r.tool, day, size)
		return nil
	})
}

func label(day int) string { return fmt.Sprintf("day%d", day) }

// params returns the parameters of commands for a device and day.
func (r *toolRepo) params(device synthetic.Device, day int) params {
	p := params{repo: r.repo, home: r.home, folder: device.UDID, label: label(day)}
	if day > 0 {
		p.before = label(day - 1)
	}
	return p
}

// store stores the folders, with one command per device.
func (b *bench) store(ctx context.Context, r *toolRepo, kind step, day int) error {
	var sum sample
	for _, d := range b.devices {
		p := r.params(d, day)
		b.flush()
		s, _, err := r.tool.command(r.tool.store(p), p, b.backups).measure(ctx)
		if err != nil {
			return fmt.Errorf("%s: %s, day %d: %w", r.tool.name, kind, day, err)
		}
		sum = sum.plus(s)
	}
	b.report.addSample(r.tool.name, kind, sum)
	return nil
}

// list lists all snapshots of a repository.
func (b *bench) list(ctx context.Context, r *toolRepo) error {
	if r.tool.listAll == nil {
		return nil
	}
	p := params{repo: r.repo, home: r.home}
	b.flush()
	s, _, err := r.tool.command(r.tool.listAll(p), p, b.backups).measure(ctx)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", r.tool.name, stepList, err)
	}
	b.report.addSample(r.tool.name, stepList, s)
	return nil
}

// restoreDay restores all devices of a day with every tool and compares the result. On
// the last day it also measures cp.
func (b *bench) restoreDay(ctx context.Context, day int) error {
	b.logf("day %d: restore", day)
	var after []func() error
	if day == b.conf.days-1 {
		after = append(after, func() error { return b.copyFolder(ctx) })
	}
	return b.eachRepo(func(r *toolRepo) error { return b.restore(ctx, r, day) }, after...)
}

// restore restores all devices of a day from a repository and compares the result.
func (b *bench) restore(ctx context.Context, r *toolRepo, day int) error {
	target := b.target()
	if err := os.Mkdir(target, 0o700); err != nil {
		return err
	}
	var sum sample
	for _, d := range b.devices {
		p := r.params(d, day)
		p.target = target
		var err error
		if p.id, err = r.tool.snapshotID(ctx, p, b.backups); err != nil {
			return err
		}
		b.flush()
		s, _, err := r.tool.command(r.tool.restore(p), p, target).measure(ctx)
		if err != nil {
			return fmt.Errorf("%s: restore of day %d: %w", r.tool.name, day, err)
		}
		sum = sum.plus(s)
	}
	b.report.addSample(r.tool.name, stepRestore(day), sum)
	got, err := readContents(target)
	if err != nil {
		return err
	}
	b.report.addVerdict(r.tool.name, day, b.days[day].compare(got))
	return os.RemoveAll(target)
}

// target returns the folder that is restored to. It does not exist yet.
func (b *bench) target() string {
	if b.conf.target != "" {
		return filepath.Join(b.conf.target, "target")
	}
	return filepath.Join(b.conf.dir, "target")
}

// copyFolder measures cp.
func (b *bench) copyFolder(ctx context.Context) error {
	target := b.target()
	for _, c := range []struct {
		step step
		args []string
	}{
		{stepCopy, []string{"cp", "-r", b.backups, target}},
		{stepCopySync, []string{"sh", "-c", `cp -r "$0" "$1" && "$2"`, b.backups, target, b.sync}},
	} {
		b.flush()
		s, _, err := command{args: c.args, env: baseEnv(b.conf.dir)}.measure(ctx)
		if err != nil {
			return err
		}
		b.report.addSample(referenceName, c.step, s)
		if err := os.RemoveAll(target); err != nil {
			return err
		}
	}
	return nil
}

// checkAll checks every repository whose tool has a check, and measures checksum
// programs on the same files.
func (b *bench) checkAll(ctx context.Context) error {
	b.logf("check of all data")
	sums := installed("sha256sum", "b3sum")
	return b.eachRepo(func(r *toolRepo) error {
		if r.tool.check == nil {
			return nil
		}
		p := params{repo: r.repo, home: r.home}
		b.flush()
		s, _, err := r.tool.command(r.tool.check(p), p, b.backups).measure(ctx)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", r.tool.name, stepCheck, err)
		}
		b.report.addSample(r.tool.name, stepCheck, s)
		files, err := fileList(r.repo)
		if err != nil {
			return err
		}
		for _, program := range sums {
			c := command{args: []string{"xargs", "-0", program, "--"}, env: baseEnv(b.conf.dir), stdin: strings.NewReader(files)}
			s, _, err := c.measure(ctx)
			if err != nil {
				return err
			}
			b.report.addSample(r.tool.name, step(program+" of the repository"), s)
		}
		return nil
	})
}
