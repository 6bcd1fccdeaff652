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
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/local"
	"github.com/spf13/cobra"
)

// app has the state that all commands share, such as standard streams and global
// flags.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	screen         *screen          // standard output for people; see human
	errScreen      *screen          // standard error for people; see messages
	lines          *bufio.Reader    // reads lines of stdin; see input
	firstRaw       []byte           // the first line of stdin before it was decoded
	options        repo.Options     // options of every repository that is opened or created
	keyBits        int              // size of the keys of a new pairing; see device.PairOptions
	store          storage          // files of the last opened repository
	storeOptions   []string         // see parseOptions
	logins         map[string]login // by address, see hideLogin
	line           lineFlags
	noCache        bool
	objectLock     bool // whether a new bucket gets Object Lock
	listing        bool // the command reads records only
	// through, if not nil, changes how the files of repositories are read. Tests let a
	// disk fail with it.
	through func(dir string, be storage) storage
	rescue  func(ctx context.Context, be backend.Backend, secret []byte) (bool, error) // see opening

	repoDir         string
	passwordFile    string
	passwordCommand string
	keyFile         string
	keyHint         string
	json            bool
	quiet           bool
	opaque          bool // a person wants backups to be stored locked
	verbose         bool
	colour          colourMode

	settings  settings        // of the configuration file
	keyring   passwordKeyring // nil means that of the system
	neverAsk  bool            // open the repository without a question, or not at all
	forgetful bool            // do not use a remembered password
	opener    *opener         // if not nil, gets the secret that opens the repository

	command   string     // the running command, such as "device pair"
	lock      *repo.Lock // lock of the running command
	noLock    bool
	noFsync   bool
	retryLock time.Duration
}

