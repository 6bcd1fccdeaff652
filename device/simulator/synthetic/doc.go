// Package synthetic generates iPhone and iPad backup folders without personal data,
// for the demo, tests and benchmarks.
//
// A Series has devices that change from day to day. Next updates the backup folder
// of every device in place, as Finder does: new and changed blobs replace old ones
// by renaming, unchanged blobs keep their inode and mtime, blobs of deleted files
// are removed, and Manifest.db and the three property lists are rewritten. The
// content resembles real backups: SQLite databases that change in few pages,
// photos, attachments equal to photos, thousands of small property lists, rotated
// logs, caches, empty folders, and odd cases (names that differ by case, Unicode
// forms, symlinks, empty and dataless files, a Size that is not the stored length).
//
// The same Config gives the same bytes and mtimes on every platform. Encrypted and
// plain devices of the same seed have the same content. The package uses neither
// the clock nor the randomness of the machine, and it writes only to the folder
// given to Next and to its state folder.
//
// In one way it differs from real devices on purpose: HealthDomain and the call
// history, which real devices back up only encrypted, are in plain backups too, so
// that both kinds can be compared.
package synthetic
