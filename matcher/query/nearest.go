package query

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/starling-fleet/starling/internal/geo"
	"github.com/starling-fleet/starling/matcher/eta"
	"github.com/starling-fleet/starling/matcher/follow"
	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// hit is a vehicle found, with its travel time where that was asked for.
type hit struct {
	*liveindex.Hit
	travel time.Duration
}

// finding is an answer: hits in order, which point into found.
type finding struct {
	found []liveindex.Hit
	hits  []hit
}

// findingPool lends memory to answers.
var findingPool = sync.Pool{New: func() any { return new(finding) }}

// maxPooledHits bounds what a pooled finding keeps in memory.
const maxPooledHits = 64

// free gives a finding back to the pool.
func (f *finding) free() {
	if cap(f.found) > maxPooledHits {
		return
	}
	clear(f.found[:cap(f.found)])
	clear(f.hits[:cap(f.hits)])
	f.found, f.hits = f.found[:0], f.hits[:0]
	findingPool.Put(f)
}

// SearchNearest implements starlingv1.FleetServiceServer for callers in the
// process; over gRPC, SearchNearestEncoded answers the same.
func (s *Searcher) SearchNearest(ctx context.Context, req *starlingv1.SearchNearestRequest) (*starlingv1.SearchNearestResponse, error) {
	memory := findingPool.Get().(*finding)
	defer memory.free()
	now, err := s.search(ctx, req, memory)
	if err != nil {
		return nil, err
	}
	return &starlingv1.SearchNearestResponse{Results: nearbyMessages(memory.hits, &now), StalePartitions: StaleMessages(s.follower, now.MS)}, nil
}

// search finds what a request asks for and returns the moment that it was asked
// at.
func (s *Searcher) search(ctx context.Context, req *starlingv1.SearchNearestRequest, to *finding) (now follow.Moment, err error) {
	if err := Serving(s.follower); err != nil {
		return now, err
	}
	now = s.follower.Moment()
	var f Faults
	q := f.query(req, &now)
	if err := f.Err(); err != nil {
		return now, err
	}
	if req.GetPredict() {
		q.Ahead = &liveindex.Ahead{NowMS: now.MS, LimitMS: s.cfg.PredictLimit.Milliseconds(), Skew: now.Skew}
	}
	if err := s.find(ctx, q, req.GetRanking(), to); err != nil {
		return now, err
	}
	for i := range to.found {
		now.Freshen(&to.found[i].Vehicle)
	}
	return now, nil
}

// find searches the index and, if the ranking asks for it, compares travel
// times.
func (s *Searcher) find(ctx context.Context, q liveindex.Query, ranking starlingv1.Ranking, to *finding) error {
	want, arrival := q.MaxResults, ranking == starlingv1.Ranking_RANKING_ARRIVAL
	if arrival {
		q.MaxResults = eta.Compared(want, maxResults)
	}
	began := s.now()
	to.found = s.index.Nearest(q, to.found)
	s.searchSeconds.Observe(s.now().Sub(began).Seconds())
	for i := range to.found {
		to.hits = append(to.hits, hit{Hit: &to.found[i], travel: -1})
	}
	if !arrival || len(to.hits) == 0 {
		return nil
	}
	return s.rankByArrival(ctx, q, want, to)
}

// rankByArrival puts the hits in the order of their travel times and keeps as
// many as are wanted.
func (s *Searcher) rankByArrival(ctx context.Context, q liveindex.Query, want int, to *finding) error {
	hits := to.hits
	from := make([]eta.Place, len(hits))
	for i, h := range hits {
		from[i] = eta.Place{LatDeg: h.Vehicle.LatDeg, LonDeg: h.Vehicle.LonDeg}
		if h.Predicted {
			from[i] = eta.Place{LatDeg: h.Prediction.LatDeg, LonDeg: h.Prediction.LonDeg}
		}
	}
	ranked, err := eta.Rank(ctx, s.eta, from, eta.Place{LatDeg: q.LatDeg, LonDeg: q.LonDeg}, want)
	if err != nil {
		if ctx.Err() != nil {
			return status.FromContextError(ctx.Err()).Err()
		}
		s.logger.Warn("no travel times", "error", err)
		return Error(codes.Unavailable, reasonNoTravelTimes, "travel times cannot be had at the moment", RetryInfo())
	}
	to.hits = to.hits[:0]
	for _, a := range ranked {
		to.hits = append(to.hits, hit{Hit: &to.found[a.Index], travel: a.Travel})
	}
	return nil
}

func nearbyMessages(hits []hit, now *follow.Moment) []*starlingv1.NearbyVehicle {
	messages, out := make([]vehicleMessage, len(hits)), make([]*starlingv1.NearbyVehicle, len(hits))
	for i, h := range hits {
		near := &messages[i].nearby
		near.Vehicle, near.DistanceM = messages[i].fill(&h.Vehicle, now), h.DistanceM
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
