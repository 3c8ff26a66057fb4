package query

import (
	"context"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// SearchArea implements starlingv1.FleetServiceServer.
func (s *Searcher) SearchArea(_ context.Context, req *starlingv1.SearchAreaRequest) (*starlingv1.SearchAreaResponse, error) {
	if err := Serving(s.follower); err != nil {
		return nil, err
	}
	now := s.follower.Moment()
	var f Faults
	area, filter, n := f.Area("area", req.GetArea(), true), f.Filter(req.GetFilter(), &now), f.Size("max_results", req.GetMaxResults(), defaultAreaResults, maxAreaResults)
	if err := f.Err(); err != nil {
		return nil, err
	}
	found, total := s.index.Within(area, filter, n, nil)
	found = found[:Fitting(found)]
	now.FreshenAll(found)
	return &starlingv1.SearchAreaResponse{
		Vehicles: VehicleMessages(found, &now), TotalCount: int32(total), StalePartitions: StaleMessages(s.follower, now.MS),
	}, nil
}
