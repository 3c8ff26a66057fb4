package filtercsv

import (
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/starling-fleet/starling/gpsfilter"
	"github.com/starling-fleet/starling/internal/fixcsv"
	"github.com/starling-fleet/starling/schemas/limits"
)

// Input columns.
const (
	colVehicle = iota
	colTime
	colLat
	colLon
	colAccuracy
	colSpeed
	colHeading
	columnCount
)

var columnNames = [columnCount]string{fixcsv.VehicleID, fixcsv.UnixMS, fixcsv.Lat, fixcsv.Lon, fixcsv.AccuracyM, fixcsv.SpeedMPS, fixcsv.HeadingDeg}

const (
	maxVehicleBytes = limits.MaxVehicleIDBytes
	maxSpeedMPS     = 1000
	maxAccuracyM    = 1e7
)

// columns is where the named columns are; math.MaxInt where one is not.
type columns struct{ index [columnCount]int }

func findColumns(header []string) (columns, error) {
	var c columns
	var errs []error
	for i, name := range columnNames {
		c.index[i] = math.MaxInt
		for j, h := range header {
			if h != name {
				continue
			}
			if c.index[i] != math.MaxInt {
				errs = append(errs, fmt.Errorf("header: column %q stands there twice", name))
			}
			c.index[i] = j
		}
		if c.index[i] == math.MaxInt && i <= colLon {
			errs = append(errs, fmt.Errorf("header: column %q is missing", name))
		}
	}
	return c, errors.Join(errs...)
}

// parse reads one row. The error names the column and its rule.
func (c *columns) parse(rec []string) (id string, fix gpsfilter.Fix, err error) {
	if i := c.index[colVehicle]; i < len(rec) {
		id = rec[i]
	}
	if id == "" || len(id) > maxVehicleBytes {
		return id, fix, fmt.Errorf("vehicle_id: %d bytes, must be 1 to %d", len(id), maxVehicleBytes)
	}
	cell := func(i int) string {
		if at := c.index[i]; at < len(rec) {
			return rec[at]
		}
		return ""
	}
	if fix.TimeMS, err = strconv.ParseInt(cell(colTime), 10, 64); err != nil || fix.TimeMS <= 0 || fix.TimeMS > math.MaxInt64/4 {
		return id, fix, fmt.Errorf("unix_ms: %q is not a positive whole number of milliseconds", cell(colTime))
	}
	number := func(i int, lo, hi float64) float64 {
		v, parseErr := strconv.ParseFloat(cell(i), 64)
		if err == nil && (parseErr != nil || !(v >= lo && v <= hi)) {
			err = fmt.Errorf("%s: %q is not a number within [%v, %v]", columnNames[i], cell(i), lo, hi)
		}
		return v
	}
	fix.LatDeg, fix.LonDeg = number(colLat, -90, 90), number(colLon, -180, 180)
	if err == nil && fix.LatDeg == 0 && fix.LonDeg == 0 {
		err = errors.New("lat, lon: 0, 0 is what devices report when they have no position")
	}
	optional := func(i int, field gpsfilter.Fields, hi float64) float32 {
		if cell(i) == "" {
			return 0
		}
		fix.Has |= field
		return float32(number(i, 0, hi))
	}
	fix.AccuracyM = optional(colAccuracy, gpsfilter.FieldAccuracy, maxAccuracyM)
	fix.SpeedMPS = optional(colSpeed, gpsfilter.FieldSpeed, maxSpeedMPS)
	fix.HeadingDeg = optional(colHeading, gpsfilter.FieldHeading, 360)
	if fix.HeadingDeg == 360 {
		fix.HeadingDeg = 0
	}
	return id, fix, err
}
