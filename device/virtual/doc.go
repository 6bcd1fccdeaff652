// Package virtual is the backup folder that a device sees while it is backed
// up or restored, and that is no folder but a repository.
//
// A [Run] is the folder of a backup: the names of the last snapshot of the
// device and what the device changes. Content goes into chunks as it arrives;
// nothing is staged as a folder. Publish makes it a snapshot once the device
// has said that the backup is complete. A run that breaks off leaves every
// snapshot as it was and keeps what was received, and the next one shows the
// device those names, so that they need not come again.
//
// A [Source] is the folder of a restore: one snapshot, read-only. A [Rekey] is
// the folder in which a device changes its backup password.
//
// # What it promises
//
//   - The device reads back exactly the bytes that it wrote, of Status.plist,
//     Manifest.plist and Manifest.db above all.
//   - Moves, removals and lists change or read names in memory alone.
//   - Memory goes by the number of names, of about 100 bytes each, not by the
//     size of content.
//   - A name that a later run is shown has the content that the device sent
//     last under it, or is not shown.
//
// # What it never does
//
// It speaks no protocol and asks nobody for passwords. It writes to the
// repository and, for encrypted backups, to the spool folder it is given, where
// lies only what the device has sealed itself.
package virtual
