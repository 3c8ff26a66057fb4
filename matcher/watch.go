package matcher

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// staleCheck is how often a watch looks whether its partition has become stale
// or current again, which no record tells.
const staleCheck = time.Second

// WatchVehicle implements starlingv1.FleetServiceServer.
func (m *Matcher) WatchVehicle(req *starlingv1.WatchVehicleRequest, stream grpc.ServerStreamingServer[starlingv1.WatchVehicleResponse]) error {
	if err := m.serving(); err != nil {
		return err
	}
	var f faults
	id := f.vehicleID("name", req.GetName())
	if err := f.err(); err != nil {
		return err
	}
	w := m.watchers.add(id)
	if w == nil {
		return statusError(codes.ResourceExhausted, reasonTooManyWatchers, "too many watch calls are open", retryInfo())
	}
	defer m.watchers.remove(w)
	tick := time.NewTicker(staleCheck)
	defer tick.Stop()

	number := m.partitionOf(id)
	var last sighting
	for first := true; ; first = false {
		var s sighting
		s.vehicle, s.known = m.index.Get(id)
		nowMS := m.now().UnixMilli()
		_, s.stale = m.staleness(number, nowMS)
		if first || s != last {
			if err := stream.Send(s.message(req.GetName(), nowMS)); err != nil {
				return err
			}
			last = s
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

// sighting is what a watch has sent last: a change is a difference from it.
type sighting struct {
	vehicle      liveindex.Vehicle
	known, stale bool
}

func (s *sighting) message(name string, nowMS int64) *starlingv1.WatchVehicleResponse {
	out := &starlingv1.WatchVehicleResponse{Unknown: !s.known, Stale: s.stale}
	if s.known {
		out.Vehicle = new(vehicleMessage).fill(&s.vehicle, nowMS)
	} else {
		out.Vehicle = &starlingv1.Vehicle{Name: name}
	}
	return out
}
