package liveindex_test

import (
	"flag"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/starling-fleet/starling/matcher/liveindex"
)

var (
	contentionRounds = flag.Int("contention.rounds", 0, "rounds of TestReaderBesideWriter; 0 skips it")
	contentionTime   = flag.Duration("contention.time", 2*time.Second, "time of each measurement of TestReaderBesideWriter")
)

// TestReaderBesideWriter measures what a writer costs a reader: searches per
// second of one reader while its own index takes 50,000 updates a second,
// divided by those while an unrelated index of the same kind takes them. So the
// writer's use of the other core, of caches and of the collector is on both
// sides, and what is left is what the two do to each other. It needs two idle
// cores:
//
//	go test ./matcher/liveindex -run ReaderBesideWriter -v -contention.rounds=9
func TestReaderBesideWriter(t *testing.T) {
	if *contentionRounds == 0 {
		t.Skip("measures only with -contention.rounds")
	}
	const vehicles, updates = 100_000, 50_000
	for _, l := range layouts[:2] {
		own, views := build(t, l, vehicles)
		other, otherViews := build(t, l, vehicles)
		var ratios []float64
		for round := range *contentionRounds {
			rates := map[bool]float64{}
			for _, busy := range [][]bool{{true, false}, {false, true}}[round%2] {
				target, v := other, otherViews
				if busy {
					target, v = own, views
				}
				rates[busy] = searchRate(own, l, func(stop <-chan struct{}) { drive(target, v, l, updates, stop) })
			}
			ratios = append(ratios, rates[true]/rates[false])
			t.Logf("%s: %.0f searches/s beside a writer of its own index, %.0f beside another's: %.3f", l.name, rates[true], rates[false], rates[true]/rates[false])
		}
		slices.Sort(ratios)
		t.Logf("%s: median of %d rounds: %.3f", l.name, len(ratios), ratios[len(ratios)/2])
	}
}

// searchRate is how many searches a second one reader does beside a writer.
func searchRate(x *liveindex.Index, l layout, write func(stop <-chan struct{})) float64 {
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		write(stop)
	}()
	rng := rand.New(rand.NewPCG(7, 8))
	var hits []liveindex.Hit
	searches, began := 0, time.Now()
	for time.Since(began) < *contentionTime {
		for range 100 {
			lat, lon := l.place(rng)
			hits = x.Nearest(liveindex.Query{LatDeg: lat, LonDeg: lon, MaxResults: 10}, hits[:0])
		}
		searches += 100
	}
	rate := float64(searches) / time.Since(began).Seconds()
	close(stop)
	<-stopped
	return rate
}
