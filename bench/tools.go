package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// params are the parameters of a command. All paths are absolute.
type params struct {
	repo   string // folder of the repository
	home   string // folder of the program's settings and caches
	folder string // name of a device's backup folder, in the working folder of store
	label  string // label of the day, such as day3
	before string // label of the day before, empty on the first
	id     string // ID of a snapshot
	target string // where to restore to
}

// tool describes a backup program and its command lines. The command lines use the
// program's default settings, except for those named in about.
type tool struct {
	name        string
	about       string // for the report: settings and missing features
	program     string // path
	version     []string
	versionText string // first line that version prints

	env     func(p params) []string
	create  func(p params) [][]string
	store   func(p params) []string // runs in the folder of the backup folders
	list    func(p params) []string // prints the snapshot of a device and day; nil if no ID is needed
	parseID func(printed []byte) (string, error)
	restore func(p params) []string // runs in target and makes target/folder
	check   func(p params) []string // nil if the program has none
	listAll func(p params) []string // prints all snapshots; nil if the program has no list
	// These are for -distant; nil if the program is not compared there.
	createDistant func() []string // makes a repository, and its bucket
	structure     func() []string // checks what there is without reading all data
	prune         func(keep int) []string
	// history adds n snapshots with known content to a repository. Nil if only store can.
	history func(ctx context.Context, repo string, n int) error
}

// secret is the password of all repositories. Their contents are not secret.
const secret = "bench"

// snapName is the name of the only tool that bench builds.
const snapName = "snap"

// allTools lists the tools in the order of the report's columns.
func allTools() []tool {
	return []tool{snapTool(), resticTool(), borgTool(), kopiaTool(), rsyncTool()}
}

func toolNames() []string {
	var names []string
	for _, t := range allTools() {
		names = append(names, t.name)
	}
	return names
}

// findTools returns the tools in c.tools, or all installed tools if it is nil. missing
// has the names of tools that are not installed.
func findTools(ctx context.Context, c config) (found []*tool, missing []string, err error) {
	for _, name := range c.tools {
		if !slices.Contains(toolNames(), name) {
			return nil, nil, fmt.Errorf("no tool %q: want some of %s", name, strings.Join(toolNames(), ","))
		}
	}
	for _, t := range allTools() {
		if c.tools != nil && !slices.Contains(c.tools, t.name) {
			continue
		}
		if err := t.locate(ctx, c); errors.Is(err, exec.ErrNotFound) && c.tools == nil && c.paths[t.name] == "" {
			missing = append(missing, t.name)
			continue
		} else if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", t.name, err)
		}
		found = append(found, &t)
	}
	return found, missing, nil
}

// locate finds or builds the program and gets its version.
func (t *tool) locate(ctx context.Context, c config) error {
	t.program = c.paths[t.name]
	if t.program == "" && t.name == snapName {
		t.program = filepath.Join(c.dir, "snap")
		// Unlike "go build", "go run" caches the linked program. Linking takes seconds.
		build := exec.CommandContext(ctx, "go", "run", "-exec", "cp", "github.com/snap-backup/snap/cmd/snap", t.program)
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build: %w: %s", err, out)
		}
	} else {
		program := t.program
		if program == "" {
			program = t.name
		}
		path, err := exec.LookPath(program)
		if err != nil {
			return err
		}
		if t.program, err = filepath.Abs(path); err != nil {
			return err
		}
	}
	cmd := exec.CommandContext(ctx, t.program, t.version...)
	cmd.Env = baseEnv(c.dir)
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("version: %w", err)
	}
	t.versionText, _, _ = strings.Cut(strings.TrimSpace(string(out)), "\n")
	return nil
}

// baseEnv returns the environment of every program, without the user's settings.
func baseEnv(home string) []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + os.TempDir(), "LANG=C.UTF-8"}
}

// command returns a command of the tool.
func (t *tool) command(args []string, p params, dir string) command {
	return command{
		args: append([]string{t.program}, args...),
		env:  append(baseEnv(p.home), t.env(p)...),
		dir:  dir,
	}
}

// describe returns the tool's command lines by step, for the report.
func (t *tool) describe() map[string]string {
	p := params{repo: "REPO", home: "HOME", folder: "UDID", label: "DAY", before: "DAYBEFORE", id: "ID", target: "TARGET"}
	line := func(args []string) string { return strings.Join(append([]string{t.name}, args...), " ") }
	var create []string
	for _, args := range t.create(p) {
		create = append(create, line(args))
	}
	out := map[string]string{"import": line(t.store(p)), "restore": line(t.restore(p))}
	if len(create) > 0 {
		out["create"] = strings.Join(create, "; ")
	}
	if t.check != nil {
		out["check"] = line(t.check(p))
	}
	return out
}

// snapshotID returns the snapshot ID of a stored day. No step includes the time that
// this takes.
func (t *tool) snapshotID(ctx context.Context, p params, dir string) (string, error) {
	if t.list == nil {
		return "", nil
	}
	_, out, err := t.command(t.list(p), p, dir).measure(ctx)
	if err != nil {
		return "", err
	}
	id, err := t.parseID(out)
	if err != nil {
		return "", fmt.Errorf("%s: snapshot %s of %s: %w", t.name, p.label, p.folder, err)
	}
	return id, nil
}
