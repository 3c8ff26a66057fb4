// Package fixcsv names the columns of a file of recorded fixes, which both
// `starling filter` and `starling replay` read. It imports nothing of ours.
package fixcsv

// Names of the columns. A file must have the first four.
const (
	VehicleID  = "vehicle_id"
	UnixMS     = "unix_ms"
	Lat        = "lat"
	Lon        = "lon"
	AccuracyM  = "accuracy_m"
	SpeedMPS   = "speed_mps"
	HeadingDeg = "heading_deg"
	AltitudeM  = "altitude_m"
)

// Required are the columns that every file has.
var Required = []string{VehicleID, UnixMS, Lat, Lon}
