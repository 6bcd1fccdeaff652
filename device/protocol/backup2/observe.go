package backup2

// Phase is what a device is doing, as far as its requests show.
type Phase string

const (
	// PhaseWaiting lasts until the device's first message. From iOS 15.7 on, except with
	// iOS 16.0, the device asks for its passcode during this phase, for up to half an hour.
	PhaseWaiting Phase = "waiting for the device"
	// PhasePreparing: the device compares its files with the backup, which can take
	// minutes.
	PhasePreparing Phase = "preparing"
	PhaseReceiving Phase = "receiving files"
	PhaseSending   Phase = "sending files"
	// PhaseFinishing: the device moves new files to their places.
	PhaseFinishing Phase = "finishing"
	// PhaseVerifying: the device checks the new backup. It can still fail.
	PhaseVerifying Phase = "verifying"
	// PhaseRekeying: the device wraps the backup's keys with another password.
	PhaseRekeying Phase = "changing the password"
)

// Progress is the progress of a session.
type Progress struct {
	// Percent is the progress that the device reported last: above 0 and up to 100, or
	// 0 if it has reported none.
	Percent float64
	// Files and Bytes count what was received and sent, including metadata.
	Files, Bytes int64
}

// Observer receives the progress of a session. The goroutine of the session calls
// its methods and waits for them.
type Observer interface {
	// Phase is called when a phase begins.
	Phase(Phase)
	// Progress is called after every file, and every few megabytes of a long file.
	Progress(Progress)
	// Warning is called for a failure that does not end the session. The text is
	// safe to print, and the number of calls is limited.
	Warning(text string)
}
