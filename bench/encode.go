package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
)

// programs is an encoder that runs xz and xdelta3.
type programs struct{}

// maxDictionary is the maximum window of xz and xdelta3, in bytes.
const maxDictionary = 512 << 20

// window returns the size of a window for a file. A larger window would not compress
// better, and setting it up for each of thousands of files would take time.
func window(size int64) string {
	w := int64(1 << 19) // the minimum of xdelta3
	for w < size && w < maxDictionary {
		w *= 2
	}
	return strconv.FormatInt(w, 10)
}

// compress uses the older format .lzma, which adds 13 bytes to the data. The format .xz
// adds about 60.
func (programs) compress(ctx context.Context, name string, size int64) (int64, error) {
	return outputSize(exec.CommandContext(ctx, "xz", "--format=lzma", "--lzma1=preset=9,dict="+window(size), "--stdout", "--keep", "--", name))
}

func (programs) delta(ctx context.Context, old, name string) (int64, error) {
	info, err := os.Stat(old)
	if err != nil {
		return 0, err
	}
	return outputSize(exec.CommandContext(ctx, "xdelta3", "-e", "-9", "-S", "lzma", "-n", "-A", "-B", window(info.Size()), "-c", "-s", old, name))
}

func (programs) compressAll(ctx context.Context, names []string) (int64, error) {
	cmd := exec.CommandContext(ctx, "xz", "--format=lzma", "-9", "--stdout")
	r, w := io.Pipe()
	cmd.Stdin = r
	go func() { w.CloseWithError(concatenate(w, names)) }()
	defer r.Close()
	return outputSize(cmd)
}

func concatenate(w io.Writer, names []string) error {
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		_, err = io.Copy(w, f)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// outputSize runs a command and returns the length of its output.
func outputSize(cmd *exec.Cmd) (int64, error) {
	var n countWriter
	var errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &n, &errs
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("%s: %w: %s", cmd.Args[0], err, bytes.TrimSpace(errs.Bytes()))
	}
	return int64(n), nil
}

type countWriter int64

func (c *countWriter) Write(p []byte) (int, error) {
	*c += countWriter(len(p))
	return len(p), nil
}
