package faults

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/snap-backup/snap/device/simulator/hostile"
)

// Action is the kind of a fault.
type Action string

// The actions.
const (
	Cut       Action = "cut"       // the connection is closed without a goodbye
	Bye       Action = "bye"       // the device sends DLMessageDisconnect
	Fail      Action = "fail"      // the device responds with the error Code: 208 locked, 202 cancelled, …
	Wait      Action = "wait"      // the device sends nothing for the time For
	Ping      Action = "ping"      // the device sends DLMessagePing
	Unknown   Action = "unknown"   // the device sends a message with an unknown name
	ReadError Action = "readerror" // the second half of the batch's first file cannot be read
	Twice     Action = "twice"     // the first file of the batch is sent twice
	Huge      Action = "huge"      // the declared size of the batch (at StepSpace, the space needed) is Bytes
	Attack    Action = "attack"    // the device carries out the attack Name of package hostile
)

var actions = []Action{Cut, Bye, Fail, Wait, Ping, Unknown, ReadError, Twice, Huge, Attack}

// Fault describes one fault, which happens once.
type Fault struct {
	At    Step  // step at which the fault happens; empty for a Cut with After
	Nth   int   // the fault happens when At is reached for the Nth time; 0 means 1
	After int64 // number of bytes before a Cut without At, in both directions together
	Do    Action

	Code  int64
	For   time.Duration
	Bytes int64
	Name  string
}

// Script is a list of faults.
type Script []Fault

var errScript = errors.New("invalid script of faults")

// Check returns an error if the script is not valid.
func (s Script) Check() error {
	for _, f := range s {
		if err := f.check(); err != nil {
			return fmt.Errorf("%w: %s: %w", errScript, f, err)
		}
	}
	return nil
}

func (f Fault) check() error {
	switch {
	case !slices.Contains(actions, f.Do):
		return fmt.Errorf("unknown action %q", f.Do)
	case f.At == "" && (f.Do != Cut || f.After <= 0):
		return errors.New("want a step, or a cut after a number of bytes")
	case f.At != "" && !slices.Contains(steps, f.At):
		return fmt.Errorf("unknown step %q", f.At)
	case f.Nth < 0 || f.For < 0 || f.Bytes < 0:
		return errors.New("a number is negative")
	case f.Do == Fail && f.Code <= 0:
		return errors.New("it needs an error code")
	case f.Do == Attack && hostile.Named(f.Name) == nil:
		return fmt.Errorf("unknown attack %q", f.Name)
	}
	return nil
}

// String returns the fault in the form that Parse reads.
func (f Fault) String() string {
	where := "@" + strconv.FormatInt(f.After, 10)
	if f.At != "" {
		where = string(f.At)
		if f.Nth > 1 {
			where += ":" + strconv.Itoa(f.Nth)
		}
	}
	switch f.Do {
	case Fail:
		return fmt.Sprintf("%s=%s %d", where, f.Do, f.Code)
	case Wait:
		return fmt.Sprintf("%s=%s %s", where, f.Do, f.For)
	case Huge:
		return fmt.Sprintf("%s=%s %d", where, f.Do, f.Bytes)
	case Attack:
		return fmt.Sprintf("%s=%s %s", where, f.Do, f.Name)
	}
	return where + "=" + string(f.Do)
}

// Parse parses the text form of a fault: "upload:3=cut", "begin=fail 208",
// "begin=wait 90s", "space=huge 1000000000000", "upload=attack upload-dotdot",
// "@50000=cut".
func Parse(text string) (Fault, error) {
	f, err := parse(text)
	if err == nil {
		err = f.check()
	}
	if err != nil {
		return Fault{}, fmt.Errorf("fault %q: %w", text, err)
	}
	return f, nil
}

func parse(text string) (f Fault, err error) {
	where, what, ok := strings.Cut(text, "=")
	if !ok {
		return f, errors.New(`want "STEP=ACTION"`)
	}
	if bytes, ok := strings.CutPrefix(where, "@"); ok {
		if f.After, err = strconv.ParseInt(bytes, 10, 64); err != nil {
			return f, err
		}
	} else {
		step, nth, numbered := strings.Cut(where, ":")
		f.At = Step(step)
		if numbered {
			if f.Nth, err = strconv.Atoi(nth); err != nil {
				return f, err
			}
			if f.Nth == 1 {
				f.Nth = 0
			}
		}
	}
	action, value, _ := strings.Cut(what, " ")
	f.Do = Action(action)
	switch f.Do {
	case Fail:
		f.Code, err = strconv.ParseInt(value, 10, 64)
	case Wait:
		f.For, err = time.ParseDuration(value)
	case Huge:
		f.Bytes, err = strconv.ParseInt(value, 10, 64)
	case Attack:
		f.Name = value
	default:
		if value != "" {
			err = fmt.Errorf("%s takes no value", f.Do)
		}
	}
	return f, err
}
