package redispositions

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/starling-fleet/starling/internal/redistest"
	"github.com/starling-fleet/starling/schemas/wire"
)

// What a record costs the follower, and what a write costs over a loopback Redis.
func BenchmarkObserve(b *testing.B) {
	const vehicles = 100_000
	s, err := New(Config{Prefix: "b:", Keep: time.Hour, MaxVehicles: vehicles}, Deps{Epoch: 1, Registerer: prometheus.NewRegistry()})
	if err != nil {
		b.Fatal(err)
	}
	records := make([]*wire.Track, vehicles)
	for n := range records {
		records[n] = seen(1, 0, fmt.Sprintf("car-%d", n))
	}
	offset := int64(0)
	for b.Loop() {
		t := records[offset%vehicles]
		offset++
		t.SourceOffset = offset
		s.Observe(t)
	}
}

func BenchmarkWrite(b *testing.B) {
	h := newSink(b, redistest.Start(b), 1, time.Hour)
	offset := int64(0)
	for b.Loop() {
		offset++
		h.Observe(seen(1, offset, fmt.Sprintf("car-%d", offset%1000)))
		if offset%maxBatch == 0 {
			h.drain(b.Context())
		}
	}
	b.ReportMetric(float64(offset)/b.Elapsed().Seconds(), "vehicles/s")
}
