// Package structure tests the structure of snap's packages: which may import
// which, how large they and their functions may be, and that each has a package
// comment. It also follows the links of the documents. It contains only tests.
package structure

import (
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// layers are the packages from the bottom to the top. A package imports only
// packages of its own line here and of earlier lines. A package belongs to the
// first line that matches it. Packages for tests are in no layer.
var layers = [][]string{
	{"internal/..."},
	{"crypto/...", "chunk/..."},
	{"pack/..."},
	{"index/..."},
	{"repo/backend/..."},
	{"repo/internal/layout", "repo/keep", "repo/replace", "repo/tree"},
	{"config"},
	{"repo/internal/configs"}, // needs no key
	{"repo/mirror", "repo/parity", "repo/protect"}, // need no key
	{"repo/internal/store"},
	{"repo/internal/access", "repo/internal/certificate", "repo/internal/chain", "repo/internal/indexfile", "repo/internal/ledger", "repo/internal/lock", "repo/internal/record", "repo/internal/usage"},
	{"repo/internal/check", "repo/internal/inspect", "repo/internal/prove", "repo/internal/writer"},
	{"repo/internal/copy", "repo/internal/rebase", "repo/internal/repair"},
	{"repo/internal/heal", "repo/internal/prune"},
	{"repo"},
	{"status"},
	{"device/protocol/...", "device/mobilesync/..."},
	{"device"},
	{"device/blob", "device/finding", "device/naming"},
	{"device/catalog", "device/judge", "device/stored"},
	{"device/ingest", "device/verify"},
	{"device/ingest/...", "device/materialize", "device/restore"},
	{"look/..."},
	{"device/host"},
	{"device/simulator/..."},
	{"device/drill/..."},
	{"bench/farstore"},
	{"bench", "cmd/..."},
}

// forbidden lists imports that are wrong although the layers allow them.
var forbidden = []struct {
	from, to, except []string
	why              string
}{
	{
		from: []string{"device", "device/protocol/...", "device/mobilesync/...", "device/simulator/..."},
		to:   []string{"repo/...", "index/...", "pack/...", "chunk/..."},
		why:  "packages about devices and their backups do not depend on repository packages",
	},
	{
		from:   []string{"..."},
		except: []string{"bench", "cmd/...", "device/devicetest", "device/drill", "device/simulator/..."},
		to:     []string{"device/simulator/..."},
		why:    "simulated devices are for drills, demos, benchmarks and tests",
	},
	{
		from:   []string{"..."},
		except: testPackages,
		to:     append([]string{"testing"}, testPackages...),
		why:    "test helpers are not part of the program",
	},
}

// testPackages help tests, and only they and tests import them.
var testPackages = []string{
	"device/devicetest", "device/mobilesync/foldertest", "device/mobilesync/manifest/manifesttest",
	"internal/faultpoint", "internal/ramtemp",
	"repo/backend/backendtest", "repo/backend/crash", "repo/backend/fault", "repo/backend/proxytest", "repo/backend/resttest", "repo/backend/s3test", "repo/repotest",
}

// libraryUsers lists the only packages that may import a library, so that few packages
// depend on its peculiarities.
var libraryUsers = []struct {
	library string
	users   []string
}{
	{"github.com/BurntSushi/toml", []string{"config"}},
	{"github.com/bmatcuk/doublestar", []string{"look"}},
	{"github.com/danielpaulus/go-ios", []string{"device/protocol/stream"}},
	{"github.com/godbus/dbus", []string{"internal/keyring"}},
	{"github.com/klauspost/compress", []string{"bench", "pack/...", "repo/repotest"}},
	{"github.com/klauspost/reedsolomon", []string{"repo/parity"}},
	{"github.com/minio/minio-go", []string{"repo/backend/s3"}},
	{"github.com/pkg/sftp", []string{"repo/backend/sftp"}},
	{"github.com/restic/chunker", []string{"chunk"}},
	{"github.com/spf13/cobra", []string{"cmd/..."}},
	{"golang.org/x/time", []string{"repo/backend/limit"}},
	{"github.com/zalando/go-keyring", []string{"internal/keyring"}},
	{"howett.net/plist", []string{"device/mobilesync/foldertest", "device/protocol/plist", "device/simulator/..."}},
	{"lukechampine.com/blake3", []string{"crypto/blake"}},
	{"modernc.org/sqlite", []string{"device/mobilesync/...", "device/simulator/..."}},
}

func layer(dir string) int {
	return slices.IndexFunc(layers, func(l []string) bool { return matches(dir, l...) })
}

func TestLayers(t *testing.T) {
	eachPackage(t, func(dir string, r *pkg) {
		if matches(dir, testPackages...) {
			return
		}
		own := layer(dir)
		if own < 0 {
			t.Errorf("%s is in no layer", dir)
			return
		}
		for _, to := range modulePackages(r.imports) {
			if layer(to) > own {
				t.Errorf("%s imports %s, which is in a higher layer", dir, to)
			}
		}
	})
}

// modulePackages returns the imports that are packages of this module.
func modulePackages(imports []string) (found []string) {
	all, _ := packages()
	for _, to := range imports {
		if all[to] != nil {
			found = append(found, to)
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

func TestForbiddenImports(t *testing.T) {
	eachPackage(t, func(dir string, r *pkg) {
		for _, rule := range forbidden {
			if !matches(dir, rule.from...) || matches(dir, rule.except...) {
				continue
			}
			for _, to := range r.imports {
				if matches(to, rule.to...) {
					t.Errorf("%s imports %s, but %s", dir, to, rule.why)
				}
			}
		}
	})
}

func TestLibraryUsers(t *testing.T) {
	eachPackage(t, func(dir string, r *pkg) {
		for _, to := range r.imports {
			for _, l := range libraryUsers {
				if matches(to, l.library+"/...") && !matches(dir, l.users...) {
					t.Errorf("%s imports %s, which only %s may import", dir, to, strings.Join(l.users, ", "))
				}
			}
		}
	})
}

const (
	maxPackage  = 3000
	maxFunction = 80
)

func TestSizes(t *testing.T) {
	eachPackage(t, func(dir string, r *pkg) {
		// cmd/snap has one file for each command; the commands are independent.
		if r.lines > maxPackage && dir != "cmd/snap" {
			t.Errorf("%s has %d lines, more than %d; divide it", dir, r.lines, maxPackage)
		}
		for _, f := range r.functions {
			if f.lines > maxFunction && !f.table {
				t.Errorf("%s: %s has %d lines, more than %d", dir, f.name, f.lines, maxFunction)
			}
		}
	})
}

func TestPackageComments(t *testing.T) {
	eachPackage(t, func(dir string, r *pkg) {
		begin := "Package " + r.name + " "
		if r.name == "main" {
			begin = "Command " + path.Base(dir) + " "
		}
		if !strings.HasPrefix(r.comment, begin) {
			t.Errorf("the package comment of %s does not begin with %q", dir, begin)
		}
	})
}

// TestContributingNamesEveryPackage compares the table of packages in
// CONTRIBUTING.md with the packages that exist.
func TestContributingNamesEveryPackage(t *testing.T) {
	text, err := os.ReadFile(root + "/CONTRIBUTING.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "\n| package | job |\n|---|---|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	rows := map[string]int{}
	for line := range strings.Lines(table) {
		first, _, _ := strings.Cut(strings.TrimPrefix(line, "|"), "|")
		for _, name := range regexp.MustCompile("`[^`]*`").FindAllString(first, -1) {
			rows[strings.Trim(name, "`")]++
		}
	}
	eachPackage(t, func(dir string, r *pkg) {
		if n := rows[dir]; n != 1 {
			t.Errorf("CONTRIBUTING.md has %d rows for %s", n, dir)
		}
		delete(rows, dir)
	})
	for dir := range rows {
		t.Errorf("CONTRIBUTING.md has a row for %s, which does not exist", dir)
	}
}
