package verify

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/device/judge"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/stored"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// quick compares all files with their rows, and checks whether the repository has their
// content.
func (j *job) quick(ctx context.Context) error {
	j.opts.Progress.Enter("comparing files")
	var cur stored.File // for Comparison.Head
	var cmpr *mobilesync.Comparison
	if j.records != nil {
		cmpr = j.b.NewComparison(j.records)
		cmpr.OnDifference = j.difference
		cmpr.Head = func(string) []byte { return j.head(ctx, cur) }
	}
	snapshotFolder := 0
	err := j.r.WalkAll(ctx, j.s, func(e *tree.Entry) error {
		cur = stored.File{Entry: e, Row: -1}
		if j.b != nil {
			cur = j.b.File(e, j.records)
		}
		if strings.HasPrefix(e.Path, "Snapshot/") {
			snapshotFolder++
		}
		if cmpr != nil {
			cmpr.Add(stored.FileInfo(e))
			if j.headErr != nil {
				return j.headErr
			}
		}
		if e.Kind != tree.File {
			return nil
		}
		j.rep.Files++
		j.rep.Bytes += blob.Size(e)
		return j.checkFile(ctx, cur)
	}, func(err error) error {
		j.lost("a part of the file tree cannot be read", err)
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	j.opts.Progress.TotalFiles.Store(j.rep.Files)
	j.opts.Progress.TotalBytes.Store(j.rep.Bytes)
	if snapshotFolder > 0 {
		j.log.Count(string(mobilesync.ProblemSnapshot), repo.Incomplete, int64(snapshotFolder), "the folder Snapshot has files: a backup was running or was interrupted")
	}
	j.keys.report(&j.judge)
	if cmpr == nil {
		return nil
	}
	rep := cmpr.Report()
	j.judge.Decrypted()
	j.judge.Anomalies()
	j.rep.CloudFiles = int64(rep.Dataless)
	earlier := &judge.Earlier{Repo: j.r, UDID: j.s.Device.UDID, Layout: j.b.Layout(), Before: j.s}
	return j.judge.Missing(ctx, rep.Listed, earlier)
}

// difference judges a difference. A file that the repository has lost is not missing
// in the backup.
func (j *job) difference(d mobilesync.Difference, row int, path string) {
	if d != mobilesync.DiffMissing {
		j.judge.Difference(d, row, path)
		return
	}
	switch {
	case j.lostPaths[path]: // named already
	case j.lostTree:
		j.log.File(finding.Lost, j.judge.RowName(row))
	default:
		j.judge.Difference(d, row, path)
	}
}

// checkFile checks what is known of a file without reading it.
func (j *job) checkFile(ctx context.Context, f stored.File) error {
	e := f.Entry
	present, err := blob.Present(ctx, j.r, &e.Content, j.has)
	if err != nil {
		return err
	}
	if !present {
		j.log.File(finding.Lost, j.name(e))
	}
	if j.b == nil {
		return nil
	}
	var rec *manifest.Record
	if f.Row >= 0 {
		row := j.records.At(f.Row)
		rec = &row
		if rec.HasDigest {
			j.rep.DigestFiles++
			j.rep.DigestBytes += blob.Size(e)
		}
	}
	state := j.b.State(e, rec)
	if state == stored.Encrypted && j.records == nil && e.Content.Size%16 != 0 {
		j.log.File(finding.Cipher, j.name(e))
	}
	if rec != nil && rec.IsFile() {
		j.keys.check(j, e, rec, state)
	}
	return nil
}

// head returns the first bytes of a file as the device knows it; none if they cannot
// be read.
func (j *job) head(ctx context.Context, f stored.File) []byte {
	head := make([]byte, manifest.HeaderLen)
	r, _, err := j.plain(ctx, f)
	n := 0
	if err == nil {
		n, err = r.ReadAt(head, 0)
	}
	switch {
	case err == nil, errors.Is(err, io.EOF), errors.Is(err, repo.ErrDamaged), errors.Is(err, errNoKey),
		errors.Is(err, keybag.ErrPadding), errors.Is(err, keybag.ErrNoClass), errors.Is(err, keybag.ErrUnwrap), errors.Is(err, keybag.ErrUnsupportedKey):
	default:
		j.headErr = err
	}
	return head[:n]
}
