// Package receive provides the folder that a device sees during a backup. It is
// not on a disk: what the device writes is stored in the repository.
//
// A [Receiver] shows the device the files of its last snapshot and stores what
// the device changes. Content becomes chunks as it arrives. Publish makes a
// snapshot once the device has said that the backup is complete. A backup that is
// interrupted leaves all snapshots as they were; what was received is kept, and
// the next backup need not send it again.
//
// # What it promises
//
//   - The device reads back exactly the bytes that it wrote.
//   - Moving, removing and listing files only uses memory.
//   - Memory grows with the number of files, about 100 bytes each, not with
//     their size.
//   - A later backup shows the device only the content that it sent last under a name.
//
// # What it never does
//
// It speaks no protocol and asks nobody for passwords. It writes to the
// repository and, for encrypted backups, to the spool folder that it is given.
package receive
