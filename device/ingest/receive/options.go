package receive

import (
	"context"
	"time"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/internal/process"
)

// Options say how to receive a backup.
type Options struct {
	UDID   string // of the device, as it writes it
	Device string // its name, for the record of an interrupted backup
	// Full shows the device an empty folder, so that it sends everything. What
	// it sends is still compared with the last snapshot, and only differences
	// are stored.
	Full bool

	// Encrypted says that the device encrypts what it sends (its WillEncrypt).
	// If a password is known, files wait in the spool for their keys; otherwise
	// they are stored as they arrive.
	Encrypted bool
	// Unlock unlocks an encrypted backup; nil tries the passwords that the
	// repository keeps for the device. If its error is keybag.ErrWrongPassword or
	// mobilesync.ErrNotUnlockable, the backup is stored locked.
	Unlock func(ctx context.Context, b *mobilesync.Backup) error
	// SpoolDir is a folder for spools, which each have a folder in it; "" spools
	// nothing. SpoolLimit bounds a spool in bytes; 0 is DefaultSpoolLimit. Files
	// that do not fit are stored as they arrive, and decrypted at the end like
	// the others; that leaves unused chunks.
	SpoolDir   string
	SpoolLimit int64

	// A checkpoint is written after a file, every CheckpointBytes (256 MiB if 0)
	// or CheckpointTime (a minute if 0). The first ones come earlier: after 32
	// MiB, then whenever the received bytes have doubled. A killed process loses
	// no more than the bytes since the last checkpoint and one file. The spool's
	// content survives a kill anyway; checkpoints protect it against power
	// failures.
	CheckpointBytes int64
	CheckpointTime  time.Duration

	// Owner is this process, so that others can tell whether it is alive; nil asks
	// the system.
	Owner *process.Identity

	// SpaceFactor is how many bytes of a backup Space reports for each free byte
	// of the store. 0 chooses.
	SpaceFactor int64

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
	// firstSpooled is the same if they go to a spool: the next backup finds the
	// spool only by the record in the repository.
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
