package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// helpWidth is the width of help texts without a terminal, and of those that are written
// in the source.
const helpWidth = 80

// usage prints how a command is called. It does what Cobra's function does, but wraps
// the flags to the width of the terminal.
func (a *app) usage(c *cobra.Command) error {
	w, columns := c.OutOrStderr(), helpWidth
	if n := columnsOf(a.human()); n > 0 {
		columns = n
	}
	fmt.Fprint(w, "Usage:")
	if c.Runnable() && c.HasParent() {
		fmt.Fprintf(w, "\n  %s", c.UseLine())
	}
	if c.HasAvailableSubCommands() {
		fmt.Fprintf(w, "\n  %s COMMAND", c.CommandPath())
	}
	fmt.Fprintln(w)
	if c.HasExample() {
		fmt.Fprintf(w, "\nExamples:\n%s\n", c.Example)
	}
	commands := func(title, group string) {
		for _, sub := range c.Commands() {
			if sub.GroupID != group || !sub.IsAvailableCommand() && sub.Name() != "help" {
				continue
			}
			if title != "" {
				fmt.Fprintf(w, "\n%s\n", title)
				title = ""
			}
			fmt.Fprintf(w, "  %-*s  %s\n", sub.NamePadding(), sub.Name(), sub.Short)
		}
	}
	for _, g := range c.Groups() {
		commands(g.Title, g.ID)
	}
	if len(c.Groups()) > 0 {
		commands("More:", "")
	} else {
		commands("Commands:", "")
	}
	flags := func(title string, set *pflag.FlagSet) {
		if set.HasAvailableFlags() {
			fmt.Fprintf(w, "\n%s\n%s\n", title, strings.TrimRight(set.FlagUsagesWrapped(columns), " \n"))
		}
	}
	flags("Flags:", c.LocalFlags())
	flags("Flags of all commands:", c.InheritedFlags())
	if c.HasAvailableSubCommands() {
		fmt.Fprintf(w, "\n\"%s COMMAND\" explains a command.\n", strings.Replace(c.CommandPath(), "snap", "snap help", 1))
	}
	return nil
}
