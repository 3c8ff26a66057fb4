package replay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"google.golang.org/grpc"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// VerifyOptions set how thoroughly Verify compares.
type VerifyOptions struct {
	// Fleet is the matcher to compare.
	Fleet grpc.ClientConnInterface
	// Places is how many random places are searched.
	Places int
	// MaxResults is the largest answer that is requested; each search draws its
	// own size up to it.
	MaxResults int
	// Seed makes the places repeatable.
	Seed uint64
	// Progress, if not nil, is called after every hundredth place.
	Progress func(done int)
}

// DefaultVerifyOptions compare a thousand places.
func DefaultVerifyOptions() VerifyOptions {
	return VerifyOptions{Places: 1000, MaxResults: 50, Seed: 1}
}

// Verification is what Verify has compared.
type Verification struct {
	// Vehicles have a position and were compared, of Listed ones.
	Vehicles int `json:"vehicles"`
	Listed   int `json:"listed"`
	// Places were searched, and Results results compared.
	Places  int   `json:"places"`
	Results int64 `json:"results"`
	// Retried is how many places were searched again because the fleet had
	// moved meanwhile.
	Retried int `json:"retried"`
}

// distanceToleranceM is how far two ways of computing a distance may differ.
// Half the earth's circumference has 2e7 m, a float64 16 digits.
const distanceToleranceM = 1e-6

// located is a vehicle as the fleet lists it.
type located struct {
	name     string
	lat, lon float64
	distance float64
}

// Verify lists the whole fleet and compares, for random places around and far
// from it, the nearest vehicles by brute force with what SearchNearest answers:
// the same vehicles in exactly the same order. Vehicles that are so nearly at
// one distance that rounding decides may stand either way, unless they are at
// one point, where the name decides. The first difference is the error. A fleet
// that moves is listed again, some times.
func Verify(ctx context.Context, opts VerifyOptions) (Verification, error) {
	var v Verification
	if opts.Fleet == nil || opts.Places < 1 || opts.MaxResults < 1 || opts.MaxResults > 1000 {
		return v, errors.New("verify: fleet must be a connection, places at least 1 and max_results 1 to 1000")
	}
	fleet := starlingv1.NewFleetServiceClient(opts.Fleet)
	vehicles, err := v.list(ctx, fleet)
	if err != nil {
		return v, fmt.Errorf("verify: %w", err)
	}
	rng := rand.New(rand.NewPCG(opts.Seed, 0))
	for v.Places < opts.Places {
		req := randomSearch(rng, vehicles, opts.MaxResults)
		for attempt := 0; ; attempt++ {
			n, err := compare(ctx, fleet, req, vehicles)
			v.Results += int64(n)
			if err == nil {
				break
			}
			moved, merr := v.relist(ctx, fleet, &vehicles)
			if merr != nil || !moved || attempt == 3 {
				return v, fmt.Errorf("verify: %w", errors.Join(err, merr))
			}
			v.Retried++
		}
		v.Places++
		if opts.Progress != nil && v.Places%100 == 0 {
			opts.Progress(v.Places)
		}
	}
	return v, nil
}

// list returns the vehicles that have a position.
func (v *Verification) list(ctx context.Context, fleet starlingv1.FleetServiceClient) ([]located, error) {
	var vehicles []located
	v.Listed = 0
	err := ListFleet(ctx, fleet, func(x *starlingv1.Vehicle) {
		v.Listed++
		if p := x.GetPosition(); p != nil {
			vehicles = append(vehicles, located{name: x.GetName(), lat: p.GetLatitude(), lon: p.GetLongitude()})
		}
	})
	v.Vehicles = len(vehicles)
	return vehicles, err
}

// relist lists the fleet again and reports whether it is another than before.
func (v *Verification) relist(ctx context.Context, fleet starlingv1.FleetServiceClient, vehicles *[]located) (moved bool, err error) {
	now, err := v.list(ctx, fleet)
	if err != nil {
		return false, err
	}
	moved = !slices.EqualFunc(now, *vehicles, func(a, b located) bool { return a.name == b.name && a.lat == b.lat && a.lon == b.lon })
	*vehicles = now
	return moved, nil
}

