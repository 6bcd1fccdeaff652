// Package agent simulates the backup agent of an iPhone or iPad: the device's side
// of a mobilebackup2 conversation, for tests and the demo.
//
// An Agent has the content of the device and what a device keeps between
// conversations: the backup password, what an interrupted run sent, and digests of
// everything that it sent. Serve holds one conversation with a host. The agent
// writes the manifests, encrypts if a password is set, and decides between full
// and incremental runs by what the host returns. A restore changes its content.
//
// It judges the host: every answer must have the right form, what the host returns
// must be what was sent, and every file must be listed. Violations lists mistakes.
// A script of package faults makes things go wrong.
//
// The same options, content and requests give the same bytes. Content is streamed;
// memory grows by some 200 bytes for each file. The agent does not simulate iOS 9
// and earlier, which have another manifest and a flat folder.
package agent
