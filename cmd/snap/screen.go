package main

import (
	"bytes"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/term"
)

// screen is standard output or standard error for text that people read. On a terminal
// it breaks lines at words. Elsewhere it does not, so that programs find a message on one
// line.
type screen struct {
	w       io.Writer
	colours func(*os.File) bool // whether to use colours in the file
	file    *os.File            // nil if it is no file

	mu   sync.Mutex
	held []byte // the beginning of a line
}

func newScreen(w io.Writer, to io.Writer, colours func(*os.File) bool) *screen {
	f, _ := to.(*os.File)
	return &screen{w: w, file: f, colours: colours}
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	columns := terminalWidth(s.file)
	if columns == 0 {
		return s.w.Write(b)
	}
	s.held = append(s.held, b...)
	end := bytes.LastIndexByte(s.held, '\n') + 1
	var out strings.Builder
	for line := range strings.Lines(string(s.held[:end])) {
		for _, part := range wrap(strings.TrimRight(line, "\n"), columns) {
			out.WriteString(part + "\n")
		}
	}
	s.held = bytes.Clone(s.held[end:])
	if _, err := io.WriteString(s.w, out.String()); err != nil {
		return 0, err
	}
	return len(b), nil
}

// flush writes a line that has not ended.
func (s *screen) flush() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// A failure is reported by the output below.
	_, _ = s.w.Write(s.held)
	s.held = nil
}

// verbatim returns a writer that does not wrap lines: paths and rows of tables stay whole.
func verbatim(w io.Writer) io.Writer {
	if s, ok := w.(*screen); ok {
		s.flush()
		return s.w
	}
	return w
}

// columnsOf returns the width of the terminal that w writes to, or 0 if it is none.
func columnsOf(w io.Writer) int {
	if s, ok := w.(*screen); ok {
		return terminalWidth(s.file)
	}
	return 0
}

// narrowest is the least width that lines are broken for. On a narrower terminal they
// would be broken after almost every word.
const narrowest = 40

// terminalWidth returns the number of columns of a terminal, or 0 if f is none.
func terminalWidth(f *os.File) int {
	if f == nil {
		return 0
	}
	columns, _, err := term.GetSize(int(f.Fd()))
	if err != nil || columns <= 0 {
		return 0
	}
	return max(columns, narrowest)
}

// human returns standard output for text that people read.
func (a *app) human() io.Writer {
	if a.screen != nil {
		return a.screen
	}
	return a.stdout
}

// messages returns standard error for text that people read.
func (a *app) messages() io.Writer {
	if a.errScreen != nil {
		return a.errScreen
	}
	return a.stderr
}
