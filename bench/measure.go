package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// sample is the resource usage of one step. For a step with several commands (one
// per device), it has the sums of their times and the largest of their peaks.
type sample struct {
	Wall time.Duration `json:"wall_ns"`
	CPU  time.Duration `json:"cpu_ns"`     // user and system
	Peak int64         `json:"peak_bytes"` // resident memory
}

// plus returns the usage of two commands of one step.
func (s sample) plus(t sample) sample {
	return sample{s.Wall + t.Wall, s.CPU + t.CPU, max(s.Peak, t.Peak)}
}

// rawSample is the report of the starter.
type rawSample struct {
	sample
	Exit  int    `json:"exit"`
	Error string `json:"error,omitempty"`
}

// command is a command line with its environment.
type command struct {
	args  []string
	env   []string // complete
	dir   string
	stdin io.Reader
}

const (
	maxOutput = 16 << 20 // bytes of a program's output that are kept for parsing
	maxErrors = 4 << 10  // bytes of its error output that are shown if it fails
)

// measure runs a command and returns its resource usage and standard output. An exit
// code other than 0 is an error.
func (c command) measure(ctx context.Context) (sample, []byte, error) {
	fail := func(err error) (sample, []byte, error) {
		return sample{}, nil, fmt.Errorf("run %s: %w", strings.Join(c.args, " "), err)
	}
	self, err := os.Executable()
	if err != nil {
		return fail(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fail(err)
	}
	defer r.Close()
	out, errs := limited{max: maxOutput}, limited{max: maxErrors, last: true}
	cmd := exec.CommandContext(ctx, self, c.args...)
	cmd.Env = append(c.env[:len(c.env):len(c.env)], starterEnv+"=1")
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = c.dir, c.stdin, &out, &errs
	cmd.ExtraFiles = []*os.File{w}
	ownGroup(cmd)
	err = cmd.Run()
	w.Close()
	if err != nil {
		return fail(fmt.Errorf("starter: %w: %s", err, errs.text()))
	}
	var raw rawSample
	if err := json.NewDecoder(io.LimitReader(r, maxErrors)).Decode(&raw); err != nil {
		return fail(fmt.Errorf("report of the starter: %w", err))
	}
	switch {
	case raw.Error != "":
		return fail(errors.New(raw.Error))
	case raw.Exit != 0:
		return fail(fmt.Errorf("exit code %d: %s", raw.Exit, errs.text()))
	case out.dropped:
		return fail(fmt.Errorf("printed more than %d bytes", maxOutput))
	}
	return raw.sample, out.Bytes(), nil
}

// limited keeps the first or the last bytes written to it.
type limited struct {
	bytes.Buffer
	max     int
	last    bool
	dropped bool
}

func (l *limited) Write(p []byte) (int, error) {
	n := len(p)
	if l.last {
		l.Buffer.Write(p[max(0, n-l.max):])
		if extra := l.Len() - l.max; extra > 0 {
			l.Next(extra)
			l.dropped = true
		}
		return n, nil
	}
	room := min(n, l.max-l.Len())
	l.Buffer.Write(p[:room])
	l.dropped = l.dropped || room < n
	return n, nil
}

func (l *limited) text() string { return strings.TrimSpace(l.String()) }

// diskUsage returns the total size of the files in a folder. Files with several hard
// links count once.
func diskUsage(dir string) (int64, error) {
	var total int64
	seen := map[[2]uint64]bool{}
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if key, linked := fileKey(info); linked {
			if seen[key] {
				return nil
			}
			seen[key] = true
		}
		total += info.Size()
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("size of %s: %w", dir, err)
	}
	return total, nil
}

// installed returns the programs that are in PATH.
func installed(names ...string) []string {
	return slices.DeleteFunc(names, func(name string) bool {
		_, err := exec.LookPath(name)
		return err != nil
	})
}

// fileList returns the names of the files in a folder, each followed by a zero byte.
func fileList(dir string) (string, error) {
	var names bytes.Buffer
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			names.WriteString(path)
			names.WriteByte(0)
		}
		return err
	})
	return names.String(), err
}
