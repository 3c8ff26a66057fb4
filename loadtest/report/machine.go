package report

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
)

// Machine is where and of what was measured. A figure without it means nothing.
type Machine struct {
	OS       string `json:"os"`
	Arch     string `json:"arch"`
	CPUModel string `json:"cpu_model"`
	Cores    int    `json:"cores"`
	// MemoryBytes is the machine's memory; 0 where it is not known.
	MemoryBytes int64  `json:"memory_bytes"`
	Go          string `json:"go"`
	// Starling is the measured build's own description, with its commit.
	Starling string `json:"starling"`
	// SharedBy names what ran on the same cores.
	SharedBy string `json:"shared_by"`
}

// ThisMachine describes this machine and the measured build. Starling is the
// command line of its binary, without a subcommand; an empty one means
// that the measured server runs elsewhere.
func ThisMachine(ctx context.Context, starling []string, sharedBy string) Machine {
	m := Machine{
		OS: runtime.GOOS, Arch: runtime.GOARCH, CPUModel: "unknown CPU", Cores: runtime.NumCPU(),
		Go: runtime.Version(), Starling: "unknown build", SharedBy: sharedBy,
	}
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		m.CPUModel = cpuModel(string(info))
	}
	if info, err := os.ReadFile("/proc/meminfo"); err == nil {
		m.MemoryBytes = memoryBytes(string(info))
	}
	if len(starling) > 0 {
		out, err := exec.CommandContext(ctx, starling[0], append(starling[1:len(starling):len(starling)], "version")...).Output()
		if err == nil {
			m.Starling = strings.TrimSpace(string(out))
		}
	}
	return m
}

// cpuModel reads proc_cpuinfo(5). Arm names no model: its implementer and part
// numbers do.
func cpuModel(cpuinfo string) string {
	fields := map[string]string{}
	for line := range strings.Lines(cpuinfo) {
		name, value, ok := strings.Cut(line, ":")
		if name = strings.TrimSpace(name); ok && fields[name] == "" {
			fields[name] = strings.TrimSpace(value)
		}
	}
	switch {
	case fields["model name"] != "":
		return fields["model name"]
	case fields["CPU part"] != "":
		return fmt.Sprintf("Arm implementer %s part %s", fields["CPU implementer"], fields["CPU part"])
	}
	return "unknown CPU"
}

// memoryBytes reads MemTotal of proc_meminfo(5).
func memoryBytes(meminfo string) int64 {
	for line := range strings.Lines(meminfo) {
		if rest, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err == nil {
				return kib << 10
			}
		}
	}
	return 0
}

// String is the description in one line.
func (m Machine) String() string {
	memory := "unknown memory"
	if m.MemoryBytes > 0 {
		memory = fmt.Sprintf("%.1f GiB", float64(m.MemoryBytes)/(1<<30))
	}
	return fmt.Sprintf("%s/%s, %s, %d cores shared by %s, %s, %s; %s", m.OS, m.Arch, m.CPUModel, m.Cores, m.SharedBy, memory, m.Go, m.Starling)
}