func (a *app) rootCommand() *cobra.Command {
	var version bool
	root := &cobra.Command{
		Use:   "snap",
		Short: "Back up iPhones and iPads, and restore any backup",
		Long: `snap keeps many backups of many iPhones and iPads in one deduplicated,
compressed and encrypted repository. It restores any of them byte for byte, to a
device or as a folder. It backs up connected devices, and imports the backup
folders of Finder, iTunes, Apple Devices and idevicebackup2.

    snap init -r /path/to/repo        create a repository
    snap backup                       back up the connected iPhone
    snap import                       store the backups on this computer
    snap snapshots                    list the snapshots
    snap restore latest               restore to the device
    snap materialize latest ~/out     write a backup folder

"snap demo" shows all of this without a device.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          suggest,

		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			a.runs(cmd)
			return a.configure(cmd)
		},
		// Suggest commands that differ by at most this many letters.
		SuggestionsMinimumDistance: 2,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if version {
				return a.printVersion()
			}
			return cmd.Help()
		},
	}
	root.Flags().BoolVar(&version, "version", false, "print the version, as \"snap version\" does")
	root.SetHelpCommand(helpCommand(root))
	root.SetUsageFunc(a.usage)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return rewordFlagError(cmd.Name(), err) })
	f := root.PersistentFlags()
	a.settings.register(root)
	f.StringVarP(&a.repoDir, "repo", "r", "", "`folder` or address of the repository (or $SNAP_REPOSITORY)")
	f.StringArrayVarP(&a.storeOptions, "option", "o", nil, "set `KEY=VALUE` of a store (snap help stores; can be repeated)")
	a.line.register(root)
	f.BoolVar(&a.noCache, "no-cache", false, "keep no copies of files of a store far away on this computer")
	f.StringVar(&a.passwordFile, "password-file", "", "read the repository password from the first line of this `file` (or $SNAP_PASSWORD_FILE)")
	f.StringVar(&a.passwordCommand, "password-command", "", "read the repository password from the output of this shell `command` (or $SNAP_PASSWORD_COMMAND)")
	f.StringVar(&a.keyFile, "key-file", "", "open the repository with a key `file` instead of a password")
	f.StringVar(&a.keyHint, "key-hint", "", "try the key with this `ID` first (or $SNAP_KEY_HINT)")
	f.BoolVar(&a.json, "json", false, "print results as JSON (docs/json.md)")
	f.BoolVarP(&a.quiet, "quiet", "q", false, "print no progress, no notes, and no result if all is well; lists and dry runs still print theirs")
	f.BoolVarP(&a.verbose, "verbose", "v", false, "print more details")
	f.Var(&a.colour, "color", "use colours: auto, always or never; auto uses them on a terminal, unless $NO_COLOR is set")
	f.BoolVar(&a.noFsync, "no-fsync", false, "go on where the file system does not support fsync; a power cut can lose files there (or $SNAP_NO_FSYNC=1)")
	f.DurationVar(&a.retryLock, "retry-lock", 0, "wait up to this `duration`, such as 5m, while another process locks the repository")
	root.MarkFlagsMutuallyExclusive("password-file", "password-command", "key-file")
	root.AddCommand(storesTopic())
	root.AddGroup(
		&cobra.Group{ID: "backup", Title: "Back up and restore:"},
		&cobra.Group{ID: "see", Title: "Inspect:"},
		&cobra.Group{ID: "choose", Title: "Choose what to keep:"},
		&cobra.Group{ID: "care", Title: "Maintain:"},
	)
	for group, commands := range map[string][]*cobra.Command{
		"backup": {
			a.backupCommand(),
			a.importCommand(),
			a.noLockFlag(a.extractCommand()),
			a.noLockFlag(a.materializeCommand()),
			a.restoreCommand(),
			a.noLockFlag(a.drillCommand()),
			a.demoCommand(),
			a.simulateCommand(),
		},
		"see": {
			a.devicesCommand(),
			a.noLockFlag(a.statusCommand()),
			a.noLockFlag(a.snapshotsCommand()),
			a.noLockFlag(a.showCommand()),
			a.noLockFlag(a.lsCommand()),
			a.noLockFlag(a.findCommand()),
			a.noLockFlag(a.historyCommand()),
			a.noLockFlag(a.dumpCommand()),
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
			a.configCommand(),
			a.deviceCommand(),
			a.noLockFlag(a.checkCommand()),
			a.noLockFlag(a.verifyCommand()),
			a.repairCommand(),
			a.parityCommand(),
			a.pruneCommand(),
			a.unlockCommand(),
			a.noLockFlag(a.mirrorCommand()),
			a.noLockFlag(a.copyCommand()),
			a.serveCommand(),
			a.protectCommand(),
		},
	} {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	root.AddCommand(a.versionCommand(), a.generateCommand())
	a.addCompletion(root)
	root.InitDefaultCompletionCmd()
	usageErrors(root)
	return root
}

// runs remembers the command that runs.
func (a *app) runs(cmd *cobra.Command) {
	_, a.command, _ = strings.Cut(cmd.CommandPath(), " ")
}

// suggest rejects arguments of a command that has only subcommands.
func suggest(cmd *cobra.Command, argv []string) error {
	if len(argv) == 0 {
		return nil
	}
	err := fmt.Errorf("unknown command %q for %q", argv[0], cmd.CommandPath())
	if hint := notCommands[argv[0]]; hint != "" && !cmd.HasParent() {
		return advised{usageError{err}, hint}
	}
	if near := cmd.SuggestionsFor(argv[0]); len(near) > 0 {
		err = fmt.Errorf("%w; did you mean %q?", err, near[0])
	}
	return usageError{err}
}

// helpCommand replaces Cobra's help command. It fails if the command to explain is
// unknown; Cobra's does not.
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

// usageError says that the command line is wrong.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// usageErrors turns errors about arguments and flag groups into usage errors, for a
// command and its subcommands.
func usageErrors(cmd *cobra.Command) {
	check := cmd.Args
	cmd.Args = func(cmd *cobra.Command, argv []string) error {
		// Cobra validates flag groups only after this function, and its error cannot
		// be changed there.
		if err := cmd.ValidateFlagGroups(); err != nil {
			return usageError{exclusiveFlags(err)}
		}
		if check == nil {
			return nil
		}
		err := check(cmd, argv)
		if err == nil || isA[usageError](err) {
			return err
		}
		switch text := err.Error(); { // reword errors of Cobra
		case !cmd.HasSubCommands() && strings.HasPrefix(text, "unknown command"):
			err = fmt.Errorf("unexpected argument %q", argv[0])
		case strings.Contains(text, " arg(s)"):
			err = errors.New("wrong number of arguments")
		}
		return usageError{fmt.Errorf("%w; usage: %s", err, cmd.UseLine())}
	}
	for _, c := range cmd.Commands() {
		usageErrors(c)
	}
}

// exclusiveFlags rewords cobra's error about flags that exclude each other:
// "if any flags in the group [...] are set ...; [a b] were all set".
func exclusiveFlags(err error) error {
	_, set, _ := strings.Cut(err.Error(), "; [")
	set, _, ok := strings.Cut(set, "] were all set")
	if !ok {
		return err
	}
	return fmt.Errorf("--%s cannot be combined; use only one", strings.Join(strings.Fields(set), " and --"))
}

// optional accepts no arguments, or one after a flag whose value is optional. The
// parser reads "--read-data 3%" as a flag without a value, followed by an argument.
func optional(flag string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, argv []string) error {
		f := cmd.Flags().Lookup(flag)
		if len(argv) == 1 && f.Changed && f.Value.String() == f.NoOptDefVal {
			return nil
		}
		return cobra.NoArgs(cmd, argv)
	}
}

// optionalValue returns the value of a flag whose value is optional.
func optionalValue(value string, argv []string) string {
	if len(argv) > 0 {
		return argv[0]
	}
	return value
}

// location returns the repository's folder.
func (a *app) location() (string, error) {
	if a.repoDir != "" {
		return a.repoDir, nil
	}
	if dir := a.env("SNAP_REPOSITORY"); dir != "" {
		return dir, nil
	}
	if v, ok := a.fromFile("repository"); ok {
		return v.Text, nil
	}
	if s := &a.settings; s.file != nil && s.profile == nil && len(s.file.Profiles) > 0 {
		var names []string
		for _, p := range s.file.Profiles {
			names = append(names, p.Name)
		}
		return "", usageError{fmt.Errorf("%s has several profiles (%s), and none is the default: choose one with --profile NAME or SNAP_PROFILE", s.file.Path, strings.Join(names, ", "))}
	}
	return "", usageError{errors.New("no repository is given: use -r FOLDER or set SNAP_REPOSITORY, or write a configuration file with \"snap config init\"")}
}

func (a *app) opened(dir string, be storage, err error) (storage, error) {
	if err != nil {
		return nil, err
	}
	if v := os.Getenv("SNAP_NO_FSYNC"); a.noFsync || v != "" && v != "0" {
		be.AllowNoFsync()
	}
	if a.through != nil {
		be = a.through(dir, be)
	}
	return be, nil
}

// storage is what the commands need of the folder of a repository.
type storage interface {
	backend.Backend
	backend.Freer
	AllowNoFsync()
	RemoveStale(ctx context.Context, age time.Duration) (removed int, err error)
	Close() error
}

var _ storage = (*local.Backend)(nil)

// open opens the repository without a lock and without its index.
func (a *app) open(ctx context.Context) (*repo.Repo, error) {
	dir, err := a.location()
	if err != nil {
		return nil, err
	}
	be, err := a.openFolder(ctx, dir)
	if err == nil { // before a prompt for the password
		bad := repo.CheckConfig(ctx, be)
		if errors.Is(bad, repo.ErrNotFound) || bad != nil && foreignRepository(dir) != "" {
			err = errors.Join(repo.ErrNotFound, be.Close())
		}
	}
	if err != nil {
		return nil, openError(dir, err)
	}
	r, err := a.unlock(ctx, be, opening{dir: dir, hint: a.givenKeyHint(), ways: repoPassword, given: a.givenSecret, keyring: true, rescue: a.rescue})
	if err != nil {
		return nil, err
	}
	a.store = be
	if damage := r.ConfigDamage(); damage != nil && a.command != "repair config" {
		a.warn("%v; a good copy of it was used; \"snap repair config\" puts the copy in place", damage)
	}
	return r, nil
}

// staleAfter is the age at which a temporary file counts as left by a killed run.
// Writing a file never takes that long.
const staleAfter = 24 * time.Hour

// removeStale removes temporary files that killed runs left. A failure does not stop
// the command.
func (a *app) removeStale(ctx context.Context) {
	if _, err := a.store.RemoveStale(ctx, staleAfter); err != nil && ctx.Err() == nil {
		a.warn("%v", err)
	}
}

func openError(dir string, err error) error {
	if isA[usageError](err) {
		return err // it is about what was given, not about the folder
	}
	if errors.Is(err, os.ErrNotExist) && !errors.Is(err, repo.ErrDamaged) {
		err = repo.ErrNotFound
	}
	if errors.Is(err, repo.ErrNotFound) {
		if address := checkAddress(dir); address != nil {
			return address
		}
	}
	if program := foreignRepository(dir); program != "" {
		return foreignError(dir, program, err)
	}
	return fmt.Errorf("%s: %w", dir, err)
}
