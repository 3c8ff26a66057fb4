package liveindex_test

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/starling-fleet/starling/internal/geo"
	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/stretchr/testify/require"
	"github.com/uber/h3-go/v4"
	"pgregory.net/rapid"
)

// fleet is the judge: the newest view of every vehicle, searched one by one.
type fleet map[string]wire.View

type found struct {
	ID        string
	DistanceM float64
}

func (f fleet) nearest(q liveindex.Query) []found {
	var all []found
	for id, v := range f {
		if v.DeviceTimeMS == 0 || !fresh(q.Filter, v) || !passes(q.Filter, v) {
			continue
		}
		d := geo.DistanceDeg(q.LatDeg, q.LonDeg, v.LatDeg, v.LonDeg)
		if q.RadiusM > 0 && d > q.RadiusM {
			continue
		}
		all = append(all, found{id, d})
	}
	slices.SortFunc(all, func(a, b found) int {
		return cmp.Or(cmp.Compare(a.DistanceM, b.DistanceM), strings.Compare(a.ID, b.ID))
	})
	return all[:min(len(all), q.MaxResults)]
}

// fixTime is when the newest fix was taken by the log's clock: not after the
// report that it came with.
func fixTime(v wire.View) int64 {
	ms := v.DeviceTimeMS - v.DeviceClockAheadMS
	if v.SeenTimeMS > 0 {
		ms = min(ms, v.SeenTimeMS)
	}
	return ms
}

func fresh(f liveindex.Filter, v wire.View) bool {
	least := f.MinFixTimeMS
	if least == 0 {
		return true
	}
	if f.Skew.Of != nil {
		least += f.Skew.Of(v.VehicleID)
	}
	return fixTime(v) >= least
}

func passes(f liveindex.Filter, v wire.View) bool {
	is := v.Availability
	if v.DerivedAvailability != 0 {
		is = v.DerivedAvailability
	}
	if len(f.Availabilities) > 0 && !slices.Contains(f.Availabilities, is) {
		return false
	}
	if f.Dispatchable && (!v.Dispatchable || is != starlingv1.Availability_AVAILABILITY_FREE) {
		return false
	}
	if len(f.Types) > 0 && !slices.Contains(f.Types, v.Attributes.Type) {
		return false
	}
	for _, tag := range f.Tags {
		if !slices.Contains(v.Attributes.Tags, tag) {
			return false
		}
	}
	return v.Attributes.Seats >= f.MinSeats
}

func foundBy(hits []liveindex.Hit) []found {
	var out []found
	for _, h := range hits {
		out = append(out, found{h.Vehicle.ID, h.DistanceM})
	}
	return out
}

// hubs are the places where an index that thinks in latitudes, longitudes or
// hexagons goes wrong first: poles, the antimeridian, the twelve pentagons of
// H3, and corners of cubes.
func hubs(t testing.TB) [][2]float64 {
	out := [][2]float64{{90, 0}, {-90, 12}, {0, 180}, {65, -180}, {-17, 179.99}, {0, 0}, {45, 45}, {35.26438968, 45}, {30.27, -97.74}}
	pentagons, err := h3.Pentagons(7)
	require.NoError(t, err)
	for _, c := range pentagons {
		ll, err := h3.CellToLatLng(c)
		require.NoError(t, err)
		out = append(out, [2]float64{ll.Lat, ll.Lng})
	}
	return out
}

// places draws places that crowd around hubs at every scale.
func places(hubs [][2]float64) *rapid.Generator[[2]float64] {
	return rapid.Custom(func(t *rapid.T) [2]float64 {
		hub := rapid.SampledFrom(hubs).Draw(t, "hub")
		switch rapid.IntRange(0, 5).Draw(t, "how") {
		case 0:
			return hub
		case 1:
			return [2]float64{rapid.Float64Range(-90, 90).Draw(t, "lat"), rapid.Float64Range(-180, 180).Draw(t, "lon")}
		default:
			reach := rapid.SampledFrom([]float64{1e-3, 1, 50, 3e3, 1e5, 5e6, 2e7}).Draw(t, "reach")
			lat, lon := geo.Destination(hub[0], hub[1], rapid.Float64Range(0, 360).Draw(t, "bearing"), reach*rapid.Float64Range(0, 1).Draw(t, "part"))
			return [2]float64{lat, lon}
		}
	})
}

var (
	types = []string{"van", "bike", "limousine", ""}
	tags  = []string{"wheelchair", "pets", "quiet"}
)

