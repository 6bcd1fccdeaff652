// Package ramtemp keeps the temporary files of tests in memory, where creating
// files is many times faster than on a disk.
//
// It is for tests that do not test the file system. It does nothing if the system
// has no file system in memory, if this file system has too little free space, or
// if TMPDIR is set.
package ramtemp

import "os"

const (
	variable = "TMPDIR"
	need     = 2 << 30 // bytes of free space
)

// Use makes a folder in memory that os.TempDir then returns and testing.T.TempDir uses.
// The returned function removes the folder. Call Use in TestMain:
//
//	func TestMain(m *testing.M) {
//		defer ramtemp.Use()()
//		m.Run()
//	}
func Use() (remove func()) {
	parent := memory()
	if parent == "" || os.Getenv(variable) != "" {
		return func() {}
	}
	dir, err := os.MkdirTemp(parent, "snap-test-")
	if err != nil {
		return func() {}
	}
	_ = os.Setenv(variable, dir)
	return func() {
		_ = os.Unsetenv(variable)
		_ = os.RemoveAll(dir)
	}
}
