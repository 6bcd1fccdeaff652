package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// runAs runs a command as another user with one group.
func (s *shell) runAs(uid, gid uint32, args ...string) {
	s.t.Helper()
	cmd, out := s.command(args...)
	self, err := os.Open(cmd.Path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer self.Close()
	// The folder of the test program may be private.
	cmd.ExtraFiles, cmd.Path = []*os.File{self}, "/proc/self/fd/3"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	cmd.Env = append(cmd.Env, "HOME=/nonexistent", "XDG_CACHE_HOME=/nonexistent", "TMPDIR=/tmp")
	if err := cmd.Run(); err != nil {
		s.t.Fatalf("user %d: snap %v: %v\n%s", uid, args, err, out)
	}
}

// Members of a group share a repository, and root works in it, too.
func TestSharedByAGroup(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can be other users")
	}
	const anna, bob, group = 12345, 23456, 34567
	dir, err := os.MkdirTemp("/tmp", "snap-shared-*") // other users must reach it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := newShell(t, filepath.Join(dir, "repo"))
	s.run(0, "generate", "-q", "--scale", "tiny", "--devices", "1", "--days", "2", filepath.Join(dir, "backups"))
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chmod(path, 0o755)
	})
	if err == nil {
		err = os.Mkdir(s.repo, 0o700)
	}
	if err == nil {
		err = os.Chown(s.repo, anna, group)
	}
	if err == nil {
		err = os.Chmod(s.repo, 0o770|fs.ModeSetgid)
	}
	if err != nil {
		t.Skip(err) // in a namespace
	}
	s.runAs(anna, group, "init")
	s.runAs(anna, group, "import", filepath.Join(dir, "backups"))
	s.runAs(bob, group, "snapshots")
	s.runAs(bob, group, "import", filepath.Join(dir, "backups"))
	s.run(0, "forget", "--keep-last", "1") // root
	s.run(0, "prune")
	s.runAs(anna, group, "check", "--read-data")
	s.runAs(bob, group, "prune")
	s.runAs(anna, group, "check", "--read-data")
}
