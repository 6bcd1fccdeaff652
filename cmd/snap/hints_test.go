package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/snap-backup/snap/device/protocol/backup2"
	"github.com/spf13/cobra"
)

var (
	// quotedCommand matches a command line in quotes, as messages show it.
	quotedCommand = regexp.MustCompile("\"(snap\\s[^\"`]*)\"|`(snap\\s[^`]*)`")
	// bareFlag matches a flag; a pattern such as --keep-… is none.
	bareFlag = regexp.MustCompile(`(?:^|[^-\w"])--([a-z][a-z-]*[a-z])(?:[^-a-z…]|$)`)
	verb     = regexp.MustCompile(`%\[?[0-9]*\]?[sdvqx]`)
)

// newTree returns commands whose flags are not set.
func newTree() *cobra.Command {
	a := &app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard}
	return a.rootCommand()
}

// fields splits a command line as a shell does.
func fields(line string) []string {
	var out []string
	var word strings.Builder
	quote, begun := rune(0), false
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, begun = r, true
		case r == ' ':
			if begun {
				out = append(out, word.String())
			}
			word.Reset()
			begun = false
		default:
			word.WriteRune(r)
			begun = true
		}
	}
	if begun {
		out = append(out, word.String())
	}
	return out
}

// followCommand returns an error if there is no such command, or if it lacks one of the
// flags. If complete is set, the command must also accept the arguments.
func followCommand(line string, complete bool) error {
	root := newTree()
	line = strings.TrimSpace(line)
	words := fields(verb.ReplaceAllString(line, "x"))[1:]
	if len(words) > 0 && words[0] == "help" {
		cmd, rest, err := root.Find(words[1:])
		if err == nil {
			err = suggest(cmd, rest)
		}
		return err
	}
	cmd, rest, err := root.Find(words)
	if err != nil {
		return err
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	if cmd == root {
		return fmt.Errorf("%q names no command", line)
	}
	if !complete && !cmd.HasSubCommands() {
		return nil
	}
	return cmd.ValidateArgs(cmd.Flags().Args())
}

// hasFlag reports whether a command, or every command if cmd is nil, has a flag.
func hasFlag(cmd *cobra.Command, name string) bool {
	if name == "help" {
		return true
	}
	if cmd == nil {
		return newTree().PersistentFlags().Lookup(name) != nil
	}
	cmd.InitDefaultHelpFlag()
	return cmd.Flags().Lookup(name) != nil || cmd.InheritedFlags().Lookup(name) != nil
}

// commandsIn returns the command lines in quotes, and the text without them.
func commandsIn(text string) (lines []string, rest string) {
	for _, m := range quotedCommand.FindAllStringSubmatch(text, -1) {
		lines = append(lines, strings.ReplaceAll(m[1]+m[2], "\n", " "))
	}
	return lines, quotedCommand.ReplaceAllString(text, `"…"`)
}

func flagsIn(text string) (names []string) {
	for {
		at := bareFlag.FindStringSubmatchIndex(text)
		if at == nil {
			return names
		}
		names = append(names, text[at[2]:at[3]])
		text = text[at[3]:]
	}
}

// followHint reports advice of a command that cannot be followed as printed. cmd is nil
// if any command may print it.
func followHint(t *testing.T, cmd *cobra.Command, text string, complete bool) {
	t.Helper()
	lines, rest := commandsIn(text)
	for _, line := range lines {
		if err := followCommand(line, complete); err != nil {
			t.Errorf("%q: %q: %v", text, line, err)
		}
	}
	for _, name := range flagsIn(rest) {
		if !hasFlag(cmd, name) {
			where := "some commands"
			if cmd != nil {
				where = cmd.CommandPath()
			}
			t.Errorf("%q: %s have no --%s", text, where, name)
		}
	}
}

// The tests below notice advice that cannot be followed.
func TestBadAdviceIsNoticed(t *testing.T) {
	t.Parallel()
	for line, complete := range map[string]bool{
		"snap frobnicate": false, "snap backup --frobnicate": false, "snap help frobnicate": false, "snap key frobnicate": false,
		"snap unpin": true, "snap materialize latest": true, "snap restore latest more": true,
	} {
		if err := followCommand(line, complete); err == nil {
			t.Errorf("%q is accepted", line)
		}
	}
	if hasFlag(nil, "allow-incomplete") || !hasFlag(nil, "retry-lock") {
		t.Error("global flags are confused with those of a command")
	}
	lines, rest := commandsIn("try \"snap a --bb\", `snap c` or --dd; not --ee-…")
	if !slices.Equal(lines, []string{"snap a --bb", "snap c"}) || !slices.Equal(flagsIn(rest), []string{"dd"}) {
		t.Errorf("found %q and %q", lines, flagsIn(rest))
	}
}

// Every hint of an error can be followed as printed, by the command that failed.
func TestHintsCanBeFollowed(t *testing.T) {
	t.Parallel()
	for _, group := range kinds {
		for _, k := range group {
			followHint(t, nil, k.hint, true)
		}
	}
	for code := range int64(300) {
		followHint(t, nil, (&backup2.DeviceError{Code: code}).Hint(), true)
	}
	for _, h := range commandHints {
		cmd, rest, err := newTree().Find(strings.Fields(h.command))
		if err != nil || len(rest) > 0 {
			t.Errorf("a hint for the command %q: %v", h.command, err)
			continue
		}
		followHint(t, cmd, h.hint, true)
		if !slices.ContainsFunc(errorExamples, func(err error) bool { _, hint := classify(h.command, err); return hint == h.hint }) {
			t.Errorf("no error gives %q the hint %q", h.command, h.hint)
		}
	}
	// A wrong command line has a hint that names the command.
	for _, command := range []string{"", "backup", "device pair"} {
		_, hint := classify(command, usageError{fs.ErrInvalid})
		followHint(t, nil, hint, true)
	}
}

// walkCommands calls fn for a command and all below it.
func walkCommands(cmd *cobra.Command, fn func(*cobra.Command)) {
	fn(cmd)
	for _, c := range cmd.Commands() {
		walkCommands(c, fn)
	}
}

// The help of a command names only flags of that command, and commands that exist.
func TestHelpCanBeFollowed(t *testing.T) {
	t.Parallel()
	walkCommands(newTree(), func(cmd *cobra.Command) {
		if cmd.Name() == "completion" || cmd.HasParent() && cmd.Parent().Name() == "completion" {
			return // cobra's own
		}
		text := cmd.Short + "\n" + cmd.Long
		followHint(t, cmd, strings.ReplaceAll(text, "\n", " "), false)
		for line := range strings.Lines(cmd.LocalFlags().FlagUsages()) {
			followHint(t, cmd, line, false)
		}
		for line := range strings.Lines(cmd.Long + "\n" + cmd.Example) {
			followLine(t, line)
		}
	})
}

// followLine checks a line that begins with a command, as in examples.
func followLine(t *testing.T, line string) {
	t.Helper()
	line = strings.TrimRight(line, "\n")
	command := strings.TrimPrefix(strings.TrimLeft(line, " "), "$ ")
	if !strings.HasPrefix(line, " ") || !strings.HasPrefix(command, "snap ") {
		return
	}
	for _, end := range []string{"  ", " #", " && ", ";"} {
		command, _, _ = strings.Cut(command, end)
	}
	if err := followCommand(command, false); err != nil {
		t.Errorf("%q: %v", line, err)
	}
}

// userDocuments are the documents whose commands users paste into a shell.
var userDocuments = []string{"../../README.md", "../../docs/guide.md", "../../docs/devices.md", "../../docs/recipes.md", "../../docs/restic.md"}

// The documents for users show commands that exist, with flags that they have.
func TestDocumentedCommandsExist(t *testing.T) {
	t.Parallel()
	inline := regexp.MustCompile("`(snap [^`]*)`")
	for _, name := range append([]string{"../../docs/json.md", "../../CONTRIBUTING.md"}, userDocuments...) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			followLine(t, line)
		}
		for _, m := range inline.FindAllStringSubmatch(strings.ReplaceAll(string(b), "\n", " "), -1) {
			err := followCommand(strings.ReplaceAll(m[1], "…", "X"), false)
			if err != nil && !strings.Contains(err.Error(), "flag needs an argument") { // a flag's name
				t.Errorf("%s: %q: %v", filepath.Base(name), m[1], err)
			}
		}
	}
}

