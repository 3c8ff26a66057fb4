// Package history measures the sinks of history by themselves: bytes per fix of
// recorded drives, and rows per second.
package history

import (
	"bufio"
	"cmp"
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/schemas/limits"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker/step"
)

// recorded is a fix of a drive.
type recorded struct {
	vehicle string
	fix     wire.Fix
}

// startMS is when all drives begin, so that they are a fleet under way at one time:
// an hour of 2026-03-02 UTC.
const startMS = 1772427600000

// drives reads the drives whose files match patterns, each begun at startMS, in the
// order in which a fleet would report them.
func drives(dir string, patterns []string) ([]recorded, error) {
	var all []recorded
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
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			all = append(all, fixes...)
		}
	}
	slices.SortStableFunc(all, func(a, b recorded) int { return cmp.Compare(a.fix.DeviceTimeMS, b.fix.DeviceTimeMS) })
	return all, nil
}

// readDrive reads a file; each of its vehicles begins at startMS. Of one time only the
// first fix is taken.
func readDrive(file string) ([]recorded, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	zipped, err := gzip.NewReader(bufio.NewReader(f))
	if err != nil {
		return nil, err
	}
	in := csv.NewReader(zipped)
	in.FieldsPerRecord, in.ReuseRecord = -1, true
	if _, err := in.Read(); err != nil {
		return nil, err
	}
	name := strings.TrimSuffix(filepath.Base(file), ".csv.gz")
	begins := map[string]int64{}
	seen := map[string]int64{}
	var out []recorded
	for {
		r, err := in.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		fix, err := parse(r)
		if err != nil {
			return nil, err
		}
		vehicle := name + "-" + r[0]
		vehicle = vehicle[max(0, len(vehicle)-limits.MaxVehicleIDBytes):]
		if _, ok := begins[vehicle]; !ok {
			begins[vehicle] = fix.DeviceTimeMS
		} else if fix.DeviceTimeMS <= seen[vehicle] {
			continue
		}
		seen[vehicle] = fix.DeviceTimeMS
		fix.DeviceTimeMS += startMS - begins[vehicle]
		out = append(out, recorded{vehicle, fix})
	}
}

// parse reads vehicle_id,unix_ms,lat,lon,accuracy_m,speed_mps,heading_deg.
func parse(r []string) (fix wire.Fix, err error) {
	number := func(i int) (v float64, ok bool) {
		if i >= len(r) || r[i] == "" {
			return 0, false
		}
		v, fault := strconv.ParseFloat(r[i], 64)
		err = errors.Join(err, fault)
		return v, true
	}
	ms, _ := number(1)
	fix.DeviceTimeMS = int64(ms)
	fix.LatDeg, _ = number(2)
	fix.LonDeg, _ = number(3)
	optional := func(i int, bit wire.Has, to *float32) {
		if v, ok := number(i); ok {
			fix.Has |= bit
			*to = float32(v)
		}
	}
	optional(4, wire.HasAccuracy, &fix.AccuracyM)
	optional(5, wire.HasSpeed, &fix.SpeedMPS)
	optional(6, wire.HasHeading, &fix.HeadingDeg)
	return fix, err
}

// rowsOf runs drives through the tracker's step, one report a fix in one partition,
// and returns the truth of each fix.
func rowsOf(fixes []recorded) ([]row.Fix, error) {
	p, err := step.NewPartition(step.DefaultSettings(), 1)
	if err != nil {
		return nil, err
	}
	var rows []row.Fix
	sequences := map[string]int64{}
	appendMS := int64(0)
	for i := range fixes {
		f := &fixes[i]
		sequences[f.vehicle]++
		loc := wire.Location{Kind: wire.KindReport, Report: wire.Report{SessionID: 1, Sequence: sequences[f.vehicle], Fixes: []wire.Fix{f.fix}}}
		appendMS = max(appendMS, f.fix.DeviceTimeMS+300)
		res, err := p.Step(step.Record{Offset: int64(i), AppendTimeMS: appendMS, Key: []byte(f.vehicle), Value: loc.Append(nil)})
		if err != nil {
			return nil, err
		}
		if res.Poison != nil {
			return nil, fmt.Errorf("the step refuses a report of %s: %w", f.vehicle, res.Poison)
		}
		rows = row.Append(rows, 0, f.vehicle, res.Track)
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
