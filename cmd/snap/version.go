package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/snap-backup/snap/repo"
	"github.com/spf13/cobra"
)

// version is the version of the program; a release build sets it with
// -ldflags "-X main.version=…".
var version = "0.1.0-dev"

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of snap and of its repository format",
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return a.printVersion() },
	}
}

// printVersion prints the version, as "snap version" and "snap --version" do.
func (a *app) printVersion() error {
	result := struct {
		Version  string `json:"version"`
		Revision string `json:"revision,omitempty"`
		Format   int    `json:"format"`
		Go       string `json:"go"`
		Platform string `json:"platform"`
	}{Version: version, Format: repo.FormatVersion, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				result.Revision = s.Value
			}
		}
	}
	return a.print(result, func(w io.Writer) {
		fmt.Fprintf(w, "snap %s (repository format %d, %s, %s)\n", result.Version, result.Format, result.Go, result.Platform)
	})
}
