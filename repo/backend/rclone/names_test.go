package rclone

import (
	"path"
	"strings"
	"testing"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
)

func TestPathOf(t *testing.T) {
	t.Parallel()
	hash := strings.Repeat("0f", 32)
	for name, want := range map[string]string{
		"config": "config", "reserve": "reserve", "a": "a", "healing/config": "healing/config",
		"keys/" + hash: "keys/" + hash, "packs/0f/" + hash: "packs/0f/" + hash, "healing/packs/0f/" + hash: "healing/packs/0f/" + hash,
		"packs/ab/" + hash: "packs/ab/+packs+ab+" + hash, "packs/" + hash: "packs/+packs+" + hash, hash: "+" + hash,
		"other/" + hash: "other/+other+" + hash, "a/b/c": "a/b/+a+b+c", "keys/a": "keys/+keys+a", "healing/healing/keys/" + hash: "healing/healing/keys/+healing+healing+keys+" + hash,
	} {
		if got := pathOf(name); got != want {
			t.Errorf("pathOf(%q) = %q, want %q", name, got, want)
		}
	}
	for _, base := range []string{"", "+", "++", "+config", "+keys+" + hash, "+keys+../a", "+Keys+a", "config", "+other+a"} {
		if got := nameOf("keys/", base); got != "" {
			t.Errorf("nameOf(keys/, %q) = %q", base, got)
		}
	}
}

// FuzzNames checks that each name has a path of its own, and that a listing of its folder
// tells the name, or says that the folders below must be listed.
func FuzzNames(f *testing.F) {
	hash := strings.Repeat("0f", 32)
	for _, name := range []string{"config", "keys/" + hash, "packs/0f/" + hash, "packs/ab/" + hash, "healing/index/" + hash, "a/b/c", hash} {
		f.Add(name, "a/b")
	}
	f.Fuzz(func(t *testing.T, name, other string) {
		if backend.ValidName(name) != nil {
			return
		}
		file := pathOf(name)
		if path.Clean(file) != file || strings.HasPrefix(file, "/") {
			t.Fatalf("pathOf(%q) = %q", name, file)
		}
		if backend.ValidName(other) == nil && other != name && pathOf(other) == file {
			t.Errorf("%q and %q have the path %q", name, other, file)
		}
		folder := name[:strings.LastIndexByte(name, '/')+1]
		got := nameOf(folder, path.Base(file))
		if alone := !backend.IsHashed(name) && (folder == "" || folder == healingFolder); got != name && !(alone && got == "") {
			t.Errorf("nameOf(%q, %q) = %q", folder, path.Base(file), got)
		}
	})
}

func FuzzNameOf(f *testing.F) {
	f.Add("keys/", "+keys+a")
	f.Add("packs/", strings.Repeat("0f", 32))
	f.Fuzz(func(t *testing.T, folder, base string) {
		if backend.ValidPrefix(folder) != nil || strings.Contains(base, "/") {
			return
		}
		if name := nameOf(folder, base); name != "" && (backend.ValidName(name) != nil || !strings.HasPrefix(name, folder) || path.Base(pathOf(name)) != base) {
			t.Errorf("nameOf(%q, %q) = %q", folder, base, name)
		}
	})
}

func FuzzParseListing(f *testing.F) {
	f.Add(`[{"name":"0f","size":1},{"name":"config","size":-1}]`)
	f.Add(`[{"name":"a/b"}]`)
	f.Add(`{"name":1}`)
	f.Fuzz(func(t *testing.T, text string) {
		_ = parseListing(strings.NewReader(text), func(base string, _ int64) {
			if base == "" || strings.Contains(base, "/") {
				t.Errorf("%q", base)
			}
		})
	})
}

func TestParse(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]Config{
		"rclone:drive:phones":          {"drive", "phones"},
		"rclone:drive:":                {"drive", ""},
		"rclone:drive:/a//b/":          {"drive", "/a/b"},
		"rclone:My Drive_2:a b/ü:c":    {"My Drive_2", "a b/ü:c"},
		"rclone::local:/tmp/a":         {":local", "/tmp/a"},
		"rclone::memory:":              {":memory", ""},
		"rclone:größe.1+x@y-z:phones/": {"größe.1+x@y-z", "phones"},
	} {
		c, err := Parse(address)
		if err != nil || c != want {
			t.Errorf("Parse(%q) = %+v, %v", address, c, err)
		}
	}
	for address, why := range map[string]string{
		"":                                     "begins with rclone:",
		"rclone:":                              "no colon",
		"rclone:drive":                         "no colon",
		"rclone:/tmp/a":                        "no colon",
		"rclone::":                             "no colon",
		"rclone:-x:a":                          "not the name",
		"rclone:a/b:c":                         "not the name",
		"rclone: a:c":                          "not the name",
		"rclone:a :c":                          "not the name",
		"rclone:a:../b":                        "out of the remote",
		"rclone:a:b\nc":                        "control",
		"rclone:a:" + strings.Repeat("a", 801): "longer",
		"rclone::sftp,pass=hunter2:a":          "can be passwords",
		`rclone:a,"pass=hunter2":a`:            "can be passwords",
		"rclone:a,pass=hunter2":                "can be passwords",
	} {
		_, err := Parse(address)
		if err == nil || !strings.Contains(err.Error(), why) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("Parse(%.50q) = %v, want %q", address, err, why)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("rclone:drive:phones")
	f.Add("rclone::local:/tmp")
	f.Add("rclone:a,pass=x:b")
	f.Fuzz(func(t *testing.T, address string) {
		c, err := Parse(address)
		if err != nil {
			return
		}
		if again, err := Parse(c.String()); err != nil || again != c || strings.HasPrefix(c.remote(), "-") || strings.Contains(c.remote(), ",") && !strings.Contains(c.Path, ",") {
			t.Errorf("Parse(%q) = %+v, then %+v, %v", address, c, again, err)
		}
	})
}

func TestExact(t *testing.T) {
	t.Parallel()
	for server, want := range map[string]bool{
		"rclone/v1.60.1-DEV": false, "rclone/v1.67.0": false, "rclone/v1.68.0": true, "rclone/v1.75.0-beta.1": true, "rclone/v2.0.0": true, "": false, "rclone/v1": false, "nginx": false,
	} {
		if got := isExact(server); got != want {
			t.Errorf("isExact(%q) = %v", server, got)
		}
	}
}

// The folders that the listings know are those of the layout.
func TestFolders(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{
		layout.KeysDir, layout.ConfigsDir, layout.PacksDir, layout.IndexDir, layout.SnapshotsDir, layout.LocksDir, layout.PrunesDir, layout.SecretsDir,
		layout.RunsDir, layout.ChecksDir, layout.ParityDir, layout.CertificatesDir, layout.LedgerDir, layout.HealingDir, layout.MirroredDir,
	} {
		name := hashed(dir)
		switch dir {
		case layout.PacksDir:
			name = hashed(dir + "0f/")
		case layout.HealingDir:
			name = hashed(dir + layout.IndexDir)
		}
		if got := pathOf(name); got != name {
			t.Errorf("%s is kept as %s", name, got)
		}
	}
}