// What docs/restic.md says of restic's flags and commands still holds: snap has none of those
// with "none", and all with "same". Each part names the commands of snap in its heading.
func TestComparisonWithResticHolds(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../docs/restic.md")
	if err != nil {
		t.Fatal(err)
	}
	code := regexp.MustCompile("`([^`]+)`")
	var cmds []*cobra.Command
	rows := 0
	for line := range strings.Lines(string(b)) {
		if heading, ok := strings.CutPrefix(line, "## "); ok {
			cmds = nil
			_, names, _ := strings.Cut(strings.TrimSpace(heading), ": ")
			for name := range strings.SplitSeq(names, ", ") {
				if cmd, rest, err := newTree().Find(strings.Fields(strings.TrimPrefix(name, "snap "))); err == nil && len(rest) == 0 && name != "" {
					cmds = append(cmds, cmd)
				}
			}
		}
		cells := strings.Split(line, " | ")
		if len(cells) < 3 || !strings.HasPrefix(cells[0], "| `") {
			continue
		}
		same, none := strings.HasPrefix(cells[1], "same"), cells[1] == "none"
		for _, m := range code.FindAllStringSubmatch(cells[0], -1) {
			if !same && !none || strings.Contains(m[1], "RESTIC") {
				continue
			}
			rows++
			if has := hasWhatResticHas(cmds, m[1]); has != same {
				t.Errorf("docs/restic.md says %q of restic's %q: snap has it: %v", cells[1], m[1], has)
			}
		}
	}
	if rows < 100 {
		t.Errorf("found only %d flags and commands", rows)
	}
}

