// Package agent plays the backup agent of an iPhone or iPad: the device's side
// of a mobilebackup2 conversation, for tests, drills and the demo.
//
// An Agent has Content, which is what is on the device, and keeps what a device
// keeps between conversations: the backup password, what it sent in a run that
// broke off, digests of all that it ever sent. Serve holds one conversation with
// a host over any connection. The agent makes the manifests itself, encrypts
// when a password is set, decides about full and incremental runs by what the
// host gives back, and after a restore its content is what it restored.
//
// It judges the host: every answer must have the right form, what comes back
// must be byte for byte what was sent, and every file must be listed. What was
// wrong stands in Violations. By a Script it has every kind of bad luck that
// devices have, at a step or at a byte, and can be hostile.
//
// The same options, content and requests give the same bytes. Content is
// streamed; memory grows with the number of files by some 200 bytes each. iOS 9
// and earlier, with another manifest and a flat folder, are not played.
package agent
