package fanout

import (
	"cmp"
	"context"
	"math"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/starling-fleet/starling/internal/geo"
	"github.com/starling-fleet/starling/matcher/eta"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Bounds that fleet.proto states.
const (
	defaultResults = 10
	maxResults     = 1000
)

// SearchNearest implements starlingv1.FleetServiceServer.
func (f *Fanout) SearchNearest(caller context.Context, req *starlingv1.SearchNearestRequest) (*starlingv1.SearchNearestResponse, error) {
	ctx, end, err := f.begin(caller)
	if err != nil {
		return nil, err
	}
	defer end()
	want := int(req.GetMaxResults())
	if want == 0 {
		want = defaultResults
	}
	// A number that breaks the rule goes to the matchers, who refuse it.
	arrival := req.GetRanking() == starlingv1.Ranking_RANKING_ARRIVAL && want > 0 && want <= maxResults
	s := nearestSearch{f: f, req: req, k: want}
	if arrival {
		s.k = eta.Compared(want, maxResults)
		s.req = &starlingv1.SearchNearestRequest{
			Place: req.GetPlace(), MaxResults: int32(s.k), RadiusM: req.GetRadiusM(), Filter: req.GetFilter(), Area: req.GetArea(), Predict: req.GetPredict(),
		}
	}
	results, err := s.run(ctx)
	if err == nil && arrival {
		results, err = f.rankByArrival(ctx, results, req.GetPlace(), want)
	}
	if err != nil {
		return nil, failed(caller, err)
	}
	return &starlingv1.SearchNearestResponse{Results: results, StalePartitions: s.stale.list()}, nil
}

// nearestSearch is a search at work.
type nearestSearch struct {
	f       *Fanout
	req     *starlingv1.SearchNearestRequest
	k       int
	answers [][]*starlingv1.NearbyVehicle
	stale   staleness
}

// run asks the regions that can matter and returns the k nearest.
func (s *nearestSearch) run(ctx context.Context) ([]*starlingv1.NearbyVehicle, error) {
	bounds := s.bounds()
	least := slices.Min(bounds)
	if err := s.ask(ctx, bounds, least); err != nil {
		return nil, err
	}
	limit := math.Inf(1)
	if r := s.req.GetRadiusM(); r > 0 {
		limit = r
	}
	if near := s.merge(closer); len(near) == s.k {
		limit = min(limit, near[s.k-1].GetDistanceM())
	}
	if err := s.ask(ctx, bounds, limit); err != nil {
		return nil, err
	}
	near := s.merge(newest)
	if s.complete(near, bounds) {
		return near, nil
	}
	s.f.metrics.older.Inc()
	return s.merge(closer), nil
}

// bounds are how near the vehicles of each region may be at least, in metres.
func (s *nearestSearch) bounds() []float64 {
	out := make([]float64, len(s.f.groups))
	p := s.req.GetPlace()
	// Negated, so that NaN is one of the places that the matchers refuse.
	if s.req.GetPredict() || !(math.Abs(p.GetLatitude()) <= 90 && math.Abs(p.GetLongitude()) <= 180) {
		return out
	}
	at := geo.Unit(p.GetLatitude(), p.GetLongitude())
	for number := range out {
		out[number] = s.f.regions.DistanceM(number, at)
	}
	return out
}

// ask asks those whose bounds are within a limit and sets these to infinity,
// so that nobody is asked again.
func (s *nearestSearch) ask(ctx context.Context, bounds []float64, limitM float64) error {
	var numbers []int
	for number, bound := range bounds {
		if bound <= limitM && !math.IsInf(bound, 1) {
			numbers, bounds[number] = append(numbers, number), math.Inf(1)
		}
	}
	answers, err := gather(ctx, s.f, numbers, func(ctx context.Context, c starlingv1.FleetServiceClient) (*starlingv1.SearchNearestResponse, error) {
		return c.SearchNearest(ctx, s.req)
	})
	if err != nil {
		return err
	}
	for _, a := range answers {
		s.answers = append(s.answers, a.GetResults())
		s.stale.add(a.GetStalePartitions())
	}
	return nil
}

// order is that of answers: by distance, then by name.
func order(a, b *starlingv1.NearbyVehicle) int {
	if c := cmp.Compare(a.GetDistanceM(), b.GetDistanceM()); c != 0 {
		return c
	}
	return cmp.Compare(a.GetVehicle().GetName(), b.GetVehicle().GetName())
}

func closer(a, b *starlingv1.NearbyVehicle) bool { return a.GetDistanceM() < b.GetDistanceM() }

func newest(a, b *starlingv1.NearbyVehicle) bool { return newer(a.GetVehicle(), b.GetVehicle()) }

// merge returns the k nearest of all that was returned. Of a vehicle that was returned
// more than once, that counts which is better.
func (s *nearestSearch) merge(better func(a, b *starlingv1.NearbyVehicle) bool) []*starlingv1.NearbyVehicle {
	if len(s.answers) == 1 {
		return s.answers[0]
	}
	var out []*starlingv1.NearbyVehicle
	place := map[string]int{}
	for _, answer := range s.answers {
		for _, one := range answer {
			name := one.GetVehicle().GetName()
			if i, known := place[name]; !known {
				place[name] = len(out)
				out = append(out, one)
			} else if better(one, out[i]) {
				out[i] = one
			}
		}
	}
	slices.SortFunc(out, order)
	return out[:min(s.k, len(out))]
}

// complete reports whether nothing that was not returned can be among the k nearest:
// neither behind the end of an answer that was truncated, nor in a region that was
// not asked.
func (s *nearestSearch) complete(near []*starlingv1.NearbyVehicle, bounds []float64) bool {
	if len(near) < s.k {
		return true // no answer was truncated
	}
	last := near[s.k-1]
	for _, answer := range s.answers {
		if len(answer) >= s.k && order(last, answer[len(answer)-1]) > 0 {
			return false
		}
	}
	return last.GetDistanceM() < slices.Min(bounds)
}

// rankByArrival puts vehicles in the order of their travel times and keeps as
// many as are wanted.
func (f *Fanout) rankByArrival(ctx context.Context, near []*starlingv1.NearbyVehicle, to *starlingv1.Place, want int) ([]*starlingv1.NearbyVehicle, error) {
	if len(near) == 0 {
		return near, nil
	}
	from := make([]eta.Place, len(near))
	for i, v := range near {
		at := v.GetPredictedPosition()
		if at == nil {
			at = v.GetVehicle().GetPosition()
		}
		from[i] = eta.Place{LatDeg: at.GetLatitude(), LonDeg: at.GetLongitude()}
	}
	ranked, err := eta.Rank(ctx, f.eta, from, eta.Place{LatDeg: to.GetLatitude(), LonDeg: to.GetLongitude()}, want)
	if err != nil {
		if ctx.Err() != nil {
			return nil, status.FromContextError(ctx.Err()).Err()
		}
		f.logger.Warn("no travel times", "error", err)
		return nil, statusError(codes.Unavailable, reasonNoTravelTimes, "travel times cannot be had at the moment", nil)
	}
	out := make([]*starlingv1.NearbyVehicle, len(ranked))
	for i, a := range ranked {
		out[i] = near[a.Index]
		out[i].TravelTime = durationpb.New(a.Travel)
	}
	return out, nil
}
