package backend

import "context"

// Folders is a Backend whose folders exist even without files, such as those of a disk.
// If a folder that was made is gone, its files were lost with it. They were not deleted
// one by one.
type Folders interface {
	// MakeFolder makes a folder durable; dir is a prefix as for List. It is no error if
	// the folder exists.
	MakeFolder(ctx context.Context, dir string) error
	// HasFolder reports whether a folder exists. The error is ErrNotFolder if something
	// else has its name.
	HasFolder(ctx context.Context, dir string) (bool, error)
	// MoveAside renames a folder, a link or anything else that is not a file, but has the
	// name of one. It returns the new name. No file is lost, and the name is free. If
	// there is nothing, or a file, MoveAside does nothing and returns "".
	MoveAside(ctx context.Context, name string) (aside string, err error)
}
