package keybag

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"testing"
)

func TestRewrap(t *testing.T) {
	ctx, random := context.Background(), rand.NewChaCha8([32]byte{1})
	raw, keys, err := New(random, []byte("old"), NewOptions{Iter: 3, DPIC: 5})
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := keys.Wrap(ClassNone, FileKey{7})
	if err != nil {
		t.Fatal(err)
	}
	bag, err := Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bag.Rewrap(ctx, random, []byte("wrong"), []byte("new")); !errors.Is(err, ErrWrongPassword) {
		t.Errorf("with a wrong password: %v", err)
	}
	changed, err := bag.Rewrap(ctx, random, []byte("old"), []byte("new"))
	if err != nil {
		t.Fatal(err)
	}
	next, err := Parse(changed)
	if err != nil {
		t.Fatal(err)
	}
	if next.UUID != bag.UUID || len(changed) != len(raw) {
		t.Error("the rewrapped keybag has another UUID or length")
	}
	if bytes.Equal(next.Salt, bag.Salt) || bytes.Equal(next.DPSL, bag.DPSL) { // the salts of the two stages
		t.Error("the rewrapped keybag still has an old salt")
	}
	if _, err := next.Unlock(ctx, []byte("old"), nil); !errors.Is(err, ErrWrongPassword) {
		t.Errorf("with the old password, the rewrapped keybag: got %v, want ErrWrongPassword", err)
	}
	opened, err := next.Unlock(ctx, []byte("new"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if key, err := opened.Unwrap(wrapped); err != nil || key != (FileKey{7}) {
		t.Errorf("a file key wrapped before cannot be unwrapped: %v", err)
	}
	if len(opened.Damaged()) != 0 {
		t.Errorf("damaged: %v", opened.Damaged())
	}

	bag.Classes[3].WrappedKey = make([]byte, len(bag.Classes[3].WrappedKey))
	if _, err := bag.Rewrap(ctx, random, []byte("old"), []byte("new")); !errors.Is(err, ErrDamagedClass) {
		t.Errorf("a damaged bag: %v", err)
	}
}
