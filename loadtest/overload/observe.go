package overload

import (
	"context"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"

	"github.com/starling-fleet/starling/internal/latency"
	"github.com/starling-fleet/starling/internal/retry"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Sample is the server at one moment.
type Sample struct {
	// At is since the start of the overload.
	At time.Duration `json:"at_ns"`
	// ResidentBytes is the process's resident memory (VmRSS); -1 where there is
	// no /proc.
	ResidentBytes int64 `json:"resident_bytes"`
	// LiveBytes is what the last garbage collection found alive, from the goal
	// it set for the next (twice that, at GOGC=100).
	LiveBytes int64 `json:"live_bytes"`
	// AcknowledgedFixes and ConsumedFixes are the counts of ingest and tracker.
	AcknowledgedFixes int64 `json:"acknowledged_fixes"`
	ConsumedFixes     int64 `json:"consumed_fixes"`
	// InFlightBytes are charged to reports in flight, and Streams are open.
	InFlightBytes int64 `json:"in_flight_bytes"`
	Streams       int64 `json:"streams"`
}

// sample looks at the server once.
func (s *server) sample(ctx context.Context, begun time.Time) (Sample, error) {
	m, err := s.Metrics(ctx)
	if err != nil {
		return Sample{}, err
	}
	return Sample{
		At: time.Since(begun), ResidentBytes: s.Memory("VmRSS"),
		LiveBytes:         int64(m["go_memstats_next_gc_bytes"] / 2),
		AcknowledgedFixes: int64(m["starling_ingest_fixes_acknowledged_total"]),
		ConsumedFixes:     int64(m["starling_tracker_fixes_total"]),
		InFlightBytes:     int64(m["starling_ingest_in_flight_bytes"]),
		Streams:           int64(m["starling_ingest_streams"]),
	}, nil
}

// watch samples the server every second until done is closed. That the server
// is too busy to answer costs a sample, not the run.
func (s *server) watch(ctx context.Context, begun time.Time, each func(Sample)) (samples []Sample) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return samples
		case <-tick.C:
		}
		if x, err := s.sample(ctx, begun); err == nil {
			samples = append(samples, x)
			each(x)
		}
	}
}

// dispatcher asks for the nearest vehicles again and again.
type dispatcher struct {
	fleet   starlingv1.FleetServiceClient
	latency latency.Histogram
	failed  tally
}

func newDispatcher(conn grpc.ClientConnInterface) *dispatcher {
	return &dispatcher{fleet: starlingv1.NewFleetServiceClient(conn)}
}

// run searches until ctx is done, and lets the last search end.
func (d *dispatcher) run(ctx context.Context, every time.Duration) {
	for {
		if retry.Sleep(ctx, every) != nil {
			return
		}
		begun := time.Now()
		one, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		_, err := d.fleet.SearchNearest(one, &starlingv1.SearchNearestRequest{
			Place: &starlingv1.Place{Latitude: 48.1 + 0.2*rand.Float64(), Longitude: 16.3 + 0.2*rand.Float64()}, MaxResults: 10,
		})
		cancel()
		if err != nil {
			d.failed.add(err)
			continue
		}
		d.latency.Record(time.Since(begun))
	}
}
