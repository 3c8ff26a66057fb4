package query

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// GetVehicle implements starlingv1.FleetServiceServer.
func (s *Searcher) GetVehicle(_ context.Context, req *starlingv1.GetVehicleRequest) (*starlingv1.Vehicle, error) {
	if err := Serving(s.follower); err != nil {
		return nil, err
	}
	var f Faults
	id := f.Vehicle("name", req.GetName())
	if err := f.Err(); err != nil {
		return nil, err
	}
	v, ok := s.index.GetWhole(id)
	if !ok {
		return nil, s.unknown(req.GetName(), id)
	}
	now := s.follower.Moment()
	now.Freshen(&v)
	return new(wholeMessage).fillWhole(&v, &now), nil
}

// ListVehicles implements starlingv1.FleetServiceServer. Each page is read by
// itself: a vehicle that is known all the while is on exactly one page of a
// walk, in the state of that moment; one that comes or goes meanwhile may be
// missing.
func (s *Searcher) ListVehicles(_ context.Context, req *starlingv1.ListVehiclesRequest) (*starlingv1.ListVehiclesResponse, error) {
	if err := Serving(s.follower); err != nil {
		return nil, err
	}
	var f Faults
	size, after := f.Size("page_size", req.GetPageSize(), defaultPageSize, maxPageSize), f.pageStart(req.GetPageToken())
	if err := f.Err(); err != nil {
		return nil, err
	}
	now := s.follower.Moment()
	page, next := s.index.Page(after, size, nil)
	if n := Fitting(page); n < len(page) {
		next, page = page[n-1].ID, page[:n]
	}
	out := &starlingv1.ListVehiclesResponse{Vehicles: make([]*starlingv1.Vehicle, len(page)), StalePartitions: StaleMessages(s.follower, now.MS)}
	messages := make([]wholeMessage, len(page))
	for i := range page {
		now.Freshen(&page[i])
		out.Vehicles[i] = messages[i].fillWhole(&page[i], &now)
	}
	if next != "" {
		out.NextPageToken = PageToken(next)
	}
	return out, nil
}

// unknown is the error for a vehicle that is not known. Where the matcher keeps
// one region and the vehicle's partition is stale, that proves nothing: it may
// have come in since, and have been dropped elsewhere.
func (s *Searcher) unknown(name, id string) error {
	if s.cfg.OneRegion {
		if p, stale := s.follower.Staleness(s.follower.PartitionOf(id), s.now().UnixMilli()); stale {
			return Error(codes.Unavailable, reasonStale, fmt.Sprintf("%s is not known here, but its partition %d is stale", name, p.Number), RetryInfo())
		}
	}
	if refusal, refused := s.follower.Refused(id); refused {
		return refusedByTracker(name, refusal)
	}
	return notFound(name)
}
