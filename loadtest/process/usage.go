package process

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

// clockTicksPerSecond is USER_HZ, which Linux fixes at 100 for /proc.
const clockTicksPerSecond = 100

// CPU is the time that the process has used so far, in user and system mode
// (proc_pid_stat(5), fields 14 and 15). It needs Linux.
func (p *Process) CPU() (time.Duration, error) {
	path := fmt.Sprintf("/proc/%d/stat", p.PID())
	stat, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read the CPU time of %s (Linux only): %w", p.spec.Name, err)
	}
	// The second field is the program's name in brackets and may hold blanks.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("%s has %d fields after the name", path, len(fields))
	}
	user, uerr := strconv.ParseInt(fields[11], 10, 64)
	system, serr := strconv.ParseInt(fields[12], 10, 64)
	if uerr != nil || serr != nil {
		return 0, fmt.Errorf("%s can't be read", path)
	}
	return time.Duration(user+system) * time.Second / clockTicksPerSecond, nil
}

// Memory reads a size such as VmRSS from proc_pid_status(5), in bytes; -1 where
// there is none.
func (p *Process) Memory(field string) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return -1
	}
	_, after, _ := strings.Cut(string(text), "\n"+field+":")
	sizes := strings.Fields(after)
	if len(sizes) == 0 {
		return -1
	}
	kib, err := strconv.ParseInt(sizes[0], 10, 64)
	if err != nil {
		return -1
	}
	return kib << 10
}

// Metrics returns the process's metrics, each summed over its labels.
func (p *Process) Metrics(ctx context.Context) (map[string]float64, error) {
	body, err := p.Get(ctx, "/metrics")
	if err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	defer body.Close()
	return parseMetrics(body)
}

// parseMetrics reads Prometheus's text format.
func parseMetrics(r io.Reader) (map[string]float64, error) {
	sums := map[string]float64{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		blank := strings.LastIndexByte(line, ' ')
		if blank < 0 {
			return nil, fmt.Errorf("metrics have the line %q", line)
		}
		value, err := strconv.ParseFloat(line[blank+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("metrics have the line %q: %w", line, err)
		}
		name, _, _ := strings.Cut(line[:blank], "{")
		sums[name] += value
	}
	return sums, lines.Err()
}
