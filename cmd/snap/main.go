// Command snap keeps backups of iPhones and iPads in a deduplicated,
// encrypted repository and gives any of them back byte for byte.
//
// Each command has a file of its own: it reads flags, calls one function of
// the library, and prints the result, for people or, with --json, for
// programs. Messages and progress go to standard error, results to standard
// output. Exit codes are listed in errors.go and in docs/guide.md.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/snap-backup/snap/repo"
)

func main() { os.Exit(start(repo.Options{})) }

// start runs the program on the real world and returns the exit code.
func start(opts repo.Options) int {
	limitMemory()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second Ctrl-C ends the program at once: stopping cleanly takes a moment
	// and nothing is lost without it.
	context.AfterFunc(ctx, stop)
	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, options: opts}
	return a.run(ctx, os.Args[1:])
}

// limitMemory makes the garbage collector work harder rather than let the
// process grow: backups run beside other work, on small NAS boxes too. GOGC
// and GOMEMLIMIT in the environment have precedence.
func limitMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(220 << 20)
	}
}

// run executes one command line and returns the exit code.
func (a *app) run(ctx context.Context, args []string) int {
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	err := root.ExecuteContext(ctx)
	a.releaseLock()
	return a.report(ctx, err)
}
