// Package synthetic generates iPhone and iPad backup folders without personal data,
// for the demo, tests and benchmarks.
//
// A Series has devices that change from day to day. Next updates the backup folder of
// every device in place, as Finder does. It renames new and changed blobs over old
// ones. Unchanged blobs keep their inode and mtime. It removes the blobs of deleted
// files, and rewrites Manifest.db and the three property lists.
//
// The content resembles real backups: SQLite databases of which few pages change,
// photos, attachments equal to photos, thousands of small property lists, rotated
// logs, caches and empty folders. There are also odd cases: names that differ only by
// case or by Unicode form, symlinks, empty and dataless files, and a Size that is not the
// stored length.
//
// The same Config gives the same bytes and mtimes on every platform. Encrypted and
// plain devices of the same seed have the same content. The package uses neither the
// clock nor the randomness of the machine. It writes only to the folder given to Next
// and to its state folder.
//
// In one way the devices differ from real ones on purpose: their plain backups contain
// HealthDomain and the call history, which real devices back up only encrypted. So
// plain and encrypted backups can be compared.
package synthetic
