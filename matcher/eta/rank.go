package eta

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// fleet.proto states these bounds.
const (
	comparedFactor = 4
	minCompared    = 50
)

// Compared returns how many of the nearest by distance are compared by travel
// time when so many are wanted, at most a bound.
func Compared(want, most int) int { return min(max(want*comparedFactor, minCompared), most) }

// Arrival is a place that was ranked.
type Arrival struct {
	Index  int // in the places that Rank was given
	Travel time.Duration
}

// Rank returns the first so many places by travel time to another, without those
// that can't get there. Equal times stay in the order given. It fails when the
// estimator does.
func Rank(ctx context.Context, e Estimator, from []Place, to Place, want int) ([]Arrival, error) {
	if len(from) == 0 {
		return nil, nil
	}
	times, err := e.Arrivals(ctx, from, to)
	if err != nil {
		return nil, err
	}
	out := make([]Arrival, 0, len(times))
	for i, travel := range times {
		if travel != Unreachable {
			out = append(out, Arrival{i, travel})
		}
	}
	slices.SortStableFunc(out, func(a, b Arrival) int { return cmp.Compare(a.Travel, b.Travel) })
	return out[:min(want, len(out))], nil
}
