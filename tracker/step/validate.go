package step

import (
	"errors"
	"fmt"
	"math"

	"github.com/starling-fleet/starling/schemas/limits"
	"github.com/starling-fleet/starling/schemas/wire"
)

const (
	// maxReportFixes bounds the fixes of one report, so that what it does fits
	// into one record of `tracks`.
	maxReportFixes = 4096
	// maxDeviceTimeMS is the end of the year 9999.
	maxDeviceTimeMS = 253_402_300_799_999
	// maxAttributeBytes and maxTags bound what is kept of a vehicle; ingest is
	// stricter.
	maxAttributeBytes = 256
	maxTags           = 64
)

func validVehicleID(id []byte) error {
	if !limits.ValidVehicleID(id) {
		return fmt.Errorf("key: a vehicle id of %d bytes, %.80q, must be %s", len(id), id, limits.VehicleIDRule)
	}
	return nil
}

// validReport refuses what ingest never writes and what the step could not
// bear. The rules for devices are ingest's.
func validReport(r *wire.Report) error {
	if r.SessionID == 0 {
		return errors.New("report: session_id is 0")
	}
	if r.Sequence < 1 {
		return fmt.Errorf("report: sequence is %d, must be positive", r.Sequence)
	}
	if len(r.Fixes) > maxReportFixes {
		return fmt.Errorf("report: %d fixes, must be at most %d", len(r.Fixes), maxReportFixes)
	}
	if r.HasAttributes {
		if err := validAttributes(&r.Attributes); err != nil {
			return fmt.Errorf("report: attributes: %w", err)
		}
	}
	for i := range r.Fixes {
		f := &r.Fixes[i]
		if f.DeviceTimeMS <= 0 || f.DeviceTimeMS > maxDeviceTimeMS {
			return fmt.Errorf("report: fix %d: device_time_ms is %d", i, f.DeviceTimeMS)
		}
		if !(math.Abs(f.LatDeg) <= 90 && math.Abs(f.LonDeg) <= 180) {
			return fmt.Errorf("report: fix %d: (%v, %v) is no coordinate", i, f.LatDeg, f.LonDeg)
		}
		// A sum is finite only if its terms are; these are far from overflow.
		if sum := float64(f.AccuracyM) + float64(f.SpeedMPS) + float64(f.HeadingDeg) + float64(f.AltitudeM); math.IsNaN(sum) || math.IsInf(sum, 0) {
			return fmt.Errorf("report: fix %d: accuracy, speed, heading or altitude is not finite", i)
		}
	}
	return nil
}

func validAttributes(a *wire.Attributes) error {
	if len(a.Tags) > maxTags {
		return fmt.Errorf("%d tags, must be at most %d", len(a.Tags), maxTags)
	}
	longest := len(a.Type)
	for _, tag := range a.Tags {
		longest = max(longest, len(tag))
	}
	if longest > maxAttributeBytes {
		return fmt.Errorf("a text of %d bytes, must have at most %d", longest, maxAttributeBytes)
	}
	return nil
}