// hasWhatResticHas reports whether one of the commands, or snap itself, has a flag or
// command of restic, such as "--path", "find" or "ls --long".
func hasWhatResticHas(cmds []*cobra.Command, name string) bool {
	if name == "-r" {
		return newTree().PersistentFlags().ShorthandLookup("r") != nil
	}
	command, flag, withFlag := strings.Cut(name, "--")
	if words := strings.Fields(strings.ToLower(command)); len(words) > 0 {
		cmd, rest, err := newTree().Find(words)
		if err != nil || !cmd.HasParent() || cmd.Name() == "cat" && !strings.Contains(cmd.Use, rest[0]) {
			return false
		}
		cmds = []*cobra.Command{cmd}
	}
	if !withFlag {
		return len(cmds) > 0
	}
	flag = strings.Fields(flag)[0]
	if len(cmds) == 0 {
		return hasFlag(nil, flag)
	}
	return slices.ContainsFunc(cmds, func(c *cobra.Command) bool { return hasFlag(c, flag) })
}

// pasteProblem says why a line of a code block does not do in zsh, the shell of macOS, what
// it does in other shells. Typed into zsh, # begins no comment, a word that begins with = is
// replaced by the path of a program, and a pattern that matches no file is an error.
func pasteProblem(line string) string {
	if strings.HasPrefix(line, "$ ") {
		return "the prompt would be pasted, too"
	}
	quote, before := rune(0), ' '
	for _, r := range line {
		switch {
		case quote != 0:
			if r == quote {
				quote = 0
			}
		case r == '\'' || r == '"':
			if before != '\\' {
				quote = r
			}
		case r == '#' && before == ' ':
			return "zsh takes a comment for arguments"
		case r == '=' && before == ' ':
			return "zsh expands a word that begins with ="
		case strings.ContainsRune("*?[", r):
			return "zsh takes this for a pattern of file names"
		}
		before = r
	}
	if quote != 0 {
		return "a quotation mark is not closed"
	}
	return ""
}

// shellLine matches a line of a code block that people paste.
var shellLine = regexp.MustCompile(`^(\$ )?(snap|source|export|go|cd|git|mkdir|chmod|chgrp|find|sudo|launchctl|restic|crontab|cp|mv|umask|printf|cat|unset) `)

// The commands in the code blocks of the documents can be pasted into zsh.
func TestDocumentedCommandsCanBePasted(t *testing.T) {
	t.Parallel()
	for line, bad := range map[string]bool{
		"snap key list   # all": true, "$ snap key list": true, "snap check --read-data =20": true, "snap ls *": true, "snap ls latest:\"Anna": true,
		"snap ls latest:\"Anna's iPhone\"": false, "snap check --read-data=3%": false, "snap note 1a '#1'": false,
	} {
		if got := pasteProblem(line); (got != "") != bad {
			t.Errorf("%q: %q", line, got)
		}
	}
	pasted := 0
	for _, name := range userDocuments {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for line := range strings.Lines(string(b)) {
			n++
			code, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "    ")
			if code = strings.TrimLeft(code, " "); !ok || !shellLine.MatchString(code) {
				continue
			}
			pasted++
			if problem := pasteProblem(code); problem != "" {
				t.Errorf("%s:%d: %q: %s", filepath.Base(name), n, code, problem)
			}
		}
	}
	if pasted < 100 {
		t.Errorf("only %d commands were found", pasted)
	}
}

