package receive

import (
	"context"
	"time"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/internal/process"
)

// Options say how to receive a backup.
type Options struct {
	UDID   string // of the device, in upper or lower case as the device uses it
	Device string // its name, for the record of an interrupted backup
	// Full shows the device an empty folder, so that it sends everything. What
	// it sends is still compared with the last snapshot, and only differences
	// are stored.
	Full bool

	// Encrypted says that the device encrypts what it sends (its setting
	// WillEncrypt). If a password is known, files wait in the spool for their keys;
	// otherwise they are stored as they arrive.
	Encrypted bool
	// Unlock unlocks an encrypted backup. If nil, the passwords that the repository
	// keeps for the device are tried. If the error is keybag.ErrWrongPassword or
	// mobilesync.ErrNotUnlockable, the backup is stored locked.
	Unlock func(ctx context.Context, b *mobilesync.Backup) error
	// SpoolDir is the folder in which each spool gets a folder of its own. If it is
	// "", nothing is spooled. SpoolLimit is the largest size of a spool in bytes; 0
	// means DefaultSpoolLimit. Files that do not fit are stored in the repository
	// as they arrive. At the end they are decrypted like the others, which leaves
	// unused chunks.
	SpoolDir   string
	SpoolLimit int64

	// A checkpoint is written after a file if CheckpointBytes (256 MiB if 0) were
	// received or CheckpointTime (a minute if 0) has passed since the last one. The
	// first checkpoints are written earlier: after 32 MiB, then whenever the
	// received bytes have doubled. A killed process loses at most the bytes since
	// the last checkpoint and one file. The content of a spool is not lost if the
	// process is killed; checkpoints protect it against power failures.
	CheckpointBytes int64
	CheckpointTime  time.Duration

	// Owner identifies this process, so that others can tell whether it is alive.
	// If nil, the operating system is asked.
	Owner *process.Identity

	// SpaceFactor is the number of bytes that Space reports for each free byte of
	// the store. If 0, Space chooses it.
	SpaceFactor int64
	// IgnoreSpace makes Space report more than any device needs, since devices may
	// overestimate what they will send. A store that is full still refuses files.
	IgnoreSpace bool

	Host    string // names for the record
	Program string
	Now     func() time.Time // time.Now if nil
}

const (
	// DefaultSpoolLimit is 64 GiB, enough for most encrypted backups.
	DefaultSpoolLimit = 64 << 30

	defaultCheckpointBytes = 256 << 20
	defaultCheckpointTime  = time.Minute
	// firstCheckpoint is how many bytes arrive before the first checkpoint.
	firstCheckpoint = 32 << 20
	// firstSpooled is the same if the bytes go to a spool. It is smaller, since the
	// next backup finds the spool only by the record in the repository.
	firstSpooled = 1 << 20
)

func (o Options) withDefaults() Options {
	if o.SpoolLimit <= 0 {
		o.SpoolLimit = DefaultSpoolLimit
	}
	if o.CheckpointBytes <= 0 {
		o.CheckpointBytes = defaultCheckpointBytes
	}
	if o.CheckpointTime <= 0 {
		o.CheckpointTime = defaultCheckpointTime
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Owner == nil {
		self := process.Current()
		o.Owner = &self
	}
	return o
}
