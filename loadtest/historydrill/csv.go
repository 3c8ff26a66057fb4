package historydrill

import (
	"cmp"
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"

	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// ReadCSV reads a recording (CSV.gz: vehicle_id, unix_ms, lat, lon, accuracy_m,
// speed_mps, heading_deg) in the order of its times; the rows of one time keep theirs.
func ReadCSV(path string) ([]Fix, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	zipped, err := gzip.NewReader(f)
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
			break
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
	slices.SortStableFunc(out, func(a, b Fix) int { return cmp.Compare(a.Fix.DeviceTimeMs, b.Fix.DeviceTimeMs) })
	return out, nil
}

func parse(cells []string) (*starlingv1.Fix, error) {
	if len(cells) < 4 {
		return nil, errors.New("it has fewer than four cells")
	}
	var fault error
	number := func(i int) float64 {
		v, err := strconv.ParseFloat(cells[i], 64)
		fault = errors.Join(fault, err)
		return v
	}
	ms, err := strconv.ParseInt(cells[1], 10, 64)
	fix := &starlingv1.Fix{DeviceTimeMs: ms, Latitude: number(2), Longitude: number(3)}
	for i, to := range []**float32{&fix.AccuracyM, &fix.SpeedMps, &fix.HeadingDeg} {
		if 4+i < len(cells) && cells[4+i] != "" {
			*to = proto.Float32(float32(number(4 + i)))
		}
	}
	return fix, errors.Join(err, fault)
}
