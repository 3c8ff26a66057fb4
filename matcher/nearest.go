package matcher

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/starling-fleet/starling/internal/geo"
	"github.com/starling-fleet/starling/matcher/eta"
	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// hit is a vehicle found, with its travel time where that was asked for.
type hit struct {
	*liveindex.Hit
	travel time.Duration
}

// hitPool lends memory to the index's answers.
var hitPool = sync.Pool{New: func() any { return new([]liveindex.Hit) }}

// maxPooledHits bounds what a pooled slice keeps in memory.
const maxPooledHits = 64

// Bounds of how many of the nearest are compared by travel time; fleet.proto
// states them.
const (
	arrivalFactor = 4
	minCompared   = 50
)

// SearchNearest implements starlingv1.FleetServiceServer.
func (m *Matcher) SearchNearest(ctx context.Context, req *starlingv1.SearchNearestRequest) (*starlingv1.SearchNearestResponse, error) {
	if err := m.serving(); err != nil {
		return nil, err
	}
	nowMS := m.now().UnixMilli()
	var f faults
	q := f.query(req, nowMS)
	if err := f.err(); err != nil {
		return nil, err
	}
	if req.GetPredict() {
		q.Ahead = &liveindex.Ahead{NowMS: nowMS, LimitMS: m.cfg.PredictLimit.Milliseconds()}
	}
	pooled := hitPool.Get().(*[]liveindex.Hit)
	found, err := m.find(ctx, q, req.GetRanking(), (*pooled)[:0])
	if err != nil {
		return nil, err
	}
	answer := &starlingv1.SearchNearestResponse{Results: nearbyMessages(found.hits, nowMS), StalePartitions: m.staleMessages(nowMS)}
	if cap(found.memory) <= maxPooledHits {
		clear(found.memory)
		*pooled = found.memory
		hitPool.Put(pooled)
	}
	return answer, nil
}

// finding is an answer and the memory it stands in.
type finding struct {
	hits   []hit
	memory []liveindex.Hit
}

// find searches the index and, if the ranking asks for it, compares travel
// times.
func (m *Matcher) find(ctx context.Context, q liveindex.Query, ranking starlingv1.Ranking, memory []liveindex.Hit) (finding, error) {
	want, arrival := q.MaxResults, ranking == starlingv1.Ranking_RANKING_ARRIVAL
	if arrival {
		q.MaxResults = min(max(want*arrivalFactor, minCompared), maxResults)
	}
	began := time.Now()
	memory = m.index.Nearest(q, memory)
	m.metrics.searchSeconds.Observe(time.Since(began).Seconds())
	hits := make([]hit, len(memory))
	for i := range memory {
		hits[i] = hit{Hit: &memory[i], travel: -1}
	}
	if !arrival || len(hits) == 0 {
		return finding{hits, memory}, nil
	}
	from := make([]eta.Place, len(hits))
	for i, h := range hits {
		from[i] = eta.Place{LatDeg: h.Vehicle.LatDeg, LonDeg: h.Vehicle.LonDeg}
		if h.Predicted {
			from[i] = eta.Place{LatDeg: h.Prediction.LatDeg, LonDeg: h.Prediction.LonDeg}
		}
	}
	times, err := m.eta.Arrivals(ctx, from, eta.Place{LatDeg: q.LatDeg, LonDeg: q.LonDeg})
	if err != nil {
		if ctx.Err() != nil {
			return finding{}, status.FromContextError(ctx.Err()).Err()
		}
		m.logger.Warn("no travel times", "error", err)
		return finding{}, statusError(codes.Unavailable, reasonNoTravelTimes, "travel times cannot be had at the moment", retryInfo())
	}
	for i := range hits {
		hits[i].travel = times[i]
	}
	hits = slices.DeleteFunc(hits, func(h hit) bool { return h.travel == eta.Unreachable })
	// Stable: equal times stay in the order of distance and name.
	slices.SortStableFunc(hits, func(a, b hit) int { return cmp.Compare(a.travel, b.travel) })
	return finding{hits[:min(want, len(hits))], memory}, nil
}

func nearbyMessages(hits []hit, nowMS int64) []*starlingv1.NearbyVehicle {
	messages, out := make([]vehicleMessage, len(hits)), make([]*starlingv1.NearbyVehicle, len(hits))
	for i, h := range hits {
		near := &messages[i].nearby
		near.Vehicle, near.DistanceM = messages[i].fill(&h.Vehicle, nowMS), h.DistanceM
		if h.Predicted {
			near.PredictedPosition = predictedPosition(h.Hit)
		}
		if h.travel >= 0 {
			near.TravelTime = durationpb.New(h.travel)
		}
		out[i] = near
	}
	return out
}

func predictedPosition(h *liveindex.Hit) *starlingv1.Position {
	v, p := &h.Vehicle, h.Prediction
	grown := float32(p.VarGrowthM2)
	return &starlingv1.Position{
		Latitude: p.LatDeg, Longitude: p.LonDeg,
		VarEastM2: v.VarEastM2 + grown, CovEastNorthM2: v.CovEastNorthM2, VarNorthM2: v.VarNorthM2 + grown,
		UncertaintyRadiusM: float32(geo.Ellipse95RadiusM(float64(v.VarEastM2+grown), float64(v.CovEastNorthM2), float64(v.VarNorthM2+grown))),
	}
}
