package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// Every command that the help lists has a man page, and the page has its flags.
func TestManPages(t *testing.T) {
	t.Parallel()
	root := (&app{}).rootCommand()
	res := manResult{Folder: t.TempDir()}
	if err := res.write(root); err != nil {
		t.Fatal(err)
	}
	commands := 0
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		if cmd.Hidden || cmd.Name() == "help" || cmd.IsAdditionalHelpTopicCommand() {
			return
		}
		commands++
		page, err := os.ReadFile(filepath.Join(res.Folder, manName(cmd)))
		if err != nil {
			t.Error(err)
			return
		}
		if !strings.Contains(string(page), ".SH SYNOPSIS") {
			t.Errorf("the page of %q has no synopsis", cmd.CommandPath())
		}
		if cmd.Name() == "backup" && !strings.Contains(string(page), `--jobs`) {
			t.Errorf("the page of %q lacks a flag: %s", cmd.CommandPath(), page)
		}
		for _, c := range cmd.Commands() {
			visit(c)
		}
	}
	visit(root)
	if extra := len(res.Pages) - commands; extra != 0 {
		t.Errorf("%d pages for %d commands", len(res.Pages), commands)
	}
}
