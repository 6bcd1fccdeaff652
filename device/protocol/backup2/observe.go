package backup2

// Phase is what a session is about, as far as it can be told from what the
// device asks for.
type Phase string

const (
	// PhaseWaiting lasts from the request to the device's first word. Since
	// iOS 16 the device asks for its passcode meanwhile, for up to half an
	// hour; it says nothing before that is entered.
	PhaseWaiting Phase = "waiting for the device"
	// PhasePreparing is the device comparing its files with the backup, which
	// can be minutes of silence.
	PhasePreparing Phase = "preparing"
	PhaseReceiving Phase = "receiving files"
	PhaseSending   Phase = "sending files"
	// PhaseFinishing is the device ordering what has come.
	PhaseFinishing Phase = "finishing"
	// PhaseVerifying is the device checking the new backup. It can still fail.
	PhaseVerifying Phase = "verifying"
	// PhaseRekeying is the device sealing the backup's keys anew.
	PhaseRekeying Phase = "changing the password"
)

// Progress is how far a session has come.
type Progress struct {
	// Percent is what the device says, above 0 and up to 100; 0 while unknown.
	Percent float64
	// Files and Bytes count what was received and sent, metadata included.
	Files, Bytes int64
}

// Observer is told how a session goes on. Its methods are called by the
// goroutine that runs the session, which waits for them.
type Observer interface {
	// Phase is called when a phase begins.
	Phase(Phase)
	// Progress is called after every file and every few megabytes of a long one.
	Progress(Progress)
	// Warning is called for what went wrong and did not end the session. The
	// text is safe to print; their number is bounded.
	Warning(text string)
}
