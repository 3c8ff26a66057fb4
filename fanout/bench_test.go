package fanout_test

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber/h3-go/v4"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// BenchmarkSearchNearest asks for the ten nearest: a matcher that knows the whole
// fleet, and the same fleet through a fan-out, far from a border and on one.
// Client, fan-out and matchers are in one process, so what a fan-out costs is the
// difference.
func BenchmarkSearchNearest(b *testing.B) {
	w := newWorld(b)
	cell, err := h3.LatLngToCell(h3.LatLng{Lat: 48.2, Lng: 16.37}, 6)
	require.NoError(b, err)
	middle, err := cell.LatLng()
	require.NoError(b, err)
	outline, err := cell.Boundary()
	require.NoError(b, err)
	regions := []string{"west=" + cell.String(), "east=rest"}
	n := &network{}
	whole, _ := w.matcher(n, "127.0.0.1:1", "", nil)
	west, _ := w.matcher(n, "127.0.0.1:2", "west", regions)
	east, _ := w.matcher(n, "127.0.0.1:3", "east", regions)
	fan := w.fanout(n, regions, "west=127.0.0.1:2", "east=127.0.0.1:3")
	// Matchers start on an empty log, because their gates are closed.
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 5000 {
		w.report(fmt.Sprintf("vehicle-%05d", i), middle.Lat+rng.NormFloat64()*0.05, middle.Lng+rng.NormFloat64()*0.07)
	}
	w.tick()
	for _, g := range []*gate{whole, west, east} {
		g.open(w.next)
	}
	for _, c := range []struct {
		name   string
		client starlingv1.FleetServiceClient
		at     h3.LatLng
	}{
		{"whole", n.client(b, "127.0.0.1:1"), middle},
		{"fanout/inside", fan, middle},
		{"fanout/border", fan, outline[0]},
	} {
		b.Run(c.name, func(b *testing.B) {
			before := cpuTime()
			for b.Loop() {
				_, err := c.client.SearchNearest(ctx, &starlingv1.SearchNearestRequest{Place: &starlingv1.Place{Latitude: c.at.Lat, Longitude: c.at.Lng}})
				require.NoError(b, err)
			}
			b.ReportMetric(float64((cpuTime()-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
		})
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
