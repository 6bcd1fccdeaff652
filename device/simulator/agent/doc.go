// Package agent simulates the backup agent of an iPhone or iPad: the device's side
// of a mobilebackup2 conversation, for tests and the demo.
//
// An Agent has the content of the device and the state that a device keeps between
// conversations: the backup password, a list of what an interrupted run sent, and
// the digests of all files sent. Serve holds one conversation with a host. The agent
// writes the manifests, and encrypts if a password is set. It decides between a full
// and an incremental run by what the host returns. A restore replaces the agent's content.
//
// The agent judges the host: every answer must have the right form, the host must
// return the bytes that it received, and it must list every file. Violations lists
// the host's mistakes. A faults.Script says what goes wrong, and when.
//
// Equal options, content and requests give equal bytes. Content is streamed; memory
// grows by some 200 bytes for each file. The agent does not simulate iOS 9 and
// earlier, which have another manifest and a flat folder.
package agent