// randomSearch draws a place: mostly around a vehicle, also anywhere on earth,
// at the poles and on the antimeridian; with or without a radius.
func randomSearch(rng *rand.Rand, vehicles []located, maxResults int) *starlingv1.SearchNearestRequest {
	place := &starlingv1.Place{}
	// Uniform on the sphere.
	place.Latitude = math.Asin(2*rng.Float64()-1) * 180 / math.Pi
	place.Longitude = 360*rng.Float64() - 180
	switch kind := rng.IntN(20); {
	case kind < 14 && len(vehicles) > 0:
		near := vehicles[rng.IntN(len(vehicles))]
		spread := []float64{0, 0.0005, 0.01, 0.3}[rng.IntN(4)] // degrees: on it, 50 m, 1 km, 30 km
		place.Latitude = min(90, max(-90, near.lat+spread*rng.NormFloat64()))
		place.Longitude = math.Remainder(near.lon+spread*rng.NormFloat64(), 360)
	case kind == 14:
		place.Latitude = 90 - 180*float64(rng.IntN(2))
	case kind == 15:
		place.Longitude = 180 - 360*float64(rng.IntN(2))
	}
	req := &starlingv1.SearchNearestRequest{Place: place, MaxResults: int32(1 + rng.IntN(maxResults))}
	if rng.IntN(3) == 0 {
		req.RadiusM = math.Exp(rng.Float64() * math.Log(1e7)) // 1 m to 10,000 km
	}
	return req
}

// compare searches once and returns how many results were compared, and the
// first difference.
func compare(ctx context.Context, fleet starlingv1.FleetServiceClient, req *starlingv1.SearchNearestRequest, vehicles []located) (int, error) {
	resp, err := fleet.SearchNearest(ctx, req)
	if err != nil {
		return 0, fmt.Errorf("search: %w", err)
	}
	place := req.GetPlace()
	all := slices.Clone(vehicles)
	for i := range all {
		all[i].distance = sphereDistanceM(place.GetLatitude(), place.GetLongitude(), all[i].lat, all[i].lon)
	}
	slices.SortFunc(all, func(a, b located) int {
		return cmp.Or(cmp.Compare(a.distance, b.distance), cmp.Compare(a.name, b.name))
	})
	got := resp.GetResults()
	if err := compareLength(len(got), req, all); err != nil {
		return 0, err
	}
	// Vehicles at one point must come in the order of their names, without a gap.
	type point struct{ lat, lon float64 }
	names := map[point][]string{}
	known := make(map[string]located, len(all))
	for _, x := range all {
		names[point{x.lat, x.lon}] = append(names[point{x.lat, x.lon}], x.name)
		known[x.name] = x
	}
	for i, g := range got {
		where := fmt.Sprintf("result %d at (%v, %v)", i, place.GetLatitude(), place.GetLongitude())
		x, ok := known[g.GetVehicle().GetName()]
		if !ok {
			return i, fmt.Errorf("%s is %q, which the fleet does not list with a position", where, g.GetVehicle().GetName())
		}
		if math.Abs(x.distance-g.GetDistanceM()) > distanceToleranceM {
			return i, fmt.Errorf("%s, %s, is %v m away in the answer and in fact %v m", where, x.name, g.GetDistanceM(), x.distance)
		}
		if math.Abs(x.distance-all[i].distance) > distanceToleranceM {
			return i, fmt.Errorf("%s is %s at %v m, by brute force it is %s at %v m", where, x.name, x.distance, all[i].name, all[i].distance)
		}
		at := point{x.lat, x.lon}
		if len(names[at]) == 0 || names[at][0] != x.name {
			return i, fmt.Errorf("%s is %s, but %v at the same point come before it", where, x.name, names[at])
		}
		names[at] = names[at][1:]
	}
	return len(got), nil
}

// compareLength holds the number of results against the bounds of the search.
func compareLength(got int, req *starlingv1.SearchNearestRequest, sorted []located) error {
	want := min(len(sorted), int(req.GetMaxResults()))
	if r := req.GetRadiusM(); r > 0 {
		least := countWithin(sorted, r-distanceToleranceM)
		most := countWithin(sorted, r+distanceToleranceM)
		if got >= min(want, least) && got <= min(want, most) {
			return nil
		}
		want = min(want, least)
	}
	if got != want {
		return fmt.Errorf("%d results at (%v, %v) within %v m, by brute force %d", got, req.GetPlace().GetLatitude(), req.GetPlace().GetLongitude(), req.GetRadiusM(), want)
	}
	return nil
}

func countWithin(sorted []located, radiusM float64) int {
	n, _ := slices.BinarySearchFunc(sorted, radiusM, func(x located, r float64) int {
		if x.distance <= r {
			return -1
		}
		return 1
	})
	return n
}

// sphereDistanceM is the great-circle distance on the sphere of the API's
// radius. It is written here once more, by another formula than the server's
// (Vincenty's for the sphere, T. Vincenty 1975), because it is the judge.
func sphereDistanceM(lat1, lon1, lat2, lon2 float64) float64 {
	const radiusM, rad = 6371008.8, math.Pi / 180
	s1, c1 := math.Sincos(lat1 * rad)
	s2, c2 := math.Sincos(lat2 * rad)
	sd, cd := math.Sincos((lon2 - lon1) * rad)
	y := math.Hypot(c2*sd, c1*s2-s1*c2*cd)
	x := s1*s2 + c1*c2*cd
	return radiusM * math.Atan2(y, x)
}
