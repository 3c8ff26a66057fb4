// Package report is the one form in which load tests and drills report what
// they measured: on which machine, by which command, of which build, the
// figures, and the goals that were missed.
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Result is what one command measures.
type Result interface {
	// String is the result as text or Markdown.
	fmt.Stringer
	// Misses names each goal that was missed, with figure and bound.
	Misses() []string
}

// Report is a result with what is needed to judge and repeat it.
type Report struct {
	// Command repeats the measurement.
	Command string  `json:"command"`
	Machine Machine `json:"machine"`
	Result  Result  `json:"result"`
	// Misses are those of Result.
	Misses []string `json:"misses"`
}

// New makes a report.
func New(command []string, machine Machine, result Result) Report {
	return Report{Command: strings.Join(command, " "), Machine: machine, Result: result, Misses: result.Misses()}
}

// WriteText writes the report for people.
func (r Report) WriteText(w io.Writer) error {
	if _, err := fmt.Fprintf(w, "`%s` on %s.\n\n%s", r.Command, r.Machine, r.Result); err != nil {
		return err
	}
	for _, miss := range r.Misses {
		if _, err := fmt.Fprintf(w, "\nMISSED: %s.\n", miss); err != nil {
			return err
		}
	}
	return nil
}

// WriteJSON writes the report for programs.
func (r Report) WriteJSON(w io.Writer) error {
	out := json.NewEncoder(w)
	out.SetIndent("", "  ")
	return out.Encode(r)
}

// Number is what medians are taken of.
type Number interface {
	~int | ~int64 | ~float64
}

// Median returns the median of what `of` returns for each of all: the mean of
// the two in the middle if there is no one there, and 0 if there are none.
func Median[T any, N Number](all []T, of func(T) N) N {
	values := make([]N, len(all))
	for i, x := range all {
		values[i] = of(x)
	}
	slices.Sort(values)
	n := len(values)
	if n == 0 {
		return 0
	}
	return (values[(n-1)/2] + values[n/2]) / 2
}

// Micros is a duration in microseconds.
func Micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