func views(place *rapid.Generator[[2]float64], ids int) *rapid.Generator[wire.View] {
	return rapid.Custom(func(t *rapid.T) wire.View {
		at := place.Draw(t, "at")
		v := wire.View{
			VehicleID:     fmt.Sprintf("v%03d", rapid.IntRange(0, ids-1).Draw(t, "id")),
			DeviceTimeMS:  rapid.SampledFrom([]int64{0, 1000, 2000, 3000, 4000}).Draw(t, "time"),
			SeenTimeMS:    5000,
			Availability:  starlingv1.Availability(rapid.IntRange(0, 5).Draw(t, "availability")),
			HasAttributes: rapid.Bool().Draw(t, "has"),

			DerivedAvailability: rapid.SampledFrom([]starlingv1.Availability{0, 0, 0, 3, 4}).Draw(t, "derived"),
			Dispatchable:        rapid.Bool().Draw(t, "dispatchable"),
			DeviceClockAheadMS:  rapid.SampledFrom([]int64{0, 0, 999, -700, 2500}).Draw(t, "ahead"),
		}
		v.LatDeg, v.LonDeg = at[0], at[1]
		if v.HasAttributes {
			v.Attributes = wire.Attributes{
				Type:  rapid.SampledFrom(types).Draw(t, "type"),
				Seats: rapid.Int32Range(0, 8).Draw(t, "seats"),
				Tags:  rapid.SliceOfNDistinct(rapid.SampledFrom(tags), 0, 3, rapid.ID[string]).Draw(t, "tags"),
			}
		}
		return v
	})
}

// someLater has it later for every third vehicle.
var someLater = liveindex.Skew{MostMS: 2000, Of: func(id string) int64 { return int64(id[len(id)-1]%3) * 1000 }}

func queries(place *rapid.Generator[[2]float64]) *rapid.Generator[liveindex.Query] {
	return rapid.Custom(func(t *rapid.T) liveindex.Query {
		at := place.Draw(t, "place")
		q := liveindex.Query{LatDeg: at[0], LonDeg: at[1]}
		q.MaxResults = rapid.SampledFrom([]int{1, 2, 10, 1000}).Draw(t, "k")
		q.RadiusM = rapid.SampledFrom([]float64{0, 1e-3, 10, 1e4, 1e6, 1.9e7, 3e7}).Draw(t, "radius")
		if rapid.Bool().Draw(t, "filtered") {
			q.Filter = liveindex.Filter{
				Types:        rapid.SliceOfNDistinct(rapid.SampledFrom(types), 0, 2, rapid.ID[string]).Draw(t, "types"),
				MinSeats:     rapid.Int32Range(0, 6).Draw(t, "min seats"),
				Tags:         rapid.SliceOfNDistinct(rapid.SampledFrom(tags), 0, 2, rapid.ID[string]).Draw(t, "need tags"),
				MinFixTimeMS: rapid.SampledFrom([]int64{0, 2000, 3000}).Draw(t, "not before"),
			}
			q.Filter.Dispatchable = rapid.Bool().Draw(t, "only dispatchable")
			if rapid.Bool().Draw(t, "skewed") {
				q.Filter.Skew = someLater
			}
			for _, a := range rapid.SliceOfNDistinct(rapid.IntRange(0, 5), 0, 3, rapid.ID[int]).Draw(t, "availabilities") {
				q.Filter.Availabilities = append(q.Filter.Availabilities, starlingv1.Availability(a))
			}
		}
		return q
	})
}

// TestNearestAgainstBruteForce changes a fleet at random and asks as it goes.
func TestNearestAgainstBruteForce(t *testing.T) {
	place := places(hubs(t))
	rapid.Check(t, func(t *rapid.T) {
		const ids = 300
		view, query := views(place, ids), queries(place)
		x, judge := liveindex.New(nil), fleet{}
		t.Repeat(map[string]func(*rapid.T){
			"report": func(t *rapid.T) {
				v := view.Draw(t, "view")
				require.NoError(t, x.Upsert(&v))
				judge[v.VehicleID] = v
			},
			"many report": func(t *rapid.T) {
				for _, v := range rapid.SliceOfN(view, 20, 100).Draw(t, "views") {
					require.NoError(t, x.Upsert(&v))
					judge[v.VehicleID] = v
				}
			},
			"all on one point": func(t *rapid.T) {
				v := view.Draw(t, "view")
				for i := range ids / 2 {
					v.VehicleID = fmt.Sprintf("v%03d", i*2)
					require.NoError(t, x.Upsert(&v))
					judge[v.VehicleID] = v
				}
			},
			"forgotten": func(t *rapid.T) {
				id := fmt.Sprintf("v%03d", rapid.IntRange(0, ids-1).Draw(t, "id"))
				_, known := judge[id]
				require.Equal(t, known, x.Remove(id))
				delete(judge, id)
			},
			"": func(t *rapid.T) {
				require.Equal(t, len(judge), x.Len())
				q := query.Draw(t, "query")
				require.Equal(t, judge.nearest(q), foundBy(x.Nearest(q, nil)))
				for id, v := range judge {
					if v.DeviceTimeMS != 0 { // searches find no others
						got, _ := x.Get(id)
						require.Equal(t, fresh(q.Filter, v) && passes(q.Filter, v), q.Filter.Passes(&got), "%s", id)
					}
				}
			},
		})
		checkReads(t, x, judge)
	})
}

