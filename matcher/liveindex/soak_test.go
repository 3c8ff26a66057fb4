package liveindex_test

import (
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/uber/h3-go/v4"

	"github.com/starling-fleet/starling/internal/geo"
	ourh3 "github.com/starling-fleet/starling/internal/h3"
	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

var soakQueries = flag.Int("soak.queries", 2_000, "searches that TestSoak compares with brute force")

// TestSoak asks fleets of all kinds at random places while they move, and wants
// every answer to be brute force's, to the vehicle and in order. Give it a
// million searches with
//
//	go test ./matcher/liveindex -run Soak -v -timeout 1h -soak.queries=1000000
func TestSoak(t *testing.T) {
	const fleets = 120
	hub := append(hubs(t), cellCorners(t)...)
	asked, inCells := 0, 0
	for n := range fleets {
		rng := rand.New(rand.NewPCG(uint64(n), 77))
		s := newSoak(rng, hub, n)
		for range (*soakQueries + fleets - 1) / fleets {
			s.move()
			if err := s.ask(); err != nil {
				t.Fatalf("fleet %d: %v", n, err)
			}
			asked++
		}
		inCells += s.inCells
	}
	t.Logf("%d searches of %d fleets, %d of them in sets of H3 cells: recall 1.000, every order exact", asked, fleets, inCells)
}

// cellCorners are places where three H3 cells meet, of the finest cells and of the
// coarsest.
func cellCorners(t *testing.T) (out [][2]float64) {
	for resolution, at := range map[int][2]float64{0: {0, 0}, 5: {48.2, 16.4}, 7: {-33.9, 151.2}, 9: {30.27, -97.74}, 15: {64.7, 10.54}} {
		cell, err := h3.LatLngToCell(h3.LatLng{Lat: at[0], Lng: at[1]}, resolution)
		require.NoError(t, err)
		corners, err := cell.Boundary()
		require.NoError(t, err)
		out = append(out, [2]float64{corners[0].Lat, corners[0].Lng})
	}
	slices.SortFunc(out, func(a, b [2]float64) int { return cmp.Compare(a[0], b[0]) })
	return out
}

// soak is one fleet around a few of the awkward places.
type soak struct {
	rng   *rand.Rand
	hubs  [][2]float64
	reach float64
	index *liveindex.Index
	fleet fleet
	ids   []string
	// inCells counts the searches inside sets of cells.
	inCells int
}

// newSoak makes the n-th fleet: every hub has its turn, alone or with others.
func newSoak(rng *rand.Rand, all [][2]float64, n int) *soak {
	s := &soak{rng: rng, index: liveindex.New(nil), fleet: fleet{}, hubs: [][2]float64{all[n%len(all)]}}
	for range rng.IntN(3) {
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
		return h[0], h[1] // an overflow cube
	}
	return geo.Destination(h[0], h[1], s.rng.Float64()*360, s.reach*s.rng.Float64())
}

func (s *soak) report(id string) {
	v := wire.View{VehicleID: id, DeviceTimeMS: 1 + s.rng.Int64N(10), Availability: starlingv1.Availability(1 + s.rng.IntN(4))}
	v.LatDeg, v.LonDeg = s.place()
	v.Cell = uint64(s.cellAt(v.LatDeg, v.LonDeg, 10))
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
		q.Filter = liveindex.Filter{Availabilities: []starlingv1.Availability{2}, MinFixTimeMS: 5}
	}
	judge := s.fleet
	if s.rng.IntN(8) == 0 {
		q.Within, judge = s.someCells()
		s.inCells++
	}
	want, got := judge.nearest(q), foundBy(s.index.Nearest(q, nil))
	if !slices.Equal(want, got) {
		return fmt.Errorf("%+v: brute force found %v, the index %v", q, want, got)
	}
	return nil
}

func (*soak) cellAt(latDeg, lonDeg float64, resolution int) h3.Cell {
	cell, err := h3.LatLngToCell(h3.LatLng{Lat: latDeg, Lng: lonDeg}, resolution)
	if err != nil {
		panic(err)
	}
	return cell
}

// someCells is a set of one to three cells and the part of the fleet that is in
// them.
func (s *soak) someCells() (*liveindex.Area, fleet) {
	resolution := s.rng.IntN(11)
	set, in := []ourh3.Cell{}, fleet{}
	for range 1 + s.rng.IntN(3) {
		lat, lon := s.place()
		set = append(set, ourh3.Cell(s.cellAt(lat, lon, resolution)))
	}
	area, err := liveindex.NewCells(set)
	if err != nil {
		panic(err)
	}
	for id, v := range s.fleet {
		parent, err := h3.Cell(v.Cell).Parent(resolution)
		if err != nil {
			panic(err)
		}
		if slices.Contains(set, ourh3.Cell(parent)) {
			in[id] = v
		}
	}
	return area, in
}
