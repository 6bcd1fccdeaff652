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

// step names a kind of work that is measured.
type step string

const (
	stepFirst     step = "first import"
	stepNext      step = "next day"
	stepUnchanged step = "unchanged import"
	stepCheck     step = "check of all data"
	stepCopy      step = "cp -r"
	stepCopySync  step = "cp -r, then sync"
	stepSHA256    step = "sha256sum of the repository"
	stepB3        step = "b3sum of the repository"
)

func stepRestore(day int) step { return step(fmt.Sprintf("restore of day %d", day)) }

// lane is one of the repositories that a tool fills.
type lane struct {
	tool       *tool
	repo, home string
}

// bench is one run of the benchmark.
type bench struct {
	conf  config
	tools []*tool
	log   io.Writer
	// settle waits until nothing of earlier programs is left to be written.
	settle func()

	devices []synthetic.Device
	live    string     // folder of the backup folders
	rounds  [][]*lane  // by repetition, each with a lane per tool
	days    []contents // of all backup folders together, by day
	turn    int
	report  *report
}

// run does everything; nothing is printed but progress.
func (b *bench) run(ctx context.Context) (_ *report, err error) {
	b.report = newReport(ctx, b.conf, b.tools)
	b.live = filepath.Join(b.conf.dir, "backups")
	if err := os.Mkdir(b.live, 0o700); err != nil {
		return nil, err
	}
	b.conf.series.StateDir = b.conf.dir
	series, err := synthetic.New(b.conf.series)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, series.Close()) }()
	b.devices = series.Devices()
	if err := b.createLanes(ctx); err != nil {
		return nil, err
	}
	if err := b.storeDays(ctx, series); err != nil {
		return nil, err
	}
	if err := b.eachLane(func(l *lane) error { return b.store(ctx, l, stepUnchanged, b.conf.days) }); err != nil {
		return nil, err
	}
	for _, day := range slices.Compact([]int{0, b.conf.days / 2, b.conf.days - 1}) {
		if err := b.giveBackDay(ctx, day); err != nil {
			return nil, err
		}
	}
	return b.report, b.checkAll(ctx)
}

// say tells how far the run is.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.log, "%s  %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, args...))
}

// createLanes makes the repositories, which is not measured.
func (b *bench) createLanes(ctx context.Context) error {
	for n := range b.conf.repeat {
		var round []*lane
		for _, t := range b.tools {
			dir := filepath.Join(b.conf.dir, fmt.Sprintf("%s-%d", t.name, n))
			l := &lane{t, filepath.Join(dir, "repo"), filepath.Join(dir, "home")}
			if err := os.MkdirAll(l.home, 0o700); err != nil {
				return err
			}
			commands := t.create(place{repo: l.repo, home: l.home})
			if len(commands) == 0 {
				if err := os.Mkdir(l.repo, 0o700); err != nil {
					return err
				}
			}
			for _, args := range commands {
				if _, _, err := t.command(args, place{repo: l.repo, home: l.home}, dir).measure(ctx); err != nil {
					return err
				}
			}
			round = append(round, l)
		}
		b.rounds = append(b.rounds, round)
	}
	return nil
}

// eachLane calls do for every lane: the tools in turn, round after round, each
// round begun by another tool, so that noise and warmth favour nobody. Each
// round ends with what else is to be measured beside them.
func (b *bench) eachLane(do func(*lane) error, beside ...func() error) error {
	for _, round := range b.rounds {
		for i := range round {
			if err := do(round[(b.turn+i)%len(round)]); err != nil {
				return err
			}
		}
		for _, f := range beside {
			if err := f(); err != nil {
				return err
			}
		}
		b.turn++
	}
	return nil
}

// storeDays makes day after day and lets every tool store it.
func (b *bench) storeDays(ctx context.Context, series *synthetic.Series) (err error) {
	var low *floorSeries
	if b.conf.floor {
		if low, err = newFloorSeries(b.conf); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, low.close()) }()
	}
	for day := range b.conf.days {
		if err := series.Next(ctx, b.live); err != nil {
			return err
		}
		now, err := readContents(b.live)
		if err != nil {
			return err
		}
		b.days = append(b.days, now)
		b.report.addDay(now)
		if low != nil {
			b.say("day %d: floor", day)
			size, err := low.next(ctx, b.live, now)
			if err != nil {
				return err
			}
			b.report.Floor = append(b.report.Floor, size)
		}
		b.say("day %d: import", day)
		if err := b.storeDay(ctx, day); err != nil {
			return err
		}
	}
	return nil
}