// checkReads compares every vehicle by id and by page with the judge's.
func checkReads(t *rapid.T, x *liveindex.Index, judge fleet) {
	after, pages := "", []string(nil)
	for {
		page, next := x.Page(after, 7, nil)
		for _, v := range page {
			pages = append(pages, v.ID)
			got, ok := x.GetWhole(v.ID)
			require.True(t, ok)
			require.Equal(t, got, v)
			want := judge[v.ID]
			require.Equal(t, want.DeviceTimeMS, v.DeviceTimeMS)
			require.Equal(t, want.LatDeg, v.LatDeg)
			require.Equal(t, want.LonDeg, v.LonDeg)
			require.Equal(t, want.Availability, v.Availability)
			require.Equal(t, want.HasAttributes, v.Attributes != nil)
		}
		if next == "" {
			break
		}
		require.Greater(t, next, after)
		after = next
	}
	var want []string
	for id := range judge {
		want = append(want, id)
	}
	slices.Sort(want)
	require.Equal(t, want, pages)
	_, ok := x.Get("nobody")
	require.False(t, ok)
}

func TestUpsertKeepsEveryField(t *testing.T) {
	x := liveindex.New(nil)
	v := wire.View{
		VehicleID: "a", DeviceTimeMS: 7, SeenTimeMS: 8, Cell: 0x8928308280fffff,
		Estimate: wire.Estimate{
			LatDeg: 1.5, LonDeg: -2.5, SpeedMPS: 3, HeadingDeg: 4, HasSpeed: true, HasHeading: true,
			VarEastM2: 5, CovEastNorthM2: -6, VarNorthM2: 7, Verdict: starlingv1.Verdict_VERDICT_CORRECTED,
		},
		Availability: starlingv1.Availability_AVAILABILITY_ON_RIDE, HasAttributes: true,
		Attributes: wire.Attributes{Type: "van", Seats: 8, Tags: []string{"pets"}},
		Counts:     wire.FixCounts{Accepted: 1 << 40, Duplicate: 2, Conflict: 1 << 40, Late: 4, SetAside: 5},

		DerivedAvailability: starlingv1.Availability_AVAILABILITY_RESERVED, Conflicting: true, DeviceClockAheadMS: 3000, OdometerM: 1234.56,
		Diagnosis: wire.Diagnosis{AccuracyScale: 2, HasAccuracyScale: true, HasVelocityCredibility: true, BiasM: 12.34, OutlierShare: 1},
	}
	v.DisplayLatDeg, v.DisplayLonDeg = 1.50000004, -179.99999996
	require.NoError(t, x.Upsert(&v))
	want := liveindex.Vehicle{
		ID: "a", DeviceTimeMS: 7, SeenTimeMS: 8, Cell: 0x8928308280fffff, LatDeg: 1.5, LonDeg: -2.5,
		SpeedMPS: 3, HeadingDeg: 4, HasSpeed: true, HasHeading: true,
		VarEastM2: 5, CovEastNorthM2: -6, VarNorthM2: 7, Verdict: starlingv1.Verdict_VERDICT_CORRECTED,
		Availability: starlingv1.Availability_AVAILABILITY_ON_RIDE,
		Attributes:   &liveindex.Attributes{Type: "van", Seats: 8, Tags: []string{"pets"}},
		Counts:       liveindex.Counts{Accepted: 1<<32 - 1, Duplicate: 2, Conflict: 1<<32 - 1, Late: 4, SetAside: 5},

		DerivedAvailability: starlingv1.Availability_AVAILABILITY_RESERVED, Conflicting: true, DeviceClockAheadMS: 3000,
		Learned: &liveindex.Learned{
			DisplayLatDeg: 1.5, DisplayLonDeg: -180, OdometerM: 1234.6,
			Diagnosis: liveindex.Diagnosis{AccuracyScale: 2, HasVelocity: true, BiasM: 12.3, OutlierShare: 1},
		},
	}
	got, ok := x.GetWhole("a")
	require.True(t, ok)
	require.Equal(t, want, got)
	page, _ := x.Page("", 1, nil)
	require.Equal(t, want, page[0])
	require.True(t, x.Has("a"))
	require.False(t, x.Has("b"))
	require.Zero(t, testing.AllocsPerRun(100, func() { x.Has("a") }), "whether a vehicle is known needs no copy of it")
	want.Learned = nil
	got, ok = x.Get("a")
	require.True(t, ok)
	require.Equal(t, want, got)
	hits := x.Nearest(liveindex.Query{LatDeg: 1.5, LonDeg: -2.5, MaxResults: 1}, nil)
	require.Equal(t, []liveindex.Hit{{Vehicle: want}}, hits)
}

