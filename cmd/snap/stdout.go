package main

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
)

// output is standard output. It remembers the first failure, because a result that
// nobody can read is an error of every command, and after that it writes nothing.
type output struct {
	w      io.Writer
	failed func() // called once, after the first failure

	mu  sync.Mutex
	err error
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return 0, o.err
	}
	n, err := o.w.Write(b)
	if err != nil {
		o.err = outputError{err}
		o.failed()
		return n, o.err
	}
	return n, nil
}

// close ends the output. Some file systems report only now that a disk is full.
func (o *output) close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if f, ok := o.w.(*os.File); ok && o.err == nil && f == os.Stdout {
		if err := f.Close(); err != nil {
			o.err = outputError{err}
		}
	}
	return o.err
}

// lostOutput returns the failure of standard output, if there was one.
func (a *app) lostOutput() error {
	o, ok := a.stdout.(*output)
	if !ok {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// outputError says that standard output could not be written. It hides its cause from
// errors.Is: a full disk there is not a full repository.
type outputError struct{ cause error }

func (e outputError) Error() string {
	return "standard output could not be written: " + e.cause.Error()
}

// isPipe reports whether whoever read the output has stopped, as head does.
func (e outputError) isPipe() bool { return errors.Is(e.cause, syscall.EPIPE) }

// changesNothing reports whether a command only prints what it finds. Such a command
// ends as soon as nobody reads its output any more. Others do what they began.
func changesNothing(command string) bool {
	first, _, _ := strings.Cut(command, " ")
	switch first {
	case "devices", "snapshots", "show", "ls", "find", "history", "dump", "diff", "stats", "cat", "check", "simulate", "version", "help", "completion", "":
		return true
	}
	return command == "key list" || command == "device info" || command == "config show" || command == "config check"
}

// outcome returns the error of a command whose output may have been lost. The error
// of the command itself is more important. quiet is true if a reader has ended a
// command that only prints: this is no error of the command, and it says nothing.
func (a *app) outcome(ctx context.Context, err error) (quiet bool, _ error) {
	a.screen.flush()
	var lost outputError
	if !errors.As(a.stdout.(*output).close(), &lost) {
		return false, err
	}
	if err != nil && !isA[outputError](err) && !errors.Is(err, context.Canceled) {
		a.warn("%v", lost)
		return false, err
	}
	if err != nil && (ctx.Err() != nil || isA[advised](err)) {
		return false, err // it is from Ctrl-C, or its hint says what the command has done
	}
	return lost.isPipe() && changesNothing(a.command), lost
}

// isNowhere reports whether standard output is the null device, where nobody sees a
// text. It is the null device, too, if it was closed when the program began.
func (a *app) isNowhere() bool {
	w := a.stdout
	if o, ok := w.(*output); ok {
		w = o.w
	}
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	null, err := os.Stat(os.DevNull)
	if err != nil {
		return false
	}
	info, err := f.Stat()
	return err == nil && os.SameFile(info, null)
}
