package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/snap-backup/snap/device/protocol/backup2"
)

// Every error that devices are known to report has a text, a hint, an exit code and a
// row in the table of docs/devices.md. The table has no other rows.
func TestDeviceErrorCodes(t *testing.T) {
	exit := map[int64]int{
		105: exitNoSpace, 106: exitNoSpace, 202: exitCancelled, 207: exitWrongBackup, 208: exitUntrusted, 241: exitUntrusted,
	}
	for _, code := range []int64{1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 25, 100, 101, 102, 103, 104, 203, 204, 205, 210, 212} {
		exit[code] = exitDeviceError
	}
	unknown := &backup2.DeviceError{Code: 999}
	if code, hint := classify("", unknown); code != exitDeviceError || hint == "" || unknown.Error() != "the device reports error 999" {
		t.Errorf("an unknown error: code %d, hint %q, %v", code, hint, unknown)
	}
	for number, want := range exit {
		err := &backup2.DeviceError{Code: number}
		code, hint := classify("", fmt.Errorf("backup: %w", err))
		if code != want || len(hint) < 10 || hint == unknown.Hint() {
			t.Errorf("error %d: exit code %d, want %d; hint %q", number, code, want, hint)
		}
		if !strings.HasPrefix(err.Error(), fmt.Sprintf("the device reports error %d: ", number)) {
			t.Errorf("error %d has no text: %v", number, err)
		}
	}
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "devices.md"))
	if err != nil {
		t.Fatal(err)
	}
	var rows []int64
	for _, row := range regexp.MustCompile(`(?m)^\| ([0-9, ]+) \| [^|]+ \| [^|]+ \|$`).FindAllStringSubmatch(string(b), -1) {
		for text := range strings.SplitSeq(row[1], ", ") {
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := exit[n]; !ok || slices.Contains(rows, n) {
				t.Errorf("docs/devices.md lists error %d, which is unknown, or lists it twice", n)
			}
			rows = append(rows, n)
		}
	}
	if len(rows) != len(exit) {
		t.Errorf("docs/devices.md explains %d errors of %d", len(rows), len(exit))
	}
}
