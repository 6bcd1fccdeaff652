package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/repo/repotest"
)

var updateDocs = flag.Bool("update-docs", false, "write the sample output in the documents anew")

var (
	// outputMarker is the line before a sample of what a command prints.
	outputMarker = regexp.MustCompile(`^<!-- output of: (snap .*?)(?:, first ([0-9]+) lines)? -->$`)
	sampleID     = regexp.MustCompile(`\b[0-9a-f]{8}(?:[0-9a-f]{56})?\b`)
	sampleNumber = regexp.MustCompile(`[0-9][0-9.,:]*[0-9]|[0-9]`)
	sampleUnit   = regexp.MustCompile(`0 ([KMGT]i)?B\b`)
	sampleBar    = regexp.MustCompile(`█+`)
)

// docSample is what a document shows as the output of a command.
type docSample struct {
	line    int // of the marker, from 0
	command string
	first   int // how many lines of the output it shows, or 0 for all
	begin   int // its lines in the document
	end     int
}

// samplesIn finds the samples in a document. Each is the indented block after a marker.
func samplesIn(lines []string) (found []docSample) {
	for i, line := range lines {
		m := outputMarker.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		s := docSample{line: i, command: m[1], begin: i + 1}
		s.first, _ = strconv.Atoi(m[2])
		for s.begin < len(lines) && lines[s.begin] == "" {
			s.begin++
		}
		for j := s.begin; j < len(lines) && (lines[j] == "" || strings.HasPrefix(lines[j], "    ")); j++ {
			if lines[j] != "" {
				s.end = j + 1
			}
		}
		s.end = max(s.end, s.begin)
		found = append(found, s)
	}
	return found
}

// withoutValues replaces what differs from one repository to the next: IDs, numbers, sizes
// and the widths of columns.
func withoutValues(text string) string {
	text = sampleID.ReplaceAllString(text, "ID")
	text = sampleNumber.ReplaceAllString(text, "0")
	text = sampleUnit.ReplaceAllString(text, "0 B")
	text = sampleBar.ReplaceAllString(text, "█")
	var out []string
	for line := range strings.Lines(text) {
		out = append(out, strings.Join(strings.Fields(line), " "))
	}
	return strings.Join(out, "\n")
}

// sampleRepository is a repository with three days of two devices. Its commands run at 8
// o'clock of the day after.
type sampleRepository struct {
	t         *testing.T
	dir       string
	processes byte
}

func (s *sampleRepository) run(now time.Time, args ...string) string {
	s.t.Helper()
	s.processes++
	o := repotest.Options(s.processes)
	o.Now, o.PackSize = repotest.Clock(now, time.Millisecond), 0 // packs of the usual size
	var out, messages bytes.Buffer
	a := &app{stdin: strings.NewReader(""), stdout: &out, stderr: &messages, options: o}
	args = append(args, "-r", filepath.Join(s.dir, "phones"), "--password-file", filepath.Join(s.dir, "password"))
	if code := a.run(context.Background(), args); code != 0 && code != exitAttention {
		s.t.Fatalf("snap %q: exit code %d: %s%s", args, code, &out, &messages)
	}
	return strings.ReplaceAll(out.String(), s.dir, "/Volumes/Backup")
}

