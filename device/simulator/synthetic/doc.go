// Package synthetic makes iPhone and iPad backup folders that nobody's data is in: for the demo, for tests, for benchmarks.
//
// A Series is a number of devices over a number of days. Each call of Next brings the folder of every device to the next day, in
// place as Finder does it: blobs of new and changed files are written beside and renamed over, blobs of unchanged files keep their
// inode and mtime, blobs of deleted files go, Manifest.db, the three property lists and nothing else are rewritten. What is
// inside follows real backups: live SQLite databases that grow and change in few pages, photos, attachments that repeat them,
// thousands of small property lists of which dozens change a day, logs that rotate, caches, empty folders by the thousand, and
// the odd cases (case twins, Unicode forms, symlinks, empty and dataless files, a Size that is not the stored length).
//
// It promises that the same Config gives the same bytes and the same mtimes on every platform, and that an encrypted device
// holds the same plaintext as the plain one of the same seed. It takes neither the time nor randomness from the machine. It
// writes nowhere but into the folder given to Next and its own state folder, and it knows nothing of repositories.
//
// It differs from real devices on purpose in one place: HealthDomain and the call history, which real devices keep for encrypted
// backups, are in plain ones too, so that both kinds can be compared.
package synthetic
