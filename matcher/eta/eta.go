// Package eta estimates when vehicles arrive at a place. Estimator is what a
// search ranks by; GreatCircle needs nothing but arithmetic, and OSRM asks a
// routing server.
package eta

import (
	"context"
	"math"
	"time"

	"github.com/starling-fleet/starling/internal/geo"
	"github.com/starling-fleet/starling/internal/valid"
)

// Place is a point in WGS84 degrees.
type Place struct{ LatDeg, LonDeg float64 }

// Unreachable is the time of a vehicle that cannot get there.
const Unreachable = time.Duration(math.MaxInt64)

// Estimator answers many vehicles at once. Implementations are safe for
// concurrent use.
type Estimator interface {
	// Arrivals returns how long a drive to a place takes from each of the
	// others, in their order; Unreachable where there is no way. It fails as a
	// whole: an answer has a time for every place.
	Arrivals(ctx context.Context, from []Place, to Place) ([]time.Duration, error)
}

// GreatCircle takes the great-circle distance, lengthened by a factor, at a
// constant speed.
type GreatCircle struct {
	speedMPS, detour float64
}

// NewGreatCircle returns an estimator for a speed in metres per second and the
// ratio of a way's length to the great circle's, at least 1 (1.3 to 1.4 is
// usual in cities: D. Levinson and A. El-Geneidy, "The minimum circuity
// frontier and the journey to work", 2009).
func NewGreatCircle(speedMPS, detour float64) (*GreatCircle, error) {
	var faults valid.Faults
	faults.Need(speedMPS > 0 && speedMPS <= 1000, "speed_mps", speedMPS, "above 0 and at most 1000")
	valid.Between(&faults, "detour", detour, 1, 100)
	return &GreatCircle{speedMPS, detour}, faults.Err()
}

// Arrivals implements Estimator and never fails.
func (g *GreatCircle) Arrivals(_ context.Context, from []Place, to Place) ([]time.Duration, error) {
	out := make([]time.Duration, len(from))
	for i, p := range from {
		m := geo.DistanceDeg(p.LatDeg, p.LonDeg, to.LatDeg, to.LonDeg)
		out[i] = time.Duration(m * g.detour / g.speedMPS * float64(time.Second))
	}
	return out, nil
}