func newSampleRepository(t *testing.T) *sampleRepository {
	s := &sampleRepository{t: t, dir: t.TempDir()}
	if err := os.WriteFile(filepath.Join(s.dir, "password"), []byte("sesame\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	scale := "tiny"
	if *updateDocs {
		scale = "small"
	}
	folder := filepath.Join(s.dir, "MobileSync")
	for day := 1; day <= 3; day++ {
		now := time.Date(2026, 1, 4+day, 8, 0, 0, 0, time.UTC)
		if day == 1 {
			s.run(now, "init")
		}
		if err := os.RemoveAll(folder); err != nil {
			t.Fatal(err)
		}
		s.run(now, "generate", "--scale", scale, "--devices", "2", "--days", strconv.Itoa(day), folder)
		s.run(now, "import", folder)
	}
	return s
}

// output returns what a command prints. The command gets a copy of the repository, so it
// does not matter which commands ran before.
func (s *sampleRepository) output(command string) string {
	copied := &sampleRepository{t: s.t, dir: s.t.TempDir(), processes: 100}
	for _, name := range []string{"phones", "MobileSync"} {
		if err := copyWithTimes(filepath.Join(s.dir, name), filepath.Join(copied.dir, name)); err != nil {
			s.t.Fatal(err)
		}
	}
	password, err := os.ReadFile(filepath.Join(s.dir, "password"))
	if err == nil {
		err = os.WriteFile(filepath.Join(copied.dir, "password"), password, 0o600)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return copied.run(time.Date(2026, 1, 8, 8, 0, 0, 0, time.UTC), fields(command)[1:]...)
}

// show returns the lines that a document has for an output.
func (s docSample) show(output string) (lines []string) {
	lines = strings.Split(strings.TrimRight(output, "\n"), "\n")
	if s.first > 0 && s.first < len(lines) {
		lines = append(lines[:s.first:s.first], "…")
	}
	for i, line := range lines {
		if line != "" {
			lines[i] = "    " + line
		}
	}
	return lines
}

// Each sample of output in the documents has the form that the command prints today.
// Their IDs, numbers and sizes may differ: -update-docs writes those of larger devices.
func TestDocsShowWhatCommandsPrint(t *testing.T) {
	made := newSampleRepository(t)
	outputs, samples := map[string]string{}, 0
	for _, name := range userDocuments {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(b), "\n")
		for _, s := range slices.Backward(samplesIn(lines)) { // the last one first, so that line numbers stay valid
			samples++
			if !slices.Contains(lines[:s.line], "    "+s.command) {
				t.Errorf("%s:%d: no code block before the sample has the command %q", name, s.line+1, s.command)
			}
			if _, ok := outputs[s.command]; !ok {
				outputs[s.command] = made.output(s.command)
			}
			want, shown := s.show(outputs[s.command]), lines[s.begin:s.end]
			if *updateDocs {
				lines = slices.Concat(lines[:s.begin], want, lines[s.end:])
				continue
			}
			if a, b := withoutValues(strings.Join(shown, "\n")), withoutValues(strings.Join(want, "\n")); a != b {
				t.Errorf("%s:%d shows for %q\n%s\nbut it prints\n%s\n(go test ./cmd/snap -run TestDocsShow -update-docs writes it anew)",
					name, s.line+1, s.command, strings.Join(shown, "\n"), strings.Join(want, "\n"))
			}
		}
		if !*updateDocs {
			continue
		}
		if err := os.WriteFile(name, []byte(strings.Join(lines, "\n")), 0o644); err != nil { //nolint:gosec // a document
			t.Fatal(err)
		}
	}
	if samples < 6 {
		t.Errorf("found only %d samples of output", samples)
	}
}

func TestSamplesAreCompared(t *testing.T) {
	t.Parallel()
	text := "A\n\n    snap x\n\n<!-- output of: snap x, first 2 lines -->\n\n    aa889514  56.7 MiB  2,300\n\n    b\n    …\n\nB"
	found := samplesIn(strings.Split(text, "\n"))
	if len(found) != 1 || found[0].command != "snap x" || found[0].first != 2 || found[0].begin != 6 || found[0].end != 10 {
		t.Fatalf("found %+v", found)
	}
	if got := withoutValues("aa889514  56.7 MiB  2,300\n 02776ac0 472 B 7 █"); got != withoutValues("fb37540a 1.2 KiB 5\n02776ac0 1.0 GiB 127 ████") {
		t.Errorf("values remain in %q", got)
	}
	if withoutValues("3 files") == withoutValues("3 folders") {
		t.Error("words are not compared")
	}
	if got := fmt.Sprint(docSample{first: 1}.show("a\nb\n")); got != "[    a …]" && got != "[    a     …]" {
		t.Errorf("a shortened sample is %s", got)
	}
}
