// Package overload puts far more load on a serving process than it can serve,
// beside clients that misbehave, and checks what well-behaved clients and an
// operator are promised: bounded memory, service for well-behaved clients, and an account
// that closes.
package overload

import (
	"errors"
	"fmt"
	"time"

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
	// DeafStreams send and never read their acknowledgements.
	DeafStreams int
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
		IdleStreams: 1000, DeafStreams: 4, GarbageSenders: 4,
		HonestVehicles: 100, HonestPeriod: time.Second, SearchEvery: 20 * time.Millisecond,
		ServerBytes:  128 << 20,
		MaxHonestP99: 15 * time.Second, MaxSearchP99: 10 * time.Second,
		SettleTimeout: 3 * time.Minute,
	}
}

// Validate names every field that breaks its rule.
func (o Options) Validate() error {
	var faults []error
	rule := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	rule(len(o.Starling) > 0, "starling must be a command line")
	rule(o.Calibration > 0, "calibration %v must be positive", o.Calibration)
	rule(o.Duration > 0, "duration %v must be positive", o.Duration)
	rule(o.Factor >= 1, "factor %v must be at least 1", o.Factor)
	rule(o.StreamsPerLoad >= 1, "streams_per_load %d must be at least 1", o.StreamsPerLoad)
	rule(o.VehiclesPerStream >= 1, "vehicles_per_stream %d must be at least 1", o.VehiclesPerStream)
	rule(o.FixesPerReport >= 1 && o.FixesPerReport <= limits.MaxFixesPerReport, "fixes_per_report %d must be 1 to %d", o.FixesPerReport, limits.MaxFixesPerReport)
	rule(o.InFlight >= 1 && o.InFlight <= limits.MaxUnacknowledgedReports*max(1, o.VehiclesPerStream), "in_flight %d must be 1 to %d for each vehicle of a stream", o.InFlight, limits.MaxUnacknowledgedReports)
	rule(o.IdleStreams >= 0, "idle_streams %d must not be negative", o.IdleStreams)
	rule(o.DeafStreams >= 0, "deaf_streams %d must not be negative", o.DeafStreams)
	rule(o.GarbageSenders >= 0, "garbage_senders %d must not be negative", o.GarbageSenders)
	rule(o.HonestVehicles >= 1, "honest_vehicles %d must be at least 1", o.HonestVehicles)
	rule(o.HonestPeriod >= 100*time.Millisecond, "honest_period %v must be at least 100ms", o.HonestPeriod)
	rule(o.SearchEvery > 0, "search_every %v must be positive", o.SearchEvery)
	rule(o.ServerBytes >= 1<<20, "server_bytes %d must be at least 1048576", o.ServerBytes)
	rule(o.MaxHonestP99 > 0, "max_honest_p99 %v must be positive", o.MaxHonestP99)
	rule(o.MaxSearchP99 > 0, "max_search_p99 %v must be positive", o.MaxSearchP99)
	rule(o.SettleTimeout > 0, "settle_timeout %v must be positive", o.SettleTimeout)
	return errors.Join(faults...)
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
	streams := o.streams() + o.StreamsPerLoad + o.IdleStreams + o.DeafStreams + o.GarbageSenders + 1
	vehicles := (o.streams()+o.StreamsPerLoad)*o.VehiclesPerStream + o.IdleStreams + o.DeafStreams + o.HonestVehicles
	live = o.ServerBytes + 2*logBuffer + tailCache + blockCache + memtables +
		int64(streams)*perStream + int64(vehicles)*perVehicle + program
	return live, live * 5 / 2
}
