package pipeline

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// MetricReadFixes is the baseline child's count of fixes that its reader has seen.
const MetricReadFixes = "baseline_read_fixes_total"

// progress is how far a child's consumers are, in fixes, and whether everything
// the tracker has published is searchable.
type progress struct {
	fixes   int64
	visible bool
}

// consumed asks a child how far its consumers are.
func (c *child) consumed(ctx context.Context, kind Kind) (progress, error) {
	m, err := c.Metrics(ctx)
	if err != nil {
		return progress{}, err
	}
	if kind == BaselineWhole {
		return progress{int64(m[MetricReadFixes]), true}, nil
	}
	return progress{
		fixes:   int64(m["starling_tracker_fixes_total"]),
		visible: m["starling_matcher_records_total"] >= m["starling_tracker_records_total"],
	}, nil
}

// heapByPackage reads a heap profile in its text form and sums what is live by the
// package that allocated it: the innermost frame of a stack that is in one of the
// packages. Samples are scaled as pprof does it: an object of s bytes is sampled
// with probability 1 - exp(-s/rate).
func heapByPackage(r io.Reader, packages map[string]string) (map[string]float64, error) {
	live := map[string]float64{}
	rate := 0.0
	var bytes float64 // of the stack that is being read
	counted := true
	settle := func() {
		if !counted {
			live["other"] += bytes
		}
		counted = true
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "heap profile:"):
			_, after, _ := strings.Cut(line, "@ heap/")
			doubled, err := strconv.ParseFloat(after, 64)
			if err != nil {
				return nil, fmt.Errorf("heap profile begins with %q", line)
			}
			rate = doubled / 2
		case line == "" || strings.HasPrefix(line, "# runtime"):
			settle()
		case line[0] == '#':
			if name := packageOf(line, packages); name != "" && !counted {
				live[name] += bytes
				counted = true
			}
		case strings.Contains(line, " @ "):
			settle()
			var objects, size float64
			if _, err := fmt.Sscanf(line, "%f: %f [", &objects, &size); err != nil {
				return nil, fmt.Errorf("heap profile has %q: %w", line, err)
			}
			bytes, counted = 0, objects == 0
			if objects > 0 {
				bytes = size / (1 - math.Exp(-size/objects/rate))
			}
		}
	}
	settle()
	if rate == 0 {
		return nil, fmt.Errorf("heap profile has no header")
	}
	return live, lines.Err()
}

// packageOf names the package of a frame.
func packageOf(frame string, packages map[string]string) string {
	for prefix, name := range packages {
		if strings.Contains(frame, prefix) {
			return name
		}
	}
	return ""
}