// storeDay lets every tool store the folders as they are and notes how large
// the repositories have become.
func (b *bench) storeDay(ctx context.Context, day int) error {
	which := stepNext
	if day == 0 {
		which = stepFirst
	}
	return b.eachLane(func(l *lane) error {
		if err := b.store(ctx, l, which, day); err != nil {
			return err
		}
		size, err := diskUsage(l.repo)
		if err != nil {
			return err
		}
		b.report.addSize(l.tool, day, size)
		return nil
	})
}

func label(day int) string { return fmt.Sprintf("day%d", day) }

// place is where lane l keeps what of a device.
func (l *lane) place(device synthetic.Device, day int) place {
	p := place{repo: l.repo, home: l.home, folder: device.UDID, label: label(day)}
	if day > 0 {
		p.before = label(day - 1)
	}
	return p
}

// store imports the folders as they are, a command per device.
func (b *bench) store(ctx context.Context, l *lane, which step, day int) error {
	var sum sample
	for _, d := range b.devices {
		p := l.place(d, day)
		b.settle()
		s, _, err := l.tool.command(l.tool.store(p), p, b.live).measure(ctx)
		if err != nil {
			return fmt.Errorf("%s: %s, day %d: %w", l.tool.name, which, day, err)
		}
		sum = sum.and(s)
	}
	b.report.addSample(l.tool.name, which, sum)
	return nil
}

// giveBackDay lets every tool restore all devices of a day and compares. The
// folders are still those of the last day, so cp can copy what is restored.
func (b *bench) giveBackDay(ctx context.Context, day int) error {
	b.say("day %d: restore", day)
	var beside []func() error
	if day == b.conf.days-1 {
		beside = append(beside, func() error { return b.copyFolder(ctx) })
	}
	return b.eachLane(func(l *lane) error {
		target := filepath.Join(b.conf.dir, "target")
		if err := os.Mkdir(target, 0o700); err != nil {
			return err
		}
		var sum sample
		for _, d := range b.devices {
			p := l.place(d, day)
			p.target = target
			var err error
			if p.id, err = l.tool.snapshotID(ctx, p, b.live); err != nil {
				return err
			}
			b.settle()
			s, _, err := l.tool.command(l.tool.giveBack(p), p, target).measure(ctx)
			if err != nil {
				return fmt.Errorf("%s: restore of day %d: %w", l.tool.name, day, err)
			}
			sum = sum.and(s)
		}
		b.report.addSample(l.tool.name, stepRestore(day), sum)
		got, err := readContents(target)
		if err != nil {
			return err
		}
		b.report.addVerdict(l.tool.name, day, b.days[day].compare(got))
		return os.RemoveAll(target)
	}, beside...)
}

// copyFolder measures cp on the folders as they are.
func (b *bench) copyFolder(ctx context.Context) error {
	target := filepath.Join(b.conf.dir, "target")
	for _, c := range []struct {
		step step
		args []string
	}{
		{stepCopy, []string{"cp", "-r", b.live, target}},
		{stepCopySync, []string{"sh", "-c", `cp -r "$0" "$1" && sync`, b.live, target}},
	} {
		b.settle()
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

// checkAll lets every tool that can verify its repository do so, and checksum
// programs read the same files.
func (b *bench) checkAll(ctx context.Context) error {
	b.say("check of all data")
	sums := installed("sha256sum", "b3sum")
	return b.eachLane(func(l *lane) error {
		if l.tool.check == nil {
			return nil
		}
		p := place{repo: l.repo, home: l.home}
		b.settle()
		s, _, err := l.tool.command(l.tool.check(p), p, b.live).measure(ctx)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", l.tool.name, stepCheck, err)
		}
		b.report.addSample(l.tool.name, stepCheck, s)
		files, err := fileList(l.repo)
		if err != nil {
			return err
		}
		for _, program := range sums {
			c := command{args: []string{"xargs", "-0", program, "--"}, env: baseEnv(b.conf.dir), stdin: strings.NewReader(files)}
			s, _, err := c.measure(ctx)
			if err != nil {
				return err
			}
			b.report.addSample(l.tool.name, step(program+" of the repository"), s)
		}
		return nil
	})
}
