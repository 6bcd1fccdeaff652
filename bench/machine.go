package main

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
)

// machine describes the computer. It has no host name.
type machine struct {
	System string `json:"system"` // name, kernel and architecture
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Memory int64  `json:"memory_bytes"` // 0 if unknown
	Load   string `json:"load"`         // of 1, 5 and 15 minutes, when the run began
}

func thisMachine(ctx context.Context) machine {
	m := machine{System: runtime.GOOS + "/" + runtime.GOARCH, CPU: "unknown", Cores: runtime.NumCPU(), Load: "unknown"}
	if out := outputOf(ctx, "uname", "-s", "-r", "-m"); out != "" {
		m.System = out
	}
	if runtime.GOOS == "darwin" {
		m.CPU = outputOf(ctx, "sysctl", "-n", "machdep.cpu.brand_string")
		m.Memory, _ = strconv.ParseInt(outputOf(ctx, "sysctl", "-n", "hw.memsize"), 10, 64)
		m.Load = strings.Trim(outputOf(ctx, "sysctl", "-n", "vm.loadavg"), "{ }")
		return m
	}
	if name := procField("/proc/cpuinfo", "model name"); name != "" {
		m.CPU = name
	}
	if kb, _, _ := strings.Cut(procField("/proc/meminfo", "MemTotal"), " "); kb != "" {
		n, _ := strconv.ParseInt(kb, 10, 64)
		m.Memory = n << 10
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.Load = strings.Join(strings.Fields(string(b))[:3], " ")
	}
	return m
}

// outputOf returns the output of a program, or "" if it fails.
func outputOf(ctx context.Context, name string, args ...string) string {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// procField returns the first value of a field in a file of lines "name: value".
func procField(file, field string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, value, ok := strings.Cut(lines.Text(), ":")
		if ok && strings.TrimSpace(name) == field {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
