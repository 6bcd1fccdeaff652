// Command snap keeps backups of iPhones and iPads in a deduplicated, encrypted
// repository and restores any of them byte for byte.
//
// Each command has a file of its own: it reads flags, calls one function of the
// library, and prints the result for people or, with --json, for programs. Results
// go to standard output, messages and progress to standard error. Exit codes are
// in errors.go and docs/guide.md.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() { os.Exit(start(&app{})) }

// start runs the program with the process's arguments and returns the exit code.
func start(a *app) int {
	limitMemory()
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup wants it ignored
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	// A second Ctrl-C ends the program at once. A clean stop may take some time, and
	// nothing is lost without it. A first one that comes when the work is done changes
	// nothing, so stop is not called at the end.
	context.AfterFunc(ctx, stop)
	keepPipes()
	a.stdin, a.stdout, a.stderr = os.Stdin, os.Stdout, os.Stderr
	code := a.run(ctx, os.Args[1:])
	if code == exitPipe {
		dieOfPipe()
	}
	return code
}

// run executes one command line and returns the exit code.
func (a *app) run(ctx context.Context, args []string) int {
	running, stop := context.WithCancel(ctx)
	defer stop()
	stdout := a.stdout
	a.stdout = &output{w: a.stdout, failed: func() {
		if changesNothing(a.command) {
			stop()
		}
	}}
	a.screen = newScreen(a.stdout, stdout, a.coloured)
	a.errScreen = newScreen(a.stderr, a.stderr, a.coloured)
	root := a.rootCommand()
	root.SetArgs(a.hideLogins(args))
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	cmd, err := root.ExecuteContextC(running)
	a.runs(cmd) // also if its flags are wrong
	a.releaseLock()
	quiet, err := a.outcome(ctx, err)
	if quiet {
		return exitPipe
	}
	return a.report(ctx, err)
}
