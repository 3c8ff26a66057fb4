package matcher_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/internal/geo"
	"github.com/starling-fleet/starling/matcher/eta"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

func TestPredictedRanking(t *testing.T) {
	w := newWorld(t)
	still := w.at("still", 0, 0.002) // 222 m east
	w.report(still)
	coming := w.at("coming", 0, 0.004) // 445 m east, 15 m/s west for 20 s
	coming.SpeedMPS, coming.HasSpeed, coming.HeadingDeg, coming.HasHeading = 15, true, 270, true
	coming.VarEastM2, coming.VarNorthM2 = 25, 25
	w.report(coming)
	s := w.startReady()
	w.pass(20 * time.Second)
	place := &starlingv1.Place{}
	r, err := s.SearchNearest(ctx, &starlingv1.SearchNearestRequest{Place: place})
	require.NoError(t, err)
	require.Equal(t, []string{"still", "coming"}, names(r))
	require.Nil(t, r.Results[1].PredictedPosition)

	r, err = s.SearchNearest(ctx, &starlingv1.SearchNearestRequest{Place: place, Predict: true})
	require.NoError(t, err)
	require.Equal(t, []string{"coming", "still"}, names(r))
	first := r.Results[0]
	require.InDelta(t, geo.DistanceDeg(0, 0.004, 0, 0)-300, first.DistanceM, 1e-6)
	require.InDelta(t, first.DistanceM, geo.DistanceDeg(0, 0, first.PredictedPosition.Latitude, first.PredictedPosition.Longitude), 1e-6)
	require.Equal(t, 0.004, first.Vehicle.Position.Longitude, "the vehicle itself is as it was reported")
	require.Greater(t, first.PredictedPosition.UncertaintyRadiusM, first.Vehicle.Position.UncertaintyRadiusM)
	require.Nil(t, r.Results[1].PredictedPosition)

	w.pass(time.Second) // longer than is predicted
	r, err = s.SearchNearest(ctx, &starlingv1.SearchNearestRequest{Place: place, Predict: true})
	require.NoError(t, err)
	require.Equal(t, []string{"still", "coming"}, names(r))
}

// backwards is an estimator for which far is quick, and v3 cannot get there.
type backwards struct{ fail error }

func (b backwards) Arrivals(_ context.Context, from []eta.Place, to eta.Place) ([]time.Duration, error) {
	var out []time.Duration
	for _, p := range from {
		t := time.Hour - time.Duration(geo.DistanceDeg(p.LatDeg, p.LonDeg, to.LatDeg, to.LonDeg))*time.Millisecond
		if p.LonDeg == 0.003 {
			t = eta.Unreachable
		}
		out = append(out, t)
	}
	return out, b.fail
}

func TestRankingByArrival(t *testing.T) {
	w := newWorld(t)
	for i := range 60 {
		w.report(w.at(fmt.Sprint("v", i), 0, float64(i)/1000))
	}
	arrival := &starlingv1.SearchNearestRequest{Place: &starlingv1.Place{}, MaxResults: 3, Ranking: starlingv1.Ranking_RANKING_ARRIVAL}

	s := w.startReady()
	r, err := s.SearchNearest(ctx, arrival)
	require.NoError(t, err)
	require.Equal(t, []string{"v0", "v1", "v2"}, names(r))
	require.Zero(t, r.Results[0].TravelTime.AsDuration())
	require.InDelta(t, 111.195*1.35/8, r.Results[1].TravelTime.AsDuration().Seconds(), 1e-3)

	s = w.startWith(estimating(backwards{}))
	r, err = s.SearchNearest(ctx, arrival)
	require.NoError(t, err)
	require.Equal(t, []string{"v49", "v48", "v47"}, names(r), "the 50 nearest are compared")
	require.Less(t, r.Results[0].TravelTime.AsDuration(), r.Results[1].TravelTime.AsDuration())
	arrival.MaxResults = 60
	r, err = s.SearchNearest(ctx, arrival)
	require.NoError(t, err)
	require.Len(t, r.Results, 59)
	require.NotContains(t, names(r), "v3")
	r, err = s.SearchNearest(ctx, &starlingv1.SearchNearestRequest{Place: &starlingv1.Place{}})
	require.NoError(t, err)
	require.Nil(t, r.Results[0].TravelTime)

	s = w.startWith(estimating(backwards{fail: errors.New("no route to host")}))
	_, err = s.SearchNearest(ctx, arrival)
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.Equal(t, "NO_TRAVEL_TIMES", detail[*errdetails.ErrorInfo](t, err).Reason)
	_, err = s.SearchNearest(ctx, &starlingv1.SearchNearestRequest{Place: &starlingv1.Place{}, Ranking: 7})
	require.Equal(t, "ranking", detail[*errdetails.BadRequest](t, err).FieldViolations[0].Field)
}

// How long a search took is measured by the injected clock: here each reading of
// it is a second after the one before.
func TestSearchesAreTimedByTheInjectedClock(t *testing.T) {
	w := newWorld(t)
	w.report(w.at("v", 0, 0))
	var ticking atomic.Bool
	w.clock = func() time.Time {
		if ticking.Load() {
			w.nowMS.Add(1000)
		}
		return time.UnixMilli(w.nowMS.Load())
	}
	s := w.startReady()
	ticking.Store(true)
	_, err := s.SearchNearest(ctx, &starlingv1.SearchNearestRequest{Place: &starlingv1.Place{}})
	require.NoError(t, err)
	families, err := s.registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == "starling_matcher_search_seconds" {
			require.GreaterOrEqual(t, f.Metric[0].GetHistogram().GetSampleSum(), 1.0)
			return
		}
	}
	require.Fail(t, "no searches are timed")
}
