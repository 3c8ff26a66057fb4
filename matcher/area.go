package matcher

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// SearchArea implements starlingv1.FleetServiceServer.
func (m *Matcher) SearchArea(_ context.Context, req *starlingv1.SearchAreaRequest) (*starlingv1.SearchAreaResponse, error) {
	if err := m.serving(); err != nil {
		return nil, err
	}
	nowMS := m.now().UnixMilli()
	var f faults
	area, filter, n := f.area("area", req.GetArea(), true), f.filter(req.GetFilter(), nowMS), f.areaResults(req.GetMaxResults())
	if err := f.err(); err != nil {
		return nil, err
	}
	found, total := m.index.Within(area, filter, n, nil)
	found = found[:fitting(found)]
	return &starlingv1.SearchAreaResponse{
		Vehicles: vehicleMessages(found, nowMS), TotalCount: int32(total), StalePartitions: m.staleMessages(nowMS),
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

func vehicleMessages(vs []liveindex.Vehicle, nowMS int64) []*starlingv1.Vehicle {
	messages, out := make([]vehicleMessage, len(vs)), make([]*starlingv1.Vehicle, len(vs))
	for i := range vs {
		out[i] = messages[i].fill(&vs[i], nowMS)
	}
	return out
}

// WatchArea implements starlingv1.FleetServiceServer. The call sleeps until
// something changes in the cubes that cover its area, or a second has passed,
// which is how soon it notices that vehicles grew too old or a partition stale.
func (m *Matcher) WatchArea(req *starlingv1.WatchAreaRequest, stream grpc.ServerStreamingServer[starlingv1.WatchAreaResponse]) error {
	if err := m.serving(); err != nil {
		return err
	}
	var f faults
	area, interval := f.area("area", req.GetArea(), true), f.interval(req)
	f.filter(req.GetFilter(), 0)
	if err := f.err(); err != nil {
		return err
	}
	w := m.areas.add(area)
	if w == nil {
		return statusError(codes.ResourceExhausted, reasonTooManyWatchers, "too many watch calls are open", retryInfo())
	}
	defer m.areas.remove(w)
	tick := time.NewTicker(staleCheck)
	defer tick.Stop()
	a := areaWatch{m: m, req: req, stream: stream, view: m.index.NewView(area), first: true}
	for {
		if err := a.update(); err != nil {
			return err
		}
		pause := time.NewTimer(interval)
		select {
		case <-stream.Context().Done():
			pause.Stop()
			return stream.Context().Err()
		case <-m.stopped:
			pause.Stop()
			return hasStopped()
		case <-pause.C:
		}
		select {
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-m.stopped:
			return hasStopped()
		case <-w.wake:
		case <-tick.C:
		}
	}
}

// areaWatch is one WatchArea call at work.
type areaWatch struct {
	m      *Matcher
	req    *starlingv1.WatchAreaRequest
	stream grpc.ServerStreamingServer[starlingv1.WatchAreaResponse]
	view   *liveindex.View
	first  bool
	stale  []int32 // as sent last
}

// update sends what has changed, if anything has.
func (a *areaWatch) update() error {
	nowMS := a.m.now().UnixMilli()
	var f faults
	changed, left := a.view.Update(f.filter(a.req.GetFilter(), nowMS))
	if n := a.view.Len(); n > a.m.cfg.MaxAreaVehicles {
		return statusError(codes.ResourceExhausted, reasonAreaTooLarge, "more vehicles are inside the area than one call may watch; watch a smaller one")
	}
	stale := a.m.staleMessages(nowMS)
	var numbers []int32
	for _, s := range stale {
		numbers = append(numbers, s.Partition)
	}
	if !a.first && len(changed) == 0 && len(left) == 0 && slices.Equal(numbers, a.stale) {
		return nil
	}
	if err := a.send(changed, left, stale, nowMS); err != nil {
		return err
	}
	a.first, a.stale = false, numbers
	return nil
}

// send sends an update in as many parts as it needs.
func (a *areaWatch) send(changed []liveindex.Vehicle, left []string, stale []*starlingv1.StalePartition, nowMS int64) error {
	for i, id := range left {
		left[i] = namePrefix + id
	}
	for {
		n := fitting(changed)
		part := &starlingv1.WatchAreaResponse{Snapshot: a.first, Changed: vehicleMessages(changed[:n], nowMS)}
		changed = changed[n:]
		if len(changed) == 0 {
			n = min(len(left), maxLeftPerPart)
			part.Left, left = left[:n], left[n:]
		}
		part.More = len(changed) > 0 || len(left) > 0
		if !part.More {
			part.StalePartitions = stale
		}
		if err := a.stream.Send(part); err != nil {
			return err
		}
		if !part.More {
			return nil
		}
	}
}

// maxLeftPerPart bounds the names in one message, each of at most 75 bytes: with
// a full load of vehicles they make 3.75 MiB.
const maxLeftPerPart = 10_000
