// Package receive provides the folder that a device sees during a backup. It is
// not on a disk: what the device writes is stored in the repository.
//
// A [Receiver] shows the device the files of its last snapshot and stores what
// the device changes. Content becomes chunks as it arrives. Publish makes a
// snapshot once the device has said that the backup is complete. An interrupted
// backup changes no snapshot. The received files are kept, and the device need
// not send them again.
//
// # What it promises
//
//   - The device reads back exactly the bytes that it wrote.
//   - Moving, removing and listing files only uses memory.
//   - Memory grows with the number of files, about 120 bytes each, not with
//     their size.
//   - A later backup never shows the device an outdated version of a file.
//
// # What it never does
//
// It speaks no protocol and asks nobody for passwords. It writes only to the
// repository and, for encrypted backups, to the spool folder that it is given.
package receive