// A fix is not younger than the report that brought it, whatever the device's
// clock shows: its age is never negative, and its clock's error is known.
func TestFixIsNotTakenAfterItsReport(t *testing.T) {
	x := liveindex.New(nil)
	v := wire.View{VehicleID: "a", DeviceTimeMS: 50_000, SeenTimeMS: 10_000, DeviceClockAheadMS: 1000}
	require.NoError(t, x.Upsert(&v))
	got, _ := x.Get("a")
	require.EqualValues(t, 40_000, got.DeviceClockAheadMS)
	require.EqualValues(t, 10_000, got.FixTimeMS())
	v.DeviceTimeMS = 9000 // a device that is behind keeps what the tracker learned
	v.DeviceClockAheadMS = -500
	require.NoError(t, x.Upsert(&v))
	got, _ = x.Get("a")
	require.EqualValues(t, 9500, got.FixTimeMS())
}

// What the index rounds keeps close to what was learned.
func TestDiagnosisIsKeptToAFewPercent(t *testing.T) {
	x := liveindex.New(nil)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		d := wire.Diagnosis{
			AccuracyScale: float32(math.Exp2(rng.Float64()*14 - 7)), HasAccuracyScale: true,
			VelocityCredibility: rng.Float32(), HasVelocityCredibility: true,
			BiasM: rng.Float32() * 6000, OutlierShare: rng.Float32(),
		}
		require.NoError(t, x.Upsert(&wire.View{VehicleID: "a", Diagnosis: d}))
		got, _ := x.GetWhole("a")
		v := got.Learned
		require.InEpsilon(t, d.AccuracyScale, v.Diagnosis.AccuracyScale, 0.022)
		require.InDelta(t, d.VelocityCredibility, v.Diagnosis.VelocityCredibility, 0.002)
		require.InDelta(t, d.BiasM, v.Diagnosis.BiasM, 0.051)
		require.InDelta(t, d.OutlierShare, v.Diagnosis.OutlierShare, 0.002)
	}
	for _, odd := range []float32{float32(math.NaN()), float32(math.Inf(1)), -1, 0, 1e-30} {
		require.NoError(t, x.Upsert(&wire.View{VehicleID: "a", OdometerM: float64(odd), Diagnosis: wire.Diagnosis{
			AccuracyScale: odd, HasAccuracyScale: true, VelocityCredibility: odd, HasVelocityCredibility: true, BiasM: odd, OutlierShare: odd,
		}}))
		got, _ := x.GetWhole("a")
		v := got.Learned
		for _, f := range []float64{float64(v.Diagnosis.AccuracyScale), float64(v.Diagnosis.BiasM), v.OdometerM} {
			require.False(t, f < 0 || math.IsNaN(f) || math.IsInf(f, 0), "%v became %v", odd, f)
		}
	}
}

func TestUpsertRefuses(t *testing.T) {
	nan := func(v *wire.View, f *float64) { zero := 0.0; *f = zero / zero }
	for field, spoil := range map[string]func(*wire.View){
		"vehicle_id":           func(v *wire.View) { v.VehicleID = "" },
		"latitude":             func(v *wire.View) { nan(v, &v.LatDeg) },
		"longitude":            func(v *wire.View) { v.LonDeg = 180.1 },
		"availability":         func(v *wire.View) { v.Availability = 8 },
		"derived_availability": func(v *wire.View) { v.DerivedAvailability = 8 },
		"verdict":              func(v *wire.View) { v.Verdict = -1 },
		"device_time_ms":       func(v *wire.View) { v.DeviceTimeMS = -1 },
	} {
		x := liveindex.New(nil)
		v := wire.View{VehicleID: "a", DeviceTimeMS: 1}
		require.NoError(t, x.Upsert(&v))
		v.LatDeg = 5
		spoil(&v)
		require.ErrorContains(t, x.Upsert(&v), field)
		got, ok := x.Get("a")
		require.True(t, ok)
		require.Zero(t, got.LatDeg, "a refused view changed the vehicle")
	}
}
