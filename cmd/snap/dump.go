package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"unicode"

	"github.com/snap-backup/snap/repo"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func (a *app) dumpCommand() *cobra.Command {
	var source backupPassword
	var offset, length int64
	cmd := &cobra.Command{
		Use:   "dump SNAPSHOT DOMAIN/PATH",
		Short: "Write one file of a snapshot to standard output",
		Long: `Writes a file as it is on the device, and nothing else, to standard output. Only
the parts of the repository that the file needs are read. --offset and --length
choose a range of bytes.

DOMAIN/PATH is what "snap ls" prints. It can also be a path of the backup folder
such as Manifest.db, or the 40 digits that name the file there.

Files of encrypted backups come out decrypted. If the snapshot was stored
locked, that needs the backup password: from the flags, SNAP_BACKUP_PASSWORD or
the repository ("snap device password set"), or it asks for it.

Bytes that a terminal could obey are not written to one: use > FILE.`,
		Example: "  snap dump latest HomeDomain/Library/SMS/sms.db > sms.db\n  snap dump latest:iPad HomeDomain/Library/Notes/notes.txt | less",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, argv []string) error {
			if offset < 0 || length < 0 {
				return usageError{errors.New("--offset and --length take numbers from 0 on")}
			}
			v, closeLook, err := a.openLook(cmd, argv[0], source)
			if err != nil {
				return err
			}
			defer closeLook()
			f, err := v.File(cmd.Context(), argv[1])
			if err != nil {
				return err
			}
			c, err := f.Open(cmd.Context())
			if err != nil {
				return err
			}
			counted := &countingWriter{w: a.rawOutput()}
			if offset == 0 && !cmd.Flags().Changed("length") {
				_, err = io.Copy(counted, c)
			} else {
				n := int64(math.MaxInt64) - offset
				if cmd.Flags().Changed("length") {
					n = min(n, length)
				}
				_, err = io.Copy(counted, io.NewSectionReader(c, offset, n))
			}
			if errors.Is(err, repo.ErrDamaged) {
				return fmt.Errorf("%s ends after %s: %w", f.FullName(), plural(counted.n, "byte"), err)
			}
			return err
		},
	}
	cmd.Flags().Int64Var(&offset, "offset", 0, "begin at this `byte`, counted from 0")
	cmd.Flags().Int64Var(&length, "length", 0, "write at most this many `bytes`")
	source.register(cmd)
	return cmd
}

// countingWriter counts the bytes that were written.
type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// errBinary says that a terminal could obey what should be written to it.
var errBinary = errors.New("the file has bytes that a terminal could obey, so it is not written to one")

// rawOutput returns standard output for the content of files.
func (a *app) rawOutput() io.Writer {
	w := a.stdout
	if o, ok := w.(*output); ok {
		w = o.w
	}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return textOnly{a.stdout}
	}
	return a.stdout
}

// textOnly refuses bytes that a terminal could obey.
type textOnly struct{ w io.Writer }

func (t textOnly) Write(b []byte) (int, error) {
	if i := bytes.IndexFunc(b, obeyed); i >= 0 {
		return 0, errBinary
	}
	return t.w.Write(b)
}

// obeyed reports whether a terminal could do something else than show a character.
func obeyed(r rune) bool {
	return unicode.IsControl(r) && r != '\n' && r != '\t' && r != '\r' || unicode.Is(unicode.Bidi_Control, r)
}
