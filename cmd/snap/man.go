package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// manResult is the output of "generate man".
type manResult struct {
	Folder string   `json:"folder"`
	Pages  []string `json:"pages"` // names of files
}

// generateManCommand writes man pages for packages of snap.
func (a *app) generateManCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "man FOLDER",
		Short: "Write a man page for each command",
		Long: `Writes a man page of section 1 for each command into a folder, which must exist.
SOURCE_DATE_EPOCH, if it is set, is the date of the pages.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, argv []string) error {
			if err := checkFolder(argv[0]); err != nil {
				return err
			}
			res := manResult{Folder: argv[0], Pages: []string{}}
			if err := res.write(cmd.Root()); err != nil {
				return err
			}
			return a.conclude(res, false, func(w io.Writer) {
				fmt.Fprintf(w, "wrote %s to %s\n", plural(len(res.Pages), "man page"), argv[0])
			})
		},
	}
}

// write writes the pages of a command and its subcommands.
func (r *manResult) write(cmd *cobra.Command) error {
	name := manName(cmd)
	f, err := os.Create(filepath.Join(r.Folder, name))
	if err != nil {
		return err
	}
	cmd.DisableAutoGenTag = true // no line about the tool that wrote the page
	header := &doc.GenManHeader{Section: "1", Source: "snap " + version, Manual: "snap"}
	err = doc.GenMan(cmd, header, f)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("write the man page %s: %w", name, err)
	}
	r.Pages = append(r.Pages, name)
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			if err := r.write(c); err != nil {
				return err
			}
		}
	}
	return nil
}

// manName returns the file name of a command's page, such as snap-device-info.1.
func manName(cmd *cobra.Command) string {
	return strings.ReplaceAll(cmd.CommandPath(), " ", "-") + ".1"
}
