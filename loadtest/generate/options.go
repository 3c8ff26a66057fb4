// Package generate is the native load generator: it sends made-up fixes of many
// vehicles over many streams, at a rate or as fast as they are acknowledged,
// with as little CPU of its own as possible.
package generate

import (
	"fmt"
	"time"

	"google.golang.org/grpc"

	"github.com/starling-fleet/starling/internal/latency"
	"github.com/starling-fleet/starling/internal/valid"
	"github.com/starling-fleet/starling/schemas/limits"
)

// Options are the settings of the load.
type Options struct {
	// Ingest are the connections; streams are spread over them.
	Ingest []grpc.ClientConnInterface
	// Fleet, if not nil, shows how soon fixes can be found.
	Fleet grpc.ClientConnInterface
	// Streams are open at a time, each with VehiclesPerStream vehicles.
	Streams           int
	VehiclesPerStream int
	// FixesPerReport make one message.
	FixesPerReport int
	// FixesPerSecond over all streams; 0 means as many as are acknowledged.
	FixesPerSecond float64
	// Warmup comes before Duration; what is acknowledged in it is not counted.
	Warmup   time.Duration
	Duration time.Duration
	// ReportsPerVehicle ends the sending, before its time, when every vehicle
	// has sent so many; 0 means no such end.
	ReportsPerVehicle int
	// InFlight bounds the unacknowledged reports of a stream. It is at most 64
	// for each of its vehicles.
	InFlight int
	// DeviceInterval is the device time between two fixes of a vehicle, from
	// Backdate before now. Zero means that fixes carry the time at which they
	// are sent; then a vehicle must not have more than a thousand a second.
	DeviceInterval time.Duration
	Backdate       time.Duration
	// Watched is how many vehicles are watched for how soon fixes can be found.
	Watched       int
	VehiclePrefix string
	// Free makes the vehicles report that they can take a ride.
	Free bool
	// The vehicles move within RadiusM of the centre.
	CentreLatDeg, CentreLonDeg, RadiusM float64
	Seed                                int64
	// Progress, if not nil, is called every second.
	Progress func(Progress)
}

// DefaultOptions send ten fixes a report from 10,000 vehicles, flat out for ten
// seconds. Device times advance a second a fix, however fast they are sent.
func DefaultOptions() Options {
	return Options{
		Streams: 20, VehiclesPerStream: 500, FixesPerReport: 10,
		Warmup: 2 * time.Second, Duration: 10 * time.Second, InFlight: 1024,
		DeviceInterval: time.Second, Backdate: 25 * 24 * time.Hour,
		Watched: 20, VehiclePrefix: "gen-",
		CentreLatDeg: 48.2085, CentreLonDeg: 16.3730, RadiusM: 20_000, Seed: 1,
	}
}

// Validate names every field that breaks its rule.
func (o Options) Validate() error {
	var faults valid.Faults
	faults.Need(len(o.Ingest) > 0, "ingest", o.Ingest, "at least one connection")
	valid.AtLeast(&faults, "streams", o.Streams, 1)
	valid.AtLeast(&faults, "vehicles_per_stream", o.VehiclesPerStream, 1)
	valid.Between(&faults, "fixes_per_report", o.FixesPerReport, 1, limits.MaxFixesPerReport)
	valid.AtLeast(&faults, "fixes_per_second", o.FixesPerSecond, 0)
	valid.AtLeast(&faults, "warmup", o.Warmup, 0)
	valid.Positive(&faults, "duration", o.Duration)
	valid.AtLeast(&faults, "reports_per_vehicle", o.ReportsPerVehicle, 0)
	faults.Need(o.InFlight >= 1 && o.InFlight <= limits.MaxUnacknowledgedReports*max(1, o.VehiclesPerStream), "in_flight", o.InFlight, fmt.Sprintf("between 1 and %d for each vehicle of a stream", limits.MaxUnacknowledgedReports))
	faults.Need(o.DeviceInterval == 0 || o.DeviceInterval >= time.Millisecond, "device_interval", o.DeviceInterval, "0 or at least 1ms")
	valid.AtLeast(&faults, "backdate", o.Backdate, 0)
	valid.AtLeast(&faults, "watched", o.Watched, 0)
	faults.Need(o.VehiclePrefix != "" && limits.ValidVehicleID(o.VehiclePrefix+"0") && len(o.VehiclePrefix) <= 40, "vehicle_prefix", o.VehiclePrefix, "at most 40 characters and "+limits.VehicleIDRule)
	valid.Between(&faults, "centre_lat_deg", o.CentreLatDeg, -80, 80)
	valid.Between(&faults, "centre_lon_deg", o.CentreLonDeg, -180, 180)
	faults.Need(o.RadiusM > 0 && o.RadiusM <= 500_000, "radius_m", o.RadiusM, "above 0 and at most 500000")
	return faults.Err()
}

// Progress is the last second.
type Progress struct {
	Elapsed            time.Duration `json:"elapsed_ns"`
	FixesPerSecond     float64       `json:"fixes_per_second"`
	AcknowledgedFixes  int64         `json:"acknowledged_fixes"`
	UnacknowledgedNow  int64         `json:"unacknowledged_reports"`
	BrokenStreamsSoFar int64         `json:"broken_streams"`
}

// Result is what was measured.
type Result struct {
	// FixesPerSecond were acknowledged within the measured Duration.
	FixesPerSecond float64       `json:"fixes_per_second"`
	Measured       time.Duration `json:"measured_ns"`
	// AckLatency is from sending a report to its acknowledgement, of every
	// eighth report within the measured time.
	AckLatency latency.Summary `json:"ack_latency"`
	// Searchable is from sending a fix to a watcher seeing it, of the watched
	// vehicles' newest fixes, over the whole run.
	Searchable latency.Summary `json:"searchable"`
	// Unsearchable are fixes of watched vehicles that did not show within the
	// drain.
	Unsearchable int `json:"unsearchable"`
	// The whole run, warm-up and drain included.
	SentFixes         int64 `json:"sent_fixes"`
	AcknowledgedFixes int64 `json:"acknowledged_fixes"`
	RefusedFixes      int64 `json:"refused_fixes"`
	// UnknownFixes were sent on streams that broke before the answer.
	UnknownFixes  int64 `json:"unknown_fixes"`
	BrokenStreams int64 `json:"broken_streams"`
}

// String is the result in four lines.
func (r Result) String() string {
	return fmt.Sprintf(`acknowledged  %.0f fixes/s over %v
ack latency   %v
searchable    %v; %d not within the drain
all in all    %d fixes sent, %d acknowledged, of these %d refused, %d unknown after %d broken streams
`, r.FixesPerSecond, r.Measured.Round(time.Millisecond), r.AckLatency, r.Searchable, r.Unsearchable,
		r.SentFixes, r.AcknowledgedFixes, r.RefusedFixes, r.UnknownFixes, r.BrokenStreams)
}

// Misses is empty: the generator has no goal.
func (r Result) Misses() []string { return nil }
