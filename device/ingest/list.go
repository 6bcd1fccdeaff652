package ingest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/folder"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// list lists the folder while it reads the manifest. It then finds the row of
// each file and sorts the files.
func (j *job) list(ctx context.Context) error {
	j.opts.Progress.Enter("reading manifest")
	inner, cancel := context.WithCancel(ctx)
	walked := make(chan error, 1)
	go func() {
		if j.items.len() > 0 { // sameAsParent has listed the folder
			walked <- nil
			return
		}
		walked <- j.walk(inner)
	}()
	err := j.readRecords(ctx)
	if err != nil {
		cancel()
	}
	walkErr := <-walked
	cancel()
	if err := cmp.Or(err, walkErr); err != nil {
		return err
	}
	j.match(ctx)
	if err := j.judgeMissing(ctx); err != nil {
		return err
	}
	j.opts.Progress.TotalFiles.Store(j.res.Files)
	j.opts.Progress.TotalBytes.Store(j.res.Bytes)
	slices.SortFunc(j.order, j.compare)
	return nil
}

func (j *job) readRecords(ctx context.Context) error {
	if !j.b.Readable() {
		return nil
	}
	records, err := j.b.Records(ctx)
	switch {
	case err == nil:
		j.records, j.judge.Records = records, records
	case ctx.Err() != nil:
		return ctx.Err()
	case j.opts.AllowIncomplete:
		j.log.Note(finding.Manifest, repo.Incomplete, err.Error())
	case errors.Is(err, manifest.ErrCorrupt):
		return &IncompleteError{Dir: j.b.Dir(), Reasons: []string{err.Error()}}
	default:
		return fmt.Errorf("%s: %w", j.b.Dir(), err)
	}
	return nil
}

func (j *job) walk(ctx context.Context) error {
	for f, err := range j.b.ReadableFiles(ctx, j.unlisted.pass) {
		if err != nil {
			return err
		}
		j.items.add(f)
	}
	return j.judgeUnreadable()
}

// match finds the row of each file, and which items are stored.
func (j *job) match(ctx context.Context) {
	var cmpr *mobilesync.Comparison
	if j.records != nil {
		cmpr = j.b.NewComparison(j.records)
		cmpr.OnDifference = j.judge.Difference
	}
	inner := nested{}
	j.order = make([]int32, 0, j.items.len())
	for i := range j.items.len() {
		it := j.items.at(i)
		f := j.items.file(it)
		j.special.note(f)
		if it.odd {
			j.skip(f)
			continue
		}
		if cmpr != nil {
			if row, ok := cmpr.Add(f); ok {
				domain, name := j.records.Name(row)
				if len(domain) <= tree.MaxName && len(name) <= tree.MaxName {
					it.row = int32(row)
				}
			}
		}
		j.order = append(j.order, int32(i))
		if !f.Dir {
			inner.add(f.Path)
			j.res.Files++
			j.res.Bytes += f.Size
		}
	}
	j.judgeNested(ctx, inner)
	if cmpr != nil {
		rep := cmpr.Report()
		j.res.Report = &rep
		j.res.Anomalies = &j.records.Anomalies
		j.decrypted = j.judge.Decrypted()
		j.judge.Anomalies()
	}
}

// skip leaves out what no device writes: links, special files, and names that
// package materialize could not write.
func (j *job) skip(f folder.File) {
	text := fmt.Sprintf("%s: %s", f.Path, f.Skipped)
	j.res.Skipped = append(j.res.Skipped, text)
	j.log.Remark(finding.Stray, text)
}

// compare orders items by key. Rows of the manifest are sorted by key, so it
// suffices to compare their numbers.
func (j *job) compare(x, y int32) int {
	a, b := j.items.at(int(x)), j.items.at(int(y))
	if a.row >= 0 && b.row >= 0 {
		return cmp.Compare(a.row, b.row)
	}
	return j.key(a).Compare(j.key(b))
}

func (j *job) key(it *item) tree.Key {
	k := tree.Key{Path: j.items.path(it)}
	if it.row >= 0 {
		k.Domain, k.Name = j.records.Name(int(it.row))
	}
	return k
}
