package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/local"
	"github.com/spf13/cobra"
)

// app is what all commands share: where to read and write, and global flags.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	lines          *bufio.Reader  // of stdin, where that is no terminal
	options        repo.Options   // of every repository that is opened or made
	store          *local.Backend // of the repository that was opened last

	repoDir         string
	passwordFile    string
	passwordCommand string
	keyFile         string
	json            bool
	quiet           bool
	verbose         bool

	lock      *repo.Lock // of the command that runs
	noLock    bool
	retryLock time.Duration
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "snap",
		Short: "Keep backups of iPhones and iPads, and give any of them back",
		Long: `snap keeps many backups of many iPhones and iPads in one repository that is
deduplicated, compressed and encrypted, and gives any of them back byte for
byte: to a device, or as a folder. It backs up devices that are connected, and
reads the backup folders of Finder, iTunes, Apple Devices and idevicebackup2.

    snap init -r /path/to/repo        make a repository
    snap backup                       back up the iPhone on the cable
    snap import                       store the backups of this computer
    snap snapshots                    see what is there
    snap restore latest               restore to the device
    snap materialize latest ~/out     get a backup folder back

See "snap demo" for all of that without a device.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          suggest,
		// How many letters may be wrong for a command to be suggested.
		SuggestionsMinimumDistance: 2,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetHelpCommand(helpCommand(root))
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	f := root.PersistentFlags()
	f.StringVarP(&a.repoDir, "repo", "r", "", "repository `folder` (or $SNAP_REPOSITORY)")
	f.StringVar(&a.passwordFile, "password-file", "", "read the repository password from the first line of this `file` (or $SNAP_PASSWORD_FILE)")
	f.StringVar(&a.passwordCommand, "password-command", "", "read the repository password from the output of this shell `command` (or $SNAP_PASSWORD_COMMAND)")
	f.StringVar(&a.keyFile, "key-file", "", "open the repository with a key `file` in place of a password")
	f.BoolVar(&a.json, "json", false, "print results as JSON (docs/json.md)")
	f.BoolVarP(&a.quiet, "quiet", "q", false, "no progress and no remarks")
	f.BoolVarP(&a.verbose, "verbose", "v", false, "tell more of what is done")
	f.DurationVar(&a.retryLock, "retry-lock", 0, "wait up to this `duration`, such as 5m, for others who lock the repository")
	root.MarkFlagsMutuallyExclusive("password-file", "password-command", "key-file")
	root.AddGroup(
		&cobra.Group{ID: "backup", Title: "Storing and giving back:"},
		&cobra.Group{ID: "see", Title: "Seeing what is there:"},
		&cobra.Group{ID: "choose", Title: "Choosing what stays:"},
		&cobra.Group{ID: "care", Title: "Looking after the repository:"},
	)
	for group, commands := range map[string][]*cobra.Command{
		"backup": {
			a.backupCommand(),
			a.importCommand(),
			a.noLockFlag(a.materializeCommand()),
			a.restoreCommand(),
			a.demoCommand(),
			a.simulateCommand(),
		},
		"see": {
			a.devicesCommand(),
			a.noLockFlag(a.snapshotsCommand()),
			a.noLockFlag(a.lsCommand()),
			a.noLockFlag(a.diffCommand()),
			a.noLockFlag(a.statsCommand()),
			a.noLockFlag(a.catCommand()),
		},
		"choose": {
			a.forgetCommand(),
			a.tagCommand(),
			a.pinCommand(),
			a.unpinCommand(),
			a.noteCommand(),
		},
		"care": {
			a.initCommand(),
			a.keyCommand(),
			a.deviceCommand(),
			a.noLockFlag(a.checkCommand()),
			a.repairCommand(),
			a.parityCommand(),
			a.pruneCommand(),
			a.unlockCommand(),
			a.noLockFlag(a.mirrorCommand()),
			a.noLockFlag(a.copyCommand()),
		},
	} {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	root.AddCommand(a.versionCommand(), a.generateCommand())
	return root
}

// suggest refuses arguments of a command that has only subcommands.
func suggest(cmd *cobra.Command, argv []string) error {
	if len(argv) == 0 {
		return nil
	}
	err := fmt.Errorf("unknown command %q for %q", argv[0], cmd.CommandPath())
	if near := cmd.SuggestionsFor(argv[0]); len(near) > 0 {
		err = fmt.Errorf("%w; did you mean %q?", err, near[0])
	}
	return usageError{err}
}

// helpCommand is cobra's, but tells when there is nothing to help with.
func helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Explain a command",
		RunE: func(_ *cobra.Command, argv []string) error {
			cmd, rest, err := root.Find(argv)
			if err == nil {
				err = suggest(cmd, rest)
			}
			if err != nil {
				return usageError{err}
			}
			cmd.InitDefaultHelpFlag()
			return cmd.Help()
		},
	}
}

// usageError is a wrong command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// args makes cobra's complaints about arguments usage errors.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			if !cmd.HasSubCommands() && strings.HasPrefix(err.Error(), "unknown command") {
				err = fmt.Errorf("unexpected argument %q", args[0]) // cobra takes it for a command
			}
			return usageError{fmt.Errorf("%w; usage: %s", err, cmd.UseLine())}
		}
		return nil
	}
}

// optional accepts no arguments, or one behind a flag whose value may be left out:
// people write "--read-data 3%" as well as "--read-data=3%", and to the parser the
// former is a flag without a value and an argument.
func optional(flag string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, argv []string) error {
		f := cmd.Flags().Lookup(flag)
		if len(argv) == 1 && f.Changed && f.Value.String() == f.NoOptDefVal {
			return nil
		}
		return cobra.NoArgs(cmd, argv)
	}
}

// optionalValue is the value of such a flag.
func optionalValue(value string, argv []string) string {
	if len(argv) > 0 {
		return argv[0]
	}
	return value
}

// location returns the folder of the repository.
func (a *app) location() (string, error) {
	if a.repoDir != "" {
		return a.repoDir, nil
	}
	if dir := os.Getenv("SNAP_REPOSITORY"); dir != "" {
		return dir, nil
	}
	return "", usageError{errors.New("which repository? Use -r FOLDER or set SNAP_REPOSITORY")}
}

// open opens the repository without a lock and without its index.
func (a *app) open(ctx context.Context) (*repo.Repo, error) {
	dir, err := a.location()
	if err != nil {
		return nil, err
	}
	be, err := local.Open(dir)
	if err != nil {
		return nil, openError(dir, err)
	}
	secret, err := a.secret(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	r, err := repo.Open(ctx, be, secret, a.options)
	if err != nil {
		return nil, openError(dir, err)
	}
	a.store = be
	return r, nil
}

// staleAfter is how old a temporary file must be to be what a killed run left:
// far older than any that is still being written.
const staleAfter = 24 * time.Hour

// tidy gives back the space of what killed runs left half-written. That it
// cannot is no reason not to store.
func (a *app) tidy(ctx context.Context) {
	if _, err := a.store.RemoveStale(ctx, time.Now().Add(-staleAfter)); err != nil && ctx.Err() == nil {
		a.warn("%v", err)
	}
}

func openError(dir string, err error) error {
	if errors.Is(err, os.ErrNotExist) && !errors.Is(err, repo.ErrDamaged) {
		err = repo.ErrNotFound
	}
	return fmt.Errorf("%s: %w", dir, err)
}
