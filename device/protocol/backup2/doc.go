// Package backup2 is the computer's side of mobilebackup2, the conversation in
// which an iPhone or iPad is backed up, restored, or given another backup
// password.
//
// After the request the device drives: it asks the computer to send and
// receive files, to list, make, move and remove names, and says at the end how
// it went. The package answers out of a [Folder], which need not be a folder
// on a disk.
//
// # What it promises
//
//   - Every request of the device is answered exactly once, also those that
//     are unknown or cannot be fulfilled, and an upload is always read to its
//     end, so that both sides stay in step.
//   - A file is committed to the Folder only after its last byte has come.
//   - A Folder sees clean, relative paths below the identifiers of the request
//     and nothing else, whatever the device sends.
//   - Memory is bounded whatever the device sends.
//   - An end of the context ends a call within seconds: politely where the
//     device lets it, by closing the connection otherwise.
//
// # What it never does
//
// It does not look for devices, does not pair, takes no locks and posts no
// notifications; it knows no repositories; it does not read what it moves.
package backup2
