package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"unicode"
	"unicode/utf8"

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
			counted, finish := &countingWriter{w: a.stdout}, func() error { return nil }
			if a.onTerminal() {
				text := &textOnly{w: a.stdout}
				counted.w, finish = text, text.finish
			}
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
			if err != nil {
				return err
			}
			return finish()
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

// onTerminal reports whether standard output is a terminal.
func (a *app) onTerminal() bool {
	w := a.stdout
	if o, ok := w.(*output); ok {
		w = o.w
	}
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// textOnly refuses bytes that a terminal could obey. Only UTF-8 passes: some terminals obey
// the byte 9B, for example, like ESC and a bracket.
type textOnly struct {
	w    io.Writer
	rest []byte // the beginning of a character, or a carriage return: what follows decides
}

func (t *textOnly) Write(b []byte) (int, error) {
	all := slices.Concat(t.rest, b)
	end := textEnd(all)
	if end < 0 {
		return 0, errBinary
	}
	t.rest = slices.Clone(all[end:])
	if _, err := t.w.Write(all[:end]); err != nil {
		return 0, err
	}
	return len(b), nil
}

// finish refuses what would only be harmless if more followed.
func (t *textOnly) finish() error {
	if len(t.rest) > 0 {
		return errBinary
	}
	return nil
}

// textEnd returns how many bytes a terminal may get before more are known, or -1 if it could
// obey some of them.
func textEnd(b []byte) int {
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		switch {
		case !utf8.FullRune(b[i:]), r == '\r' && i+1 == len(b):
			return i
		case r == utf8.RuneError && n == 1, r == '\r' && b[i+1] != '\n', r != '\r' && obeyed(r):
			return -1
		}
		i += n
	}
	return len(b)
}

// obeyed reports whether a terminal could do something else than show a character.
func obeyed(r rune) bool {
	return unicode.IsControl(r) && r != '\n' && r != '\t' || unicode.Is(unicode.Bidi_Control, r)
}
