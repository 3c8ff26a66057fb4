package query

import (
	"time"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// What parts of calls cost, in CPU time: as measured by BenchmarkWithin of package
// liveindex and by `bench hostile`, rounded up.
const (
	vertexCost  = 4 * time.Microsecond // of a polygon
	cellCost    = time.Microsecond     // named by a request
	vehicleCost = 2 * time.Microsecond // in an answer
	nearCost    = time.Microsecond     // in an answer of SearchNearest
	countCost   = time.Microsecond / 2 // a cell in an answer
	// insideCost and insidePolygonCost are those of a vehicle that a search counts.
	insideCost        = 50 * time.Nanosecond
	insidePolygonCost = 700 * time.Nanosecond
)

// Cost estimates the CPU time of a call, for rpcserver.Role.
func (s *Searcher) Cost(req, answer any) time.Duration { return Cost(req, answer, s.index.Len()) }

// Cost estimates the CPU time of a call in a fleet of so many vehicles: what the
// request shows when answer is nil, and else what the answer shows beyond that.
func Cost(req, answer any, fleet int) time.Duration {
	if answer != nil {
		return answerCost(req, answer)
	}
	vehicles := func(asked int32, unset int) time.Duration {
		if asked == 0 {
			asked = int32(unset)
		}
		return time.Duration(min(int(max(asked, 0)), fleet))
	}
	switch r := req.(type) {
	case *starlingv1.ListVehiclesRequest:
		return vehicles(r.GetPageSize(), defaultPageSize) * vehicleCost
	case *starlingv1.SearchAreaRequest:
		return areaCost(r.GetArea()) + vehicles(r.GetMaxResults(), defaultAreaResults)*vehicleCost
	case *starlingv1.SearchNearestRequest:
		return areaCost(r.GetArea()) + vehicles(r.GetMaxResults(), defaultResults)*nearCost
	case *starlingv1.CountVehiclesRequest:
		return time.Duration(len(r.GetSelection().GetWithinH3Cells()))*cellCost + vehicles(r.GetPageSize(), defaultPageSize)*countCost
	case *starlingv1.WatchAreaRequest:
		return areaCost(r.GetArea())
	case *starlingv1.WatchVehicleCountsRequest:
		return time.Duration(len(r.GetSelection().GetWithinH3Cells())) * cellCost
	}
	return 0
}

func areaCost(a *starlingv1.Area) time.Duration {
	return time.Duration(len(a.GetPolygon().GetVertices()))*vertexCost + time.Duration(len(a.GetCells().GetH3Cells()))*cellCost
}

func answerCost(req, answer any) time.Duration {
	switch a := answer.(type) {
	case *starlingv1.SearchAreaResponse:
		each := insideCost
		if r, ok := req.(*starlingv1.SearchAreaRequest); ok && r.GetArea().GetPolygon() != nil {
			each = insidePolygonCost
		}
		return time.Duration(a.GetTotalCount()) * each
	case *starlingv1.WatchAreaResponse:
		return time.Duration(len(a.GetChanged())) * vehicleCost
	case *starlingv1.WatchVehicleCountsResponse:
		return time.Duration(len(a.GetCells())) * countCost
	}
	return 0
}
