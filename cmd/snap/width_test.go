package main

import (
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestWrap(t *testing.T) {
	for _, test := range []struct {
		name, line string
		want       []string
	}{
		{"short", "no snapshots", []string{"no snapshots"}},
		{"message", "snap: warning: the disk has no room left", []string{"snap: warning: the disk has no", "      room left"}},
		{"hint", "      free some space and try again", []string{"      free some space and try", "      again"}},
		{"mark", "  !! the newest backup is too old by far", []string{"  !! the newest backup is too", "     old by far"}},
		{"label", "space         17 MiB in the repository", []string{"space         17 MiB in the", "              repository"}},
		{"command", `then run "snap check --read-data" again`, []string{"then run", `  "snap check --read-data"`, "  again"}},
		{"long command", `run "snap repair --from COPY --missing-snapshots"`, []string{`run "snap repair --from COPY`, `  --missing-snapshots"`}},
		{"long word", "wrote /Volumes/Backup/phones/restored/today: 3 files", []string{"wrote", "  /Volumes/Backup/phones/restored/today:", "  3 files"}},
		{"wide", "電話 電話 電話 電話 電話 電話 電話 電話", []string{"電話 電話 電話 電話 電話 電話", "  電話 電話"}},
		{"colours", "snap: " + escape + "33mwarning:" + escape + "0m the disk has room", []string{"snap: " + escape + "33mwarning:" + escape + "0m the disk has", "      room"}},
		{"size", "snapshots need, in all, 17.1 MiB of it", []string{"snapshots need, in all,", "  17.1 MiB of it"}},
		{"two spaces", "a  b", []string{"a  b"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			columns := 30
			if test.name == "wide" || test.name == "colours" {
				columns = 29
			}
			got := wrap(test.line, columns)
			if !slices.Equal(got, test.want) {
				t.Errorf("got\n%q\nwant\n%q", got, test.want)
			}
		})
	}
}

// FuzzWrap checks that only spaces change, and that a line is longer than the terminal
// only if no break would make it shorter: what precedes its last piece takes no more
// columns than the indent of the next line would.
func FuzzWrap(f *testing.F) {
	f.Add("snap: warning: run \"snap check\" again", uint8(40))
	f.Add("label   \"text", uint8(50))
	f.Fuzz(func(t *testing.T, line string, columns uint8) {
		line = plain(clean(line))
		n := max(int(columns), narrowest)
		parts := wrap(line, n)
		if got, want := strings.Fields(strings.Join(parts, " ")), strings.Fields(line); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		for _, part := range parts {
			if width(part) <= n {
				continue
			}
			indent := hanging(line, n)
			words := pieces(part, n-indent)
			last := words[len(words)-1]
			if before := strings.TrimSuffix(part, last); width(before) > indent {
				t.Errorf("%q is longer than %d columns", part, n)
			}
		}
	})
}

// A table that is wider than the terminal moves, drops and shortens columns in this
// order, as their marks allow.
func TestFitTable(t *testing.T) {
	for columns, want := range map[int]string{
		80: "NAME           SIZE  MODEL            LINK   NOTE\n" +
			"Anna’s iPhone     5  iPhone 13 mini   cable  before the repair\n" +
			"Pad               7  iPad (10th gen)\n",
		50: "NAME           SIZE  MODEL            LINK\n" +
			"Anna’s iPhone     5  iPhone 13 mini   cable\n" +
			"               NOTE: before the repair\n" +
			"Pad               7  iPad (10th gen)\n",
		40: "NAME           SIZE  MODEL\n" +
			"Anna’s iPhone     5  iPhone 13 mini\n" +
			"               NOTE: before the repair\n" +
			"Pad               7  iPad (10th gen)\n",
		33: "NAME           SIZE  MODEL\n" +
			"Anna’s iPhone     5  iPhone 13 m…\n" +
			"               NOTE: before the\n" +
			"               repair\n" +
			"Pad               7  iPad (10th …\n",
	} {
		text := tableOf("NAME\t>SIZE\t<MODEL\t-LINK\t+NOTE", []string{"Anna’s iPhone\t5\tiPhone 13 mini\tcable\tbefore the repair", "Pad\t7\tiPad (10th gen)\t\t"})
		var out strings.Builder
		text.fit(columns)
		text.print(&out, columns)
		if out.String() != want {
			t.Errorf("%d columns: got\n%s", columns, out.String())
		}
	}
}

// Every line of every help text fits a terminal of 80 columns.
func TestHelpFits(t *testing.T) {
	a := &app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard}
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		var out strings.Builder
		cmd.SetOut(&out)
		cmd.InitDefaultHelpFlag()
		if err := cmd.Help(); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(out.String()) {
			if n := width(strings.TrimRight(line, "\n")); n > helpWidth {
				t.Errorf("help of %s: %d columns: %s", cmd.CommandPath(), n, line)
			}
		}
		for _, sub := range cmd.Commands() {
			if sub.Name() != "completion" { // Cobra's text
				walk(sub)
			}
		}
	}
	walk(a.rootCommand())
}
