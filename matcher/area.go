package matcher

import (
	"context"

	"github.com/starling-fleet/starling/matcher/follow"
	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// SearchArea implements starlingv1.FleetServiceServer.
func (m *Matcher) SearchArea(_ context.Context, req *starlingv1.SearchAreaRequest) (*starlingv1.SearchAreaResponse, error) {
	if err := m.serving(); err != nil {
		return nil, err
	}
	now := m.follower.Moment()
	var f faults
	area, filter, n := f.area("area", req.GetArea(), true), f.filter(req.GetFilter(), &now), f.areaResults(req.GetMaxResults())
	if err := f.err(); err != nil {
		return nil, err
	}
	found, total := m.index.Within(area, filter, n, nil)
	found = found[:fitting(found)]
	now.FreshenAll(found)
	return &starlingv1.SearchAreaResponse{
		Vehicles: vehicleMessages(found, &now), TotalCount: int32(total), StalePartitions: m.staleMessages(now.MS),
	}, nil
}

// fitting is how many of the vehicles fit into one message.
func fitting(vs []liveindex.Vehicle) int {
	bytes := 0
	for i := range vs {
		if bytes += messageBytes(&vs[i]); bytes > pageBytes {
			return i
		}
	}
	return len(vs)
}

func vehicleMessages(vs []liveindex.Vehicle, now *follow.Moment) []*starlingv1.Vehicle {
	messages, out := make([]vehicleMessage, len(vs)), make([]*starlingv1.Vehicle, len(vs))
	for i := range vs {
		out[i] = messages[i].fill(&vs[i], now)
	}
	return out
}
