package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/simulator/synthetic"
	"howett.net/plist"
	_ "modernc.org/sqlite"
)

const (
	secretBackup = "Backup-Passwort-7hq2"
	secretWrong  = "Falsches-Wort-9xk4"
	secretRepo   = "Repo-Passwort-3vd8"
	secretText   = "marked words of a message 5tn1"
)

// secretWords maps every form in which a secret could leak to a description of the
// secret.
type secretWords map[string]string

func (s secretWords) add(what string, secret []byte) {
	encoded := base64.StdEncoding.EncodeToString(secret)
	for _, form := range []string{
		string(secret), hex.EncodeToString(secret), strings.ToUpper(hex.EncodeToString(secret)),
		strings.TrimRight(encoded, "=")[:len(encoded)-3],
		strings.Trim(fmt.Sprint(secret), "[]"),
	} {
		s[form] = what
	}
}

// search returns the secrets that it finds in some data.
func (s secretWords) search(where string, data []byte) []string {
	var found []string
	for form, what := range s {
		if bytes.Contains(data, []byte(form)) {
			found = append(found, fmt.Sprintf("%s holds %s", where, what))
		}
	}
	return found
}

// secretRun has a repository, a temporary folder, and the output of all commands.
type secretRun struct {
	t       *testing.T
	repo    string
	temp    string
	printed map[string][]byte // output by command
}

// snap runs the program as a process.
func (s *secretRun) snap(code int, env []string, args ...string) string {
	s.t.Helper()
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.Command(self)
	cmd.Args = append([]string{"snap"}, args...)
	cmd.Env = append(os.Environ(), "SNAP_REPOSITORY="+s.repo, "SNAP_PASSWORD="+secretRepo, "TMPDIR="+s.temp, "TMP="+s.temp, "TEMP="+s.temp)
	cmd.Env = append(cmd.Env, env...)
	cmd.Stdout, cmd.Stderr = &out, &out
	_ = cmd.Run()
	line := strings.Join(args, " ")
	if got := cmd.ProcessState.ExitCode(); got != code {
		s.t.Fatalf("snap %s: exit code %d, want %d\n%s", line, got, code, out.String())
	}
	s.printed[fmt.Sprintf("%d: snap %s", len(s.printed), line)] = out.Bytes()
	return out.String()
}

// plant writes known content to one file of an encrypted backup, and adds all keys
// of the backup to the secrets.
func plant(t *testing.T, folder string, words secretWords) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx := context.Background()
	b, err := mobilesync.Open(ctx, folder)
	check(err)
	defer b.Close()
	keys, err := b.Unlock(ctx, []byte(secretBackup), nil)
	check(err)
	defer keys.Destroy()
	key, _ := b.ManifestDBKey()
	words.add("the key of Manifest.db", key[:])
	records, err := b.Records(ctx)
	check(err)
	planted := ""
	for i, rec := range records.All() {
		if !rec.IsFile() {
			continue
		}
		key, err := b.FileKey(&rec)
		check(err)
		words.add(fmt.Sprintf("the key of file %d", i), key[:])
		name := filepath.Join(folder, filepath.FromSlash(mobilesync.BlobPath(mobilesync.Hashed, rec.FileID)))
		if planted == "" && rec.Size > 200 && rec.Size < 20_000 && !rec.HasDigest {
			planted = rec.RelativePath
			content := strings.Repeat(secretText+". ", int(rec.Size)/len(secretText)+1)[:rec.Size] // as the manifest says
			var sealed bytes.Buffer
			w := keybag.NewEncrypter(&sealed, key)
			_, err := w.Write([]byte(content))
			check(err)
			check(w.Close())
			check(os.WriteFile(name, sealed.Bytes(), 0o600))
		}
	}
	if planted == "" {
		t.Fatal("no file has a suitable size")
	}
	words.add("planted content", []byte(secretText))
	classKeys(t, folder, words)
	// Rows of the manifest are secrets, too, but not the names in them: ls prints
	// names.
	file, err := os.ReadFile(filepath.Join(folder, mobilesync.ManifestDB))
	check(err)
	plain, err := io.ReadAll(keybag.NewDecrypter(bytes.NewReader(file), key))
	check(err)
	name := filepath.Join(t.TempDir(), "plain.db")
	check(os.WriteFile(name, plain, 0o600))
	db, err := sql.Open("sqlite", "file:"+filepath.ToSlash(name)+"?mode=ro&immutable=1")
	check(err)
	defer db.Close()
	var row []byte
	check(db.QueryRow(`SELECT file FROM Files WHERE relativePath = ?`, planted).Scan(&row))
	words["CREATE TABLE Files (fileID"] = "Manifest.db in the clear"
	words[string(row[:64])] = "a row of Manifest.db in the clear"
}

