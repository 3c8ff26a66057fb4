package check

import (
	"fmt"
	"sort"
	"strings"
)

// maxExamples is how many findings of a kind are kept in words.
const maxExamples = 5

// Findings are what is off, by kind: the number, and the first in words.
type Findings struct {
	counts   map[string]int64
	examples map[string][]string
}

// Add notes one finding.
func (f *Findings) Add(kind, format string, args ...any) {
	if f.counts == nil {
		f.counts, f.examples = map[string]int64{}, map[string][]string{}
	}
	f.counts[kind]++
	if len(f.examples[kind]) < maxExamples {
		f.examples[kind] = append(f.examples[kind], fmt.Sprintf(format, args...))
	}
}

// Count is the number of findings of a kind.
func (f *Findings) Count(kind string) int64 { return f.counts[kind] }

// Merge adds another's findings.
func (f *Findings) Merge(other *Findings) {
	for kind, n := range other.counts {
		for _, e := range other.examples[kind] {
			f.Add(kind, "%s", e)
		}
		f.counts[kind] += n - int64(len(other.examples[kind]))
	}
}

// None reports whether nothing is off.
func (f *Findings) None() bool { return len(f.counts) == 0 }

// String lists the findings by kind.
func (f *Findings) String() string {
	kinds := make([]string, 0, len(f.counts))
	for k := range f.counts {
		kinds = append(kinds, k)
	}
	sort.Strings(kinds)
	var b strings.Builder
	for _, k := range kinds {
		fmt.Fprintf(&b, "OFF: %s: %d\n", k, f.counts[k])
		for _, e := range f.examples[k] {
			fmt.Fprintf(&b, "     %s\n", e)
		}
	}
	return b.String()
}