// Every message names commands that exist, with flags that they have. A flag without a
// command belongs to a command of the same file, or to all commands. Packages that do not
// know which command uses them name no flag without its command.
func TestMessagesCanBeFollowed(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	walkCommands(newTree(), func(cmd *cobra.Command) {
		for _, name := range flagsIn(cmd.Flags().FlagUsages()) {
			known[name] = true
		}
	})
	for name := range flagNames(newTree()) {
		known[name] = true
	}
	global := map[string]bool{} // flags that every command has
	for _, name := range flagsIn(newTree().PersistentFlags().FlagUsages()) {
		global[name] = true
	}
	messages := 0
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch rel, _ := filepath.Rel("../..", path); {
		case d.IsDir() && slices.Contains([]string{"device/simulator", "repo/backend/proxytest", "repo/backend/resttest", "repo/backend/s3test", "bench", "tools", "testdata", ".git"}, filepath.ToSlash(rel)):
			return fs.SkipDir
		case d.IsDir(), !strings.HasSuffix(path, ".go"), strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		own := global
		if file.Name.Name == "main" {
			own = flagsOfFile(file, known)
		}
		if file.Name.Name == "rclone" { // its arguments of rclone
			own = map[string]bool{"stdio": true, "cache-objects": true, "ask-password": true}
		}
		for _, text := range literals(file) {
			messages++
			lines, rest := commandsIn(text)
			if piece := strings.TrimSpace(text); strings.HasPrefix(piece, "snap ") && strings.Contains(piece, " --") {
				lines, rest = append(lines, strings.Split(piece, "\n")...), "" // examples, or the beginning of a command
			} else if name, ok := strings.CutPrefix(piece, "--"); ok && known[name] {
				rest = "" // a piece of a command
			}
			for _, line := range lines {
				if line == "snap help %s" { // TestHintsCanBeFollowed has it
					continue
				}
				if err := followCommand(line, false); err != nil {
					t.Errorf("%s: %q: %q: %v", path, text, line, err)
				}
			}
			for _, flag := range flagsIn(rest) {
				if !own[flag] {
					t.Errorf("%s: %q: no command here has --%s", path, text, flag)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if messages < 1000 {
		t.Errorf("only %d texts were found", messages)
	}
}

// flagNames returns the names of the flags of a command and of those below it.
func flagNames(cmd *cobra.Command) map[string]bool {
	out := map[string]bool{}
	if cmd == nil {
		return out
	}
	walkCommands(cmd, func(c *cobra.Command) {
		for _, f := range []string{c.LocalFlags().FlagUsages(), c.InheritedFlags().FlagUsages()} {
			for _, name := range flagsIn(f) {
				out[name] = true
			}
		}
	})
	return out
}

// flagsOfFile returns the flags of the commands that a file of cmd/snap makes. Files that
// make no command may name any flag; TestHintsCanBeFollowed judges the hints.
func flagsOfFile(file *ast.File, known map[string]bool) map[string]bool {
	var names []string
	ast.Inspect(file, func(n ast.Node) bool {
		if field, ok := n.(*ast.KeyValueExpr); ok {
			if key, ok := field.Key.(*ast.Ident); ok && key.Name == "Use" {
				if use, ok := field.Value.(*ast.BasicLit); ok {
					text, _ := strconv.Unquote(use.Value)
					names = append(names, strings.Fields(text)[0])
				}
			}
		}
		return true
	})
	if len(names) == 0 {
		return known
	}
	out := map[string]bool{}
	walkCommands(newTree(), func(cmd *cobra.Command) {
		if slices.Contains(names, cmd.Name()) {
			for name := range flagNames(cmd) {
				out[name] = true
			}
		}
	})
	return out
}

// literals returns the texts in a file.
func literals(file *ast.File) (texts []string) {
	ast.Inspect(file, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if text, err := strconv.Unquote(lit.Value); err == nil {
				texts = append(texts, text)
			}
		}
		if field, ok := n.(*ast.Field); ok && field.Tag != nil {
			return false
		}
		return true
	})
	return texts
}
