// Package recorded reads recordings of fixes: gzipped CSV of vehicle_id, unix_ms, lat,
// lon, accuracy_m, speed_mps, heading_deg, of which the last three may be empty or
// missing, below a line of names.
package recorded

import (
	"bufio"
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/starling-fleet/starling/schemas/wire"
)

// Fix is a row of a recording.
type Fix struct {
	Vehicle string
	Fix     wire.Fix
}

// Read returns the rows of a file as they stand there. Errors name the file and the
// line.
func Read(path string) ([]Fix, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	zipped, err := gzip.NewReader(bufio.NewReader(f))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	in := csv.NewReader(zipped)
	in.FieldsPerRecord = -1
	if _, err := in.Read(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var out []Fix
	for {
		cells, err := in.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		fix, err := parse(cells)
		if err != nil {
			line, _ := in.FieldPos(0)
			return nil, fmt.Errorf("%s: line %d: %w", path, line, err)
		}
		out = append(out, Fix{cells[0], fix})
	}
}

func parse(cells []string) (fix wire.Fix, err error) {
	if len(cells) < 4 {
		return fix, errors.New("it has fewer than four cells")
	}
	number := func(i int) float64 {
		v, fault := strconv.ParseFloat(cells[i], 64)
		err = errors.Join(err, fault)
		return v
	}
	optional := func(i int, bit wire.Has, to *float32) {
		if i < len(cells) && cells[i] != "" {
			fix.Has |= bit
			*to = float32(number(i))
		}
	}
	ms, fault := strconv.ParseInt(cells[1], 10, 64)
	err = errors.Join(err, fault)
	fix.DeviceTimeMS, fix.LatDeg, fix.LonDeg = ms, number(2), number(3)
	optional(4, wire.HasAccuracy, &fix.AccuracyM)
	optional(5, wire.HasSpeed, &fix.SpeedMPS)
	optional(6, wire.HasHeading, &fix.HeadingDeg)
	return fix, err
}
