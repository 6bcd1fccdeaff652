package local

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
)

func TestFree(t *testing.T) {
	ctx := context.Background()
	b, err := Create(filepath.Join(t.TempDir(), "repo"))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	free, err := b.Free(ctx)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil || free <= 0 {
		t.Fatalf("%d bytes free, %v", free, err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := b.Free(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("Free with a cancelled context = %v", err)
	}
}
