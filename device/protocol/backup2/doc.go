// Package backup2 is the computer's side of mobilebackup2, the protocol that backs
// up and restores an iPhone or iPad and changes its backup password.
//
// The computer sends the first request. After that the device sends requests: it
// asks the computer to send and receive files, to list and make folders, and to
// move, copy and remove files and folders. At the end the device reports success
// or an error. The package serves these requests from a [Folder], which need not be
// a folder on a disk.
//
// # Promises
//
//   - Every request of the device is answered exactly once, even if it is unknown
//     or fails, and every upload is read to its end, so that both sides stay in
//     step.
//   - A file is committed to the Folder only after its last byte was received.
//   - A Folder gets only clean, relative paths below the identifiers of the
//     request.
//   - Memory is bounded, whatever the device sends.
//   - A call returns within seconds after its context ended. The connection is
//     closed then, after a goodbye if the device accepts one.
//
// # Deadlines
//
// Package devicelink limits each read and write. In package stream, the end of a
// context interrupts every read. Here it interrupts only the wait for a request
// (type interruptConn), since only a backup that is interrupted between two
// requests can be continued.
//
// # Limits
//
// The package does not find devices, pair, take locks or post notifications. It
// knows no repositories and does not look into files.
package backup2
