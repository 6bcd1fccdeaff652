package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"testing"

	"github.com/snap-backup/snap/crypto/blake"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/internal/layout"
)

// A byte that turns once on its way does no harm.
func TestReadNamedReadsAgain(t *testing.T) {
	ctx := context.Background()
	be := memory.New()
	content := []byte("a record")
	name := "secrets/" + layout.FileID(blake.Sum(content)).String()
	if err := be.Put(ctx, name, content); err != nil {
		t.Fatal(err)
	}
	turn := func(p []byte, _ int64, n int, err error) (int, error) {
		p[0] ^= 1
		return n, err
	}
	for times, fits := range map[int]bool{1: true, 2: false} {
		store := fault.New(be, func(c fault.Call) fault.Action {
			if c.Op == fault.ReadAt && c.OfOp <= times {
				return fault.Action{Read: turn}
			}
			return fault.Action{}
		})
		b, err := ReadNamed(ctx, store, name, 100)
		if fits && (err != nil || !bytes.Equal(b, content)) || !fits && !errors.Is(err, ErrDamaged) {
			t.Errorf("turned %d times: %q, %v", times, b, err)
		}
	}
}

// Readers of content take io.EOF as its end. A file of the repository that is too short
// must not look like that.
func TestDamageIsNoEnd(t *testing.T) {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF} {
		err := fmt.Errorf("read: %w", &DamageError{"packs/x", errors.Join(fmt.Errorf("header: %w", end), fs.ErrPermission)})
		if errors.Is(err, end) {
			t.Errorf("damage because of %q is an end", end)
		}
		if !errors.Is(err, ErrDamaged) || !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%v does not match its other causes", err)
		}
	}
	cause := &fs.PathError{Op: "read", Path: "x", Err: io.EOF}
	if found, ok := errors.AsType[*fs.PathError](error(&DamageError{"packs/x", cause})); !ok || found != cause {
		t.Error("the cause is not found")
	}
	unreadable := &DamageError{"packs/x", &unreadableError{io.ErrNoProgress}}
	if _, ok := errors.AsType[*unreadableError](error(unreadable)); !ok || !errors.Is(unreadable, ErrUnreadable) {
		t.Error("a file that cannot be read does not match ErrUnreadable")
	}
}
