package liveindex_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/starling-fleet/starling/internal/geo"
	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

var soakQueries = flag.Int("soak.queries", 5_000, "searches that TestSoak compares with brute force")

// TestSoak asks fleets of all kinds at random places while they move, and wants
// every answer to be brute force's, to the vehicle and in order. Give it a
// million searches with -soak.queries=1000000.
func TestSoak(t *testing.T) {
	const fleets = 100
	hub := hubs(t)
	for n := range fleets {
		rng := rand.New(rand.NewPCG(uint64(n), 77))
		s := newSoak(rng, hub)
		for range *soakQueries / fleets {
			s.move()
			if err := s.ask(); err != nil {
				t.Fatalf("fleet %d: %v", n, err)
			}
		}
	}
}

// soak is one fleet around a few of the awkward places.
type soak struct {
	rng   *rand.Rand
	hubs  [][2]float64
	reach float64
	index *liveindex.Index
	fleet fleet
	ids   []string
}

func newSoak(rng *rand.Rand, all [][2]float64) *soak {
	s := &soak{rng: rng, index: liveindex.New(nil), fleet: fleet{}}
	for range 1 + rng.IntN(3) {
		s.hubs = append(s.hubs, all[rng.IntN(len(all))])
	}
	s.reach = []float64{0.01, 1, 100, 2e3, 5e4, 1e6, 2e7}[rng.IntN(7)]
	for i := range 50 + rng.IntN(500) {
		s.ids = append(s.ids, fmt.Sprintf("v%04d", i))
		s.report(s.ids[i])
	}
	return s
}

func (s *soak) place() (latDeg, lonDeg float64) {
	h := s.hubs[s.rng.IntN(len(s.hubs))]
	if s.rng.IntN(8) == 0 {
		return h[0], h[1] // a pile
	}
	return geo.Destination(h[0], h[1], s.rng.Float64()*360, s.reach*s.rng.Float64())
}

func (s *soak) report(id string) {
	v := wire.View{VehicleID: id, DeviceTimeMS: 1 + s.rng.Int64N(10), Availability: starlingv1.Availability(1 + s.rng.IntN(4))}
	v.LatDeg, v.LonDeg = s.place()
	if err := s.index.Upsert(&v); err != nil {
		panic(err)
	}
	s.fleet[id] = v
}

// move lets a few vehicles report, and one come or go.
func (s *soak) move() {
	for range 3 {
		s.report(s.ids[s.rng.IntN(len(s.ids))])
	}
	if id := s.ids[s.rng.IntN(len(s.ids))]; s.rng.IntN(3) == 0 {
		s.index.Remove(id)
		delete(s.fleet, id)
	}
}

func (s *soak) ask() error {
	q := liveindex.Query{MaxResults: []int{1, 10, 10, 10, 50}[s.rng.IntN(5)]}
	q.LatDeg, q.LonDeg = s.place()
	if s.rng.IntN(3) == 0 {
		q.RadiusM = s.reach * s.rng.Float64() * 2
	}
	if s.rng.IntN(3) == 0 {
		q.Filter = liveindex.Filter{Availabilities: []starlingv1.Availability{2}, MinDeviceTimeMS: 5}
	}
	want, got := s.fleet.nearest(q), foundBy(s.index.Nearest(q, nil))
	if !slices.Equal(want, got) {
		return fmt.Errorf("%+v: brute force found %v, the index %v", q, want, got)
	}
	return nil
}
