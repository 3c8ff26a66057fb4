// Package replay plays recorded fixes through the real gRPC server and accounts
// for every row: what was accepted, was there before, was late or was refused.
package replay

import (
	"time"

	"google.golang.org/grpc"

	"github.com/starling-fleet/starling/client"
	"github.com/starling-fleet/starling/internal/valid"
	"github.com/starling-fleet/starling/schemas/limits"
)

// Options set what is played and how.
type Options struct {
	// Paths are CSV or CSV.gz files, folders of them, or patterns. Reference
	// trajectories (*.truth.csv) and labels (*labels.csv) are left out.
	Paths []string
	// Ingest is where the reports go.
	Ingest grpc.ClientConnInterface
	// Fleet answers what became of the fixes; nil means Ingest's connection.
	Fleet grpc.ClientConnInterface
	// Speedup is how many times faster than recorded the rows are sent: 1 or
	// more, or 0 for as fast as the server takes them.
	Speedup float64
	// AsRecorded keeps the recorded times. Otherwise each file's times are
	// moved so that its last point is now when the playback ends, with all
	// intervals kept.
	AsRecorded bool
	// MaxGap shortens each longer stretch in which a file has no row at all to
	// this, so that a recording of scattered days is played as one. 0 keeps all
	// intervals.
	MaxGap time.Duration
	// VehiclePrefix is put before each vehicle id, so that the same recording
	// can be played as another fleet.
	VehiclePrefix string
	// BatchSize is how many fixes of one vehicle make a report. A report is
	// sent with fewer when a device time repeats, when it has waited for
	// MaxWait, and at the end.
	BatchSize int
	// MaxWait bounds how long a fix waits for its report to fill up when
	// Speedup is not 0.
	MaxWait time.Duration
	// SettleTimeout bounds how long the end waits for the fleet to show
	// everything that was acknowledged, counted from the last progress.
	SettleTimeout time.Duration
	// Trouble, if not nil, is called with what keeps reports from being taken:
	// why there is no connection, what the server refuses. It may be called
	// often, and from several goroutines.
	Trouble func(error)
	// Client bounds the reporter.
	Client client.Config
	// Progress, if not nil, is called every ProgressEvery and once
	// at the end, from one goroutine at a time.
	Progress      func(Progress)
	ProgressEvery time.Duration
}

// DefaultOptions play flat out, ten fixes a report.
func DefaultOptions() Options {
	return Options{
		BatchSize:     10,
		MaxWait:       time.Second,
		SettleTimeout: 15 * time.Second,
		Client:        client.DefaultConfig(),
		ProgressEvery: time.Second,
	}
}

// Validate names every field that breaks its rule.
func (o Options) Validate() error {
	var faults valid.Faults
	faults.Need(len(o.Paths) > 0, "paths", o.Paths, "at least one file")
	faults.Need(o.Ingest != nil, "ingest", nil, "a connection")
	faults.Need(o.Speedup == 0 || o.Speedup >= 1, "speedup", o.Speedup, "0 (flat out) or at least 1")
	valid.AtLeast(&faults, "max_gap", o.MaxGap, 0)
	faults.Need(o.MaxGap == 0 || !o.AsRecorded, "max_gap", o.MaxGap, "0 with as_recorded")
	valid.Between(&faults, "batch_size", o.BatchSize, 1, limits.MaxFixesPerReport)
	valid.Positive(&faults, "max_wait", o.MaxWait)
	valid.Positive(&faults, "settle_timeout", o.SettleTimeout)
	valid.Positive(&faults, "progress_every", o.ProgressEvery)
	faults.Need(limits.ValidVehicleID(o.VehiclePrefix+"0"), "vehicle_prefix", o.VehiclePrefix, "of the characters A-Z a-z 0-9 - _ . ~")
	return faults.Err()
}

// Progress is how far a playback is.
type Progress struct {
	// Settling is true when all is acknowledged and the fleet is waited for.
	Settling bool
	// Rows have been sent, of RowsTotal that can be.
	Rows, RowsTotal int64
	// AcknowledgedFixes are durable or refused.
	AcknowledgedFixes int64
	// RefusedFixes were refused.
	RefusedFixes int64
	// UnacknowledgedReports are under way.
	UnacknowledgedReports int
	// FixesPerSecond were acknowledged since the last Progress.
	FixesPerSecond float64
	// Consumed are the fixes that the fleet shows, when Settling.
	Consumed int64
	// Elapsed is the time since the playback began.
	Elapsed time.Duration
}
