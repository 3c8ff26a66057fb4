package replay

import (
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/starling-fleet/starling/internal/fixcsv"
	"github.com/starling-fleet/starling/schemas/limits"
	"github.com/starling-fleet/starling/schemas/wire"
)

// has are the optional columns that a row fills.
type has uint8

const (
	hasAccuracy has = 1 << iota
	hasSpeed
	hasHeading
	hasAltitude
)

// row is one recorded fix; 56 bytes, so ten million fit into 560 MB.
type row struct {
	unixMS         int64
	latDeg, lonDeg float64
	accuracyM      float32
	speedMPS       float32
	headingDeg     float32
	altitudeM      float32
	vehicle        int32 // index into recording.vehicles
	file           int16 // index into recording.files
	has            has
}

// recording is what the files hold, in their order.
type recording struct {
	files      []string
	skipped    []string
	vehicles   []string
	rows       []row
	total      int64 // rows below the headers
	unreadable map[string]int64
	// firstMS and lastMS are the bounds of each file's times.
	firstMS, lastMS []int64
}

// load reads all files.
func load(paths []string, prefix string) (*recording, error) {
	files, skipped, err := expand(paths)
	if err != nil {
		return nil, err
	}
	rec := &recording{files: files, skipped: skipped, unreadable: map[string]int64{}}
	byName := map[string]int32{}
	for i, path := range files {
		if err := rec.loadFile(int16(i), path, prefix, byName); err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
	}
	return rec, nil
}

// expand turns folders and patterns into files, and leaves out reference
// trajectories and labels, however they came in: a shell expands patterns
// before we see them.
func expand(paths []string) (files, skipped []string, err error) {
	for _, path := range paths {
		matches := []string{path}
		if info, serr := os.Stat(path); serr == nil && info.IsDir() {
			matches, err = filepath.Glob(filepath.Join(path, "*.csv*"))
		} else if serr != nil {
			matches, err = filepath.Glob(path)
			if err == nil && len(matches) == 0 {
				return nil, nil, fmt.Errorf("find recordings: %w", serr)
			}
		}
		if err != nil {
			return nil, nil, fmt.Errorf("find recordings in %s: %w", path, err)
		}
		slices.Sort(matches)
		for _, m := range matches {
			stem := strings.TrimSuffix(strings.TrimSuffix(m, ".gz"), ".csv")
			if strings.HasSuffix(stem, ".truth") || strings.HasSuffix(stem, "labels") {
				skipped = append(skipped, m)
			} else {
				files = append(files, m)
			}
		}
	}
	if len(files) == 0 {
		return nil, nil, fmt.Errorf("find recordings: no CSV file in %v", paths)
	}
	if len(files) > math.MaxInt16 {
		return nil, nil, fmt.Errorf("find recordings: %d files are more than %d", len(files), math.MaxInt16)
	}
	return files, skipped, nil
}

func (rec *recording) loadFile(file int16, path, prefix string, byName map[string]int32) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var in io.Reader = f
	if strings.HasSuffix(path, ".gz") {
		if in, err = gzip.NewReader(f); err != nil {
			return err
		}
	}
	cr := csv.NewReader(in)
	cr.ReuseRecord, cr.FieldsPerRecord, cr.LazyQuotes = true, -1, true
	header, err := cr.Read()
	if err != nil {
		return fmt.Errorf("header: %w", err)
	}
	cols, err := parseHeader(header)
	if err != nil {
		return err
	}
	rec.firstMS, rec.lastMS = append(rec.firstMS, math.MaxInt64), append(rec.lastMS, math.MinInt64)
	for {
		cells, err := cr.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		var bad *csv.ParseError
		if err != nil && !errors.As(err, &bad) {
			return err
		}
		rec.total++
		if err != nil || len(cells) != len(header) {
			rec.unreadable["number of columns"]++
			continue
		}
		r := row{file: file}
		vehicle, fault := cols.parse(cells, prefix, &r)
		if fault != "" {
			rec.unreadable[fault]++
			continue
		}
		r.vehicle = rec.vehicleIndex(vehicle, prefix, byName)
		rec.firstMS[file] = min(rec.firstMS[file], r.unixMS)
		rec.lastMS[file] = max(rec.lastMS[file], r.unixMS)
		rec.rows = append(rec.rows, r)
	}
}

// vehicleIndex returns the index of a vehicle, whose name is only copied when it
// is new.
func (rec *recording) vehicleIndex(name, prefix string, byName map[string]int32) int32 {
	i, ok := byName[name]
	if !ok {
		i = int32(len(rec.vehicles))
		rec.vehicles = append(rec.vehicles, prefix+name)
		byName[strings.Clone(name)] = i
	}
	return i
}

// columns are the places of the known columns; -1 when a file lacks one.
type columns struct {
	vehicle, unixMS, lat, lon, accuracy, speed, heading, altitude int
}

func parseHeader(header []string) (columns, error) {
	place := func(name string) int {
		return slices.IndexFunc(header, func(h string) bool { return strings.TrimPrefix(strings.TrimSpace(h), "\ufeff") == name })
	}
	c := columns{
		vehicle: place(fixcsv.VehicleID), unixMS: place(fixcsv.UnixMS), lat: place(fixcsv.Lat), lon: place(fixcsv.Lon),
		accuracy: place(fixcsv.AccuracyM), speed: place(fixcsv.SpeedMPS), heading: place(fixcsv.HeadingDeg), altitude: place(fixcsv.AltitudeM),
	}
	var missing []string
	for _, name := range fixcsv.Required {
		if place(name) < 0 {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return c, fmt.Errorf("header lacks the columns %v", missing)
	}
	return c, nil
}

// maxUnixMS is a time (in the year 33658) with which one can still reckon.
const maxUnixMS = 1e15

// parse fills r. The fault names the column that can't be read, if any; values
// that can be read but make no sense are for the server to refuse.
func (c columns) parse(cells []string, prefix string, r *row) (vehicle, fault string) {
	vehicle = cells[c.vehicle]
	if !limits.ValidVehicleID(vehicle) || len(prefix)+len(vehicle) > limits.MaxVehicleIDBytes {
		return "", fixcsv.VehicleID
	}
	var err error
	if r.unixMS, err = strconv.ParseInt(cells[c.unixMS], 10, 64); err != nil || r.unixMS > maxUnixMS || r.unixMS < -maxUnixMS {
		return "", fixcsv.UnixMS
	}
	if r.latDeg, err = strconv.ParseFloat(cells[c.lat], 64); err != nil {
		return "", fixcsv.Lat
	}
	if r.lonDeg, err = strconv.ParseFloat(cells[c.lon], 64); err != nil {
		return "", fixcsv.Lon
	}
	for _, o := range []struct {
		name  string
		place int
		to    *float32
		bit   has
	}{
		{fixcsv.AccuracyM, c.accuracy, &r.accuracyM, hasAccuracy},
		{fixcsv.SpeedMPS, c.speed, &r.speedMPS, hasSpeed},
		{fixcsv.HeadingDeg, c.heading, &r.headingDeg, hasHeading},
		{fixcsv.AltitudeM, c.altitude, &r.altitudeM, hasAltitude},
	} {
		if o.place < 0 || cells[o.place] == "" {
			continue
		}
		v, err := strconv.ParseFloat(cells[o.place], 64)
		if err != nil || math.IsInf(float64(float32(v)), 0) && !math.IsInf(v, 0) {
			return "", o.name
		}
		if *o.to = float32(v); o.bit == hasHeading {
			*o.to = wire.NarrowHeading(v)
		}
		r.has |= o.bit
	}
	return vehicle, ""
}
