// Package overload puts far more load on a serving process than it can serve,
// beside clients that misbehave, and checks what well-behaved clients and an
// operator are promised: bounded memory, service for well-behaved clients, and an account
// that closes.
package overload

import (
	"fmt"
	"time"

	"github.com/starling-fleet/starling/internal/valid"
	"github.com/starling-fleet/starling/schemas/limits"
)

// Options are the load and the bounds that must hold.
type Options struct {
	// Starling is the command line of the starling binary, to which the role
	// and its settings are appended.
	Starling []string
	// WorkDir is where the local log is put; empty means the system's temporary
	// folder.
	WorkDir string
	// Calibration is how long the sustainable load is looked for.
	Calibration time.Duration
	// Duration is how long the overload lasts.
	Duration time.Duration
	// Factor is the offered load in sustainable loads.
	Factor float64
	// StreamsPerLoad is how many streams offer one sustainable load; the
	// overload has Factor times as many.
	StreamsPerLoad int
	// VehiclesPerStream, FixesPerReport and InFlight are those of every sender
	// of the overload; InFlight counts unacknowledged reports of a stream.
	VehiclesPerStream, FixesPerReport, InFlight int
	// IdleStreams are open and silent until the load has ended; then each must
	// still be served.
	IdleStreams int
	// UnreadStreams send and never read their acknowledgements.
	UnreadStreams int
	// GarbageSenders send what is no report, or too large a one, again and
	// again.
	GarbageSenders int
	// HonestVehicles report once in HonestPeriod.
	HonestVehicles int
	HonestPeriod   time.Duration
	// SearchEvery is the pause between two searches of the dispatcher.
	SearchEvery time.Duration
	// ServerBytes is the server's limit of bytes in flight.
	ServerBytes int64
	// MaxHonestP99 and MaxSearchP99 are the worst that counts as served. Senders
	// share their CPUs with the server, so these are half of what a client
	// waits before it gives a stream up, and what a caller waits for a search.
	MaxHonestP99, MaxSearchP99 time.Duration
	// SettleTimeout bounds the wait, after the load, for what was turned away
	// to be acknowledged, and once more for the trackers to catch up.
	SettleTimeout time.Duration
	// Progress, if not nil, is called with each step, from one goroutine at a
	// time.
	Progress func(string)
}

// DefaultOptions offer ten times the sustainable load for a minute.
func DefaultOptions() Options {
	return Options{
		Starling:    []string{"bin/starling"},
		Calibration: 5 * time.Second, Duration: time.Minute, Factor: 10,
		StreamsPerLoad: 32, VehiclesPerStream: 32, FixesPerReport: 10, InFlight: 512,
		IdleStreams: 1000, UnreadStreams: 4, GarbageSenders: 4,
		HonestVehicles: 100, HonestPeriod: time.Second, SearchEvery: 20 * time.Millisecond,
		ServerBytes:  128 << 20,
		MaxHonestP99: 15 * time.Second, MaxSearchP99: 10 * time.Second,
		SettleTimeout: 3 * time.Minute,
	}
}

// Validate names every field that breaks its rule.
func (o Options) Validate() error {
	var faults valid.Faults
	faults.Need(len(o.Starling) > 0, "starling", o.Starling, "a command line")
	valid.Positive(&faults, "calibration", o.Calibration)
	valid.Positive(&faults, "duration", o.Duration)
	valid.AtLeast(&faults, "factor", o.Factor, 1)
	valid.AtLeast(&faults, "streams_per_load", o.StreamsPerLoad, 1)
	valid.AtLeast(&faults, "vehicles_per_stream", o.VehiclesPerStream, 1)
	valid.Between(&faults, "fixes_per_report", o.FixesPerReport, 1, limits.MaxFixesPerReport)
	faults.Need(o.InFlight >= 1 && o.InFlight <= limits.MaxUnacknowledgedReports*max(1, o.VehiclesPerStream), "in_flight", o.InFlight, fmt.Sprintf("between 1 and %d for each vehicle of a stream", limits.MaxUnacknowledgedReports))
	valid.AtLeast(&faults, "idle_streams", o.IdleStreams, 0)
	valid.AtLeast(&faults, "unread_streams", o.UnreadStreams, 0)
	valid.AtLeast(&faults, "garbage_senders", o.GarbageSenders, 0)
	valid.AtLeast(&faults, "honest_vehicles", o.HonestVehicles, 1)
	valid.AtLeast(&faults, "honest_period", o.HonestPeriod, 100*time.Millisecond)
	valid.Positive(&faults, "search_every", o.SearchEvery)
	valid.AtLeast(&faults, "server_bytes", o.ServerBytes, 1<<20)
	valid.Positive(&faults, "max_honest_p99", o.MaxHonestP99)
	valid.Positive(&faults, "max_search_p99", o.MaxSearchP99)
	valid.Positive(&faults, "settle_timeout", o.SettleTimeout)
	return faults.Err()
}

// streams is how many streams make the overload.
func (o *Options) streams() int { return int(o.Factor * float64(o.StreamsPerLoad)) }

// memoryBound is what the server may have live on its heap, and resident, in
// bytes, with these options and its other settings at their defaults.
//
// Live: what ingest may have in flight; what the local log may have queued, in
// chunks that are at worst half full; the log's tail cache and block cache and
// four memtables of either store; for each stream, HTTP/2's windows in both
// directions and its goroutines; for each vehicle, the tracker's and the
// matcher's state; and 96 MiB for the program.
//
// Resident: the collector lets the heap grow to twice what is live (GOGC=100),
// and a quarter of that is for fragments, stacks and Pebble's memory
// outside the heap.
func (o *Options) memoryBound() (live, resident int64) {
	const (
		logBuffer, tailCache, blockCache = 64 << 20, 128 << 20, 32 << 20
		memtables                        = 8 * 32 << 20
		perStream                        = 2*64<<10 + 32<<10
		perVehicle                       = 8 << 10
		program                          = 96 << 20
	)
	streams := o.streams() + o.StreamsPerLoad + o.IdleStreams + o.UnreadStreams + o.GarbageSenders + 1
	vehicles := (o.streams()+o.StreamsPerLoad)*o.VehiclesPerStream + o.IdleStreams + o.UnreadStreams + o.HonestVehicles
	live = o.ServerBytes + 2*logBuffer + tailCache + blockCache + memtables +
		int64(streams)*perStream + int64(vehicles)*perVehicle + program
	return live, live * 5 / 2
}
