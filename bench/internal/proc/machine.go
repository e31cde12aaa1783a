//go:build linux

package proc

import (
	"bytes"
	"os"
	"runtime"
	"strings"
)

// Machine is the kind of machine this is. It says nothing that names it.
type Machine struct {
	CPU    string // model
	Cores  int    // that this process may use
	Kernel string // release
	Memory int64  // bytes
}

// This is the machine that we run on; what cannot be read stays empty.
func This() Machine {
	m := Machine{Cores: runtime.NumCPU(), CPU: runtime.GOARCH}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		m.CPU = model(b, m.CPU)
	}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(b))
	}
	if b, err := os.ReadFile("/proc/meminfo"); err == nil {
		m.Memory, _ = kilobytes(b, "MemTotal:")
	}
	return m
}

// model finds the CPU's name in /proc/cpuinfo.
func model(cpuinfo []byte, otherwise string) string {
	for line := range bytes.Lines(cpuinfo) {
		if name, value, ok := bytes.Cut(line, []byte(":")); ok && string(bytes.TrimSpace(name)) == "model name" {
			return strings.Join(strings.Fields(string(value)), " ")
		}
	}
	return otherwise
}
