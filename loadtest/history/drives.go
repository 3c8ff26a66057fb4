// Package history measures the sinks of history by themselves: bytes per fix of
// recorded drives, and rows per second.
package history

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/loadtest/recorded"
	"github.com/starling-fleet/starling/schemas/limits"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker/step"
)

// startMS is when all drives begin, so that they are a fleet under way at one time:
// an hour of 2026-03-02 UTC.
const startMS = 1772427600000

// drives reads the drives whose files match patterns, each begun at startMS, in the
// order in which a fleet would report them.
func drives(dir string, patterns []string) ([]recorded.Fix, error) {
	var all []recorded.Fix
	for _, pattern := range patterns {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			if matched, _ := filepath.Match("*.truth.csv.gz", filepath.Base(file)); matched {
				continue
			}
			fixes, err := readDrive(file)
			if err != nil {
				return nil, err
			}
			all = append(all, fixes...)
		}
	}
	slices.SortStableFunc(all, func(a, b recorded.Fix) int { return cmp.Compare(a.Fix.DeviceTimeMS, b.Fix.DeviceTimeMS) })
	return all, nil
}

// readDrive reads a file; each of its vehicles begins at startMS. Of one time only the
// first fix is taken.
func readDrive(file string) ([]recorded.Fix, error) {
	all, err := recorded.Read(file)
	if err != nil {
		return nil, err
	}
	name := strings.TrimSuffix(filepath.Base(file), ".csv.gz")
	begins := map[string]int64{}
	seen := map[string]int64{}
	var out []recorded.Fix
	for _, r := range all {
		fix := r.Fix
		vehicle := name + "-" + r.Vehicle
		vehicle = vehicle[max(0, len(vehicle)-limits.MaxVehicleIDBytes):]
		if _, ok := begins[vehicle]; !ok {
			begins[vehicle] = fix.DeviceTimeMS
		} else if fix.DeviceTimeMS <= seen[vehicle] {
			continue
		}
		seen[vehicle] = fix.DeviceTimeMS
		fix.DeviceTimeMS += startMS - begins[vehicle]
		out = append(out, recorded.Fix{Vehicle: vehicle, Fix: fix})
	}
	return out, nil
}

// rowsOf runs drives through the tracker's step, one report a fix in one partition,
// and returns the truth of each fix.
func rowsOf(fixes []recorded.Fix) ([]row.Fix, error) {
	p, err := step.NewPartition(step.DefaultSettings(), 1)
	if err != nil {
		return nil, err
	}
	var rows []row.Fix
	sequences := map[string]int64{}
	appendMS := int64(0)
	for i := range fixes {
		f := &fixes[i]
		sequences[f.Vehicle]++
		loc := wire.Location{Kind: wire.KindReport, Report: wire.Report{SessionID: 1, Sequence: sequences[f.Vehicle], Fixes: []wire.Fix{f.Fix}}}
		appendMS = max(appendMS, f.Fix.DeviceTimeMS+300)
		res, err := p.Step(step.Record{Offset: int64(i), AppendTimeMS: appendMS, Key: []byte(f.Vehicle), Value: loc.Append(nil)})
		if err != nil {
			return nil, err
		}
		if res.Poison != nil {
			return nil, fmt.Errorf("the step refuses a report of %s: %w", f.Vehicle, res.Poison)
		}
		rows = row.Append(rows, 0, f.Vehicle, res.Track)
	}
	// The last windows close by the ticks of a silent partition.
	for i := range 120 {
		appendMS += 1000
		tick := wire.Location{Kind: wire.KindTick}
		res, err := p.Step(step.Record{Offset: int64(len(fixes) + i), AppendTimeMS: appendMS, Value: tick.Append(nil)})
		if err != nil {
			return nil, err
		}
		rows = row.Append(rows, 0, "", res.Track)
	}
	return row.Dedup(rows), nil
}
