package filtereval

import (
	"fmt"
	"io"

	"github.com/starling-fleet/starling/gpsfilter"
)

// ConstantsHeader begins the table that WriteConstants writes.
const ConstantsHeader = `# The filter's constants

Every number that the position filter computes with, from ` + "`gpsfilter/constants.go`" + `. A test keeps this table and the code together, and numbers out of the other files. The last columns say by how many per cent the clean ratios to raw at 1 Hz (p50 / p95, all kinds, drives of the development half) change with half and with one and a half of the constant; minus is better. Written by ` + "`go run ./internal/filtereval/filtereval -constants docs/gpsfilter-constants.md`" + `.

| constant | value | unit | source | meaning | half | one and a half |
|---|---|---|---|---|---|---|
`

// ConstantLine is the part of a constant's line that does not need drives.
func ConstantLine(c gpsfilter.Constant) string {
	return fmt.Sprintf("| %s | %g | %s | %s | %s |", c.Name, c.Value, c.Unit, c.Source, c.Meaning)
}

// WriteConstants writes the table of constants with the effect of half and one
// and a half of each.
func WriteConstants(w io.Writer, streams []Stream, f *gpsfilter.Filter) error {
	var clean []*run
	for i := range streams {
		clean = append(clean, newRun(&streams[i], Every(streams[i].Fixes, 1000)))
	}
	ratios := func(f *gpsfilter.Filter) (p50, p95 float64) {
		runs := judge(clean, Starling(f))
		return total(runs, p50raw), total(runs, p95raw)
	}
	base50, base95 := ratios(f)
	if _, err := io.WriteString(w, ConstantsHeader); err != nil {
		return err
	}
	for _, c := range f.Constants() {
		line := ConstantLine(c)
		for _, k := range [...]float64{0.5, 1.5} {
			g, err := f.With(c.Name, k*c.Value)
			if err != nil {
				return err
			}
			p50, p95 := ratios(g)
			line += fmt.Sprintf(" %+.1f / %+.1f |", 100*(p50/base50-1), 100*(p95/base95-1))
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}
