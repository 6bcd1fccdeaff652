package backend_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
)

func TestValidName(t *testing.T) {
	hex64 := strings.Repeat("0123456789abcdef", 4)
	tests := []struct {
		name  string
		valid bool
	}{
		{"config", true},
		{"keys/" + hex64, true},
		{"packs/ab/" + hex64, true},
		{"a", true},
		{"0", true},
		{"a.b_c-d", true},
		{"a..b", true},
		{"temp/x", true},
		{"tmpx", true},
		{"a/tmp", true},
		{"console", true},
		{"com", true},
		{"comx", true},
		{"com10", true},
		{strings.Repeat("a", backend.MaxNameLength), true},

		{strings.Repeat("a", backend.MaxNameLength+1), false},
		{"", false},
		{".", false},
		{"..", false},
		{"/", false},
		{"/a", false},
		{"a/", false},
		{"a//b", false},
		{"a/./b", false},
		{"a/../b", false},
		{"../a", false},
		{"...", false},
		{".a", false},
		{"._a", false},
		{"-a", false},
		{"_a", false},
		{"a.", false},
		{"a./b", false},
		{"A", false},
		{"aB", false},
		{"a b", false},
		{"a\\b", false},
		{"a:b", false},
		{"c:", false},
		{"a\x00", false},
		{"a\n", false},
		{"ä", false},
		{"a\xff", false},
		{"tmp", false},
		{"tmp/a", false},
		{"nul", false},
		{"con.txt", false},
		{"keys/aux", false},
		{"com1", false},
		{"lpt0.x", false},
	}
	for _, tt := range tests {
		err := backend.ValidName(tt.name)
		if (err == nil) != tt.valid {
			t.Errorf("ValidName(%q) = %v, want valid %v", tt.name, err, tt.valid)
		}
		if err != nil && (!errors.Is(err, backend.ErrInvalidName) || !errors.Is(err, fs.ErrInvalid)) {
			t.Errorf("ValidName(%q) = %v, which is not ErrInvalidName", tt.name, err)
		}
		if tt.valid && backend.ValidPrefix(tt.name+"/") != nil {
			t.Errorf("ValidPrefix(%q) refuses a valid name with a slash", tt.name+"/")
		}
		if tt.name != "" && backend.ValidPrefix(tt.name) == nil && !strings.HasSuffix(tt.name, "/") {
			t.Errorf("ValidPrefix(%q) accepts a prefix without a slash at its end", tt.name)
		}
	}
	if err := backend.ValidPrefix(""); err != nil {
		t.Errorf("ValidPrefix of nothing = %v", err)
	}
}

func FuzzValidName(f *testing.F) {
	for _, seed := range []string{"config", "packs/ab/cd", "../x", "a/./b", "tmp/x", "C:\\x", "nul.txt", "a\x00b", strings.Repeat("a/", 300)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if err := backend.ValidName(name); err != nil {
			if len(err.Error()) > backend.MaxNameLength*4+200 {
				t.Errorf("error text of %d bytes", len(err.Error()))
			}
			return
		}
		if path.Clean(name) != name || !filepath.IsLocal(filepath.FromSlash(name)) || !fs.ValidPath(name) {
			t.Errorf("%q is valid but is not a plain relative path", name)
		}
		if strings.ToLower(name) != name || strings.HasPrefix(name+"/", "tmp/") || len(name) > backend.MaxNameLength {
			t.Errorf("%q is valid", name)
		}
	})
}

func TestIsNoSpace(t *testing.T) {
	tests := []struct {
		err  error
		want bool
	}{
		{nil, false},
		{io.EOF, false},
		{backend.ErrNoSpace, true},
		{fmt.Errorf("put: %w", backend.ErrNoSpace), true},
		{syscall.ENOSPC, true},
		{&fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, true},
		{os.NewSyscallError("fsync", syscall.ENOSPC), true},
		{syscall.EIO, false},
		{fs.ErrPermission, false},
	}
	for _, tt := range tests {
		if got := backend.IsNoSpace(tt.err); got != tt.want {
			t.Errorf("IsNoSpace(%v) = %v", tt.err, got)
		}
	}
}

func TestReadAll(t *testing.T) {
	ctx := context.Background()
	store := memory.New()
	for name, size := range map[string]int{"empty": 0, "full": 100} {
		if err := store.Put(ctx, name, make([]byte, size)); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		about string
		plan  fault.Plan
		name  string
		limit int64
		size  int
		err   error
	}{
		{"empty", nil, "empty", 0, 0, nil},
		{"at the limit", nil, "full", 100, 100, nil},
		{"over the limit", nil, "full", 99, 0, backend.ErrTooLarge},
		{"absent", nil, "none", 100, 0, backend.ErrNotExist},
		{"truncated", fault.Truncate("full", 60), "full", 100, 0, io.ErrUnexpectedEOF},
		{"short", fault.ShortRead("full"), "full", 100, 0, io.ErrNoProgress},
		{"failing", fault.Once(2, fault.ErrInjected), "full", 100, 0, fault.ErrInjected},
	}
	for _, tt := range tests {
		data, err := backend.ReadAll(ctx, fault.New(store, tt.plan), tt.name, tt.limit)
		if len(data) != tt.size || !errors.Is(err, tt.err) || tt.err != nil && data != nil {
			t.Errorf("%s: %d bytes, %v, want %d, %v", tt.about, len(data), err, tt.size, tt.err)
		}
	}
}