// classKeys adds the class keys to the secrets. It unwraps them by hand, because
// package keybag does not return them.
func classKeys(t *testing.T, folder string, words secretWords) {
	t.Helper()
	var manifest struct{ BackupKeyBag []byte }
	b, err := os.ReadFile(filepath.Join(folder, mobilesync.ManifestPlist))
	if err == nil {
		_, err = plist.Unmarshal(b, &manifest)
	}
	if err != nil {
		t.Fatal(err)
	}
	bag, err := keybag.Parse(manifest.BackupKeyBag)
	if err != nil {
		t.Fatal(err)
	}
	kek := deriveByHand(t, bag, secretBackup)
	words.add("the key derived from the password", kek)
	n := 0
	for _, c := range bag.Classes {
		if c.Wrap&keybag.WrapPassword != 0 {
			words.add(fmt.Sprintf("the key of class %d", c.Number), unwrapByHand(t, kek, c.WrappedKey))
			n++
		}
	}
	if n < 7 {
		t.Fatalf("only %d classes", n)
	}
}

// TestSecretsStayInside runs all commands that use a backup password, and searches
// everything that they wrote and printed for secrets.
func TestSecretsStayInside(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs thirty commands; the test runs without -short")
	}
	t.Parallel()
	dir := t.TempDir()
	s := &secretRun{t: t, repo: filepath.Join(dir, "repo"), temp: filepath.Join(dir, "tmp"), printed: map[string][]byte{}}
	if err := os.Mkdir(s.temp, 0o700); err != nil {
		t.Fatal(err)
	}
	backups := filepath.Join(dir, "Backup")
	conf := synthetic.Config{Seed: 41, Encryption: synthetic.EncryptAll, Password: secretBackup, StateDir: t.TempDir()}
	devices, err := synthetic.Generate(context.Background(), backups, conf, 1)
	if err != nil {
		t.Fatal(err)
	}
	udid := devices[0].UDID
	folder := filepath.Join(backups, udid)
	words := secretWords{}
	plant(t, folder, words)
	words.add("the backup password", []byte(secretBackup))
	words.add("a wrong password", []byte(secretWrong))
	words.add("the password of the repository", []byte(secretRepo))

	env := func(password string) []string { return []string{"SNAP_BACKUP_PASSWORD=" + password} }
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(secretBackup+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.snap(0, nil, "init")
	s.snap(exitWrongBackup, env(secretWrong), "import", backups)
	s.snap(exitWrongBackup, env(secretWrong), "import", "--json", backups)
	s.snap(0, env(secretBackup), "device", "password", "set", udid)
	s.snap(0, nil, "import", "--json", backups)
	s.snap(0, env(secretBackup), "import", "--rescan", backups)
	s.snap(exitWrongBackup, env(secretWrong), "device", "password", "set", udid)
	s.snap(exitWrongBackup, env(secretWrong), "device", "password", "test", udid)
	s.snap(0, nil, "device", "password", "set", "--backup-password-file", file, "--json", udid)
	s.snap(0, nil, "device", "password", "test", "--json", udid)
	s.snap(exitWrongPass, []string{"SNAP_PASSWORD=" + secretWrong}, "snapshots")
	s.snap(0, nil, "snapshots", "--json")
	s.snap(0, nil, "ls", "-R", "--json", "latest")
	s.snap(0, nil, "stats", "--json")
	s.snap(0, nil, "check", "--read-data", "--json")
	s.snap(0, nil, "cat", "snapshot", "latest")
	s.snap(0, nil, "cat", "config")
	for kind, folder := range map[string]string{"pack": "packs", "index": "index", "key": "keys"} {
		s.snap(0, nil, "cat", kind, firstFile(t, filepath.Join(s.repo, folder)))
	}
	// This import has no temporary folder, so that no temporary file can exist even
	// for a moment.
	s.snap(0, []string{"TMPDIR=" + filepath.Join(dir, "none"), "TMP=", "TEMP="}, "import", "--rescan", backups)
	target := filepath.Join(dir, "out")
	s.snap(0, nil, "materialize", "--verify", "--json", "latest", target)
	a, err := fingerprint(folder)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := fingerprint(filepath.Join(target, udid)); err != nil || a.compare(b) != nil {
		t.Fatalf("the materialized folder differs: %v, %v", err, a.compare(b))
	}

	look := func() {
		t.Helper()
		for _, place := range []string{s.repo, s.temp, target} {
			searchFiles(t, place, words)
		}
		for line, out := range s.printed {
			for _, found := range words.search(line, out) {
				t.Error(found)
			}
		}
	}
	look()
	s.snap(0, nil, "device", "password", "forget", "--json", udid)
	look()
	if left, err := os.ReadDir(s.temp); err != nil || len(left) > 0 {
		t.Errorf("%v is left in the temporary folder: %v", left, err)
	}
	// Check that the search works: it must find a name that ls prints.
	if out := s.snap(0, nil, "ls", "-R", "--json", "latest"); len(secretWords{"Library": "a name"}.search("ls", []byte(out))) != 1 {
		t.Error("the search does not find a name")
	}
}

func firstFile(t *testing.T, dir string) string {
	t.Helper()
	found := ""
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && found == "" {
			found = entry.Name()
		}
		return err
	})
	if err != nil || found == "" {
		t.Fatalf("no file in %s: %v", dir, err)
	}
	return found
}

func searchFiles(t *testing.T, dir string, words secretWords) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		for _, found := range words.search(path, b) {
			t.Error(found)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if files == 0 && !strings.HasSuffix(dir, "tmp") {
		t.Fatalf("%s is empty", dir)
	}
}
