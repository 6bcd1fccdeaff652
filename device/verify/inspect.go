package verify

import (
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/snap-backup/snap/device/judge"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/database"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/protocol/plist"
	"github.com/snap-backup/snap/device/stored"
)

const (
	manifestDB = mobilesync.ManifestDB
	// heldTogether bounds the bytes of all files that are held at the same time.
	heldTogether = 64 << 20
	// maxHeld is the largest file that is held. Larger databases are read from the
	// repository while they are checked.
	maxHeld = judge.MaxPropertyList
)

// inspector receives the content of a file as the device knows it, and checks it at
// the end.
type inspector struct {
	*reader
	ctx     context.Context
	off     bool // the content is encrypted, so nothing is checked
	ends    judge.Ends
	decided bool // it was decided whether to hold the file in memory
	held    []byte
	took    int64 // bytes of memory that were reserved

	badPadding bool
}

func (r *reader) newInspector(ctx context.Context) *inspector {
	return &inspector{reader: r, ctx: ctx}
}

// Write implements io.Writer.
func (in *inspector) Write(b []byte) (int, error) {
	if in.off {
		return len(b), nil
	}
	before := in.ends.Size
	n, _ := in.ends.Write(b)
	if !in.decided && in.ends.Known() {
		if err := in.decide(); err != nil {
			return 0, err
		}
		b = b[len(in.ends.Head())-int(before):] // decide has copied the head to held
	}
	if in.took > 0 {
		in.held = append(in.held, b...)
	}
	return n, nil
}

// decide decides whether to hold the file in memory, and reserves the memory.
func (in *inspector) decide() error {
	in.decided = true
	n := in.file.Entry.Content.Size
	if in.ends.MayBe() == judge.Other || n > maxHeld {
		return nil
	}
	if err := in.room.Acquire(in.ctx, n+1); err != nil {
		return err
	}
	in.took = n + 1
	in.held = append(make([]byte, 0, n), in.ends.Head()...)
	return nil
}

// release gives back the memory.
func (in *inspector) release() {
	if in.took > 0 {
		in.room.Release(in.took)
		in.took, in.held = 0, nil
	}
}

// finish judges the file. proven says that its digest has proved that the device wrote
// these bytes.
func (in *inspector) finish(ctx context.Context, proven bool) error {
	if in.off {
		return nil
	}
	if !in.decided {
		if err := in.decide(); err != nil {
			return err
		}
	}
	e := in.file.Entry
	name := e.Name
	if in.rec != nil {
		name = in.rec.RelativePath
	}
	switch form := in.ends.Form(name); form {
	case judge.Database:
		in.content.databases.Add(1)
		return in.checkDatabase(ctx, proven)
	case judge.PropertyList:
		in.content.plists.Add(1)
		if in.took == 0 {
			in.content.large.Add(1)
			return nil
		}
		in.judge.PropertyList(plist.Check(in.held), in.name(e), in.rec, proven)
	default:
		in.judge.Broken(form, in.name(e), in.rec, proven)
	}
	return nil
}

func (in *inspector) checkDatabase(ctx context.Context, proven bool) error {
	var source io.ReaderAt = bytes.NewReader(in.held)
	size := in.ends.Size
	if in.took == 0 {
		var err error
		if source, size, err = in.plain(ctx, in.file); err != nil {
			return err
		}
	}
	v, err := database.Check(ctx, source, size)
	if err != nil {
		return err
	}
	if v.Unjudged != "" && v.Damage == "" {
		in.content.unjudged.Add(1)
	}
	in.judge.Verdict(v, in.name(in.file.Entry), in.rec, proven)
	return nil
}

// plain returns a reader of a file as the device knows it.
func (j *job) plain(ctx context.Context, f stored.File) (io.ReaderAt, int64, error) {
	c := &f.Entry.Content
	r, err := j.r.NewContentReader(ctx, c)
	if err != nil {
		return nil, 0, err
	}
	var rec *manifest.Record
	if f.Row >= 0 {
		row := j.records.At(f.Row)
		rec = &row
	}
	if j.b == nil || j.b.State(f.Entry, rec) != stored.Encrypted {
		return r, c.Size, nil
	}
	key, err := j.fileKey(f.Entry, rec)
	if err != nil {
		return nil, 0, err
	}
	plain, size, err := keybag.DecrypterAt(r, c.Size, key)
	if errors.Is(err, keybag.ErrPadding) && c.Size%keybag.BlockSize == 0 {
		plain, err = keybag.UnpaddedDecrypterAt(r, c.Size, key)
		size = c.Size
	}
	return plain, size, err
}
