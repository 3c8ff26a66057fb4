package fanout

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// WatchVehicle implements starlingv1.FleetServiceServer: it watches at all
// regions and passes on what is newer than what it has sent. Play-outs are not
// offered, because the fixes of a vehicle that crossed a border are with two
// matchers.
func (f *Fanout) WatchVehicle(req *starlingv1.WatchVehicleRequest, stream grpc.ServerStreamingServer[starlingv1.WatchVehicleResponse]) error {
	if req.GetPlaybackDelay() != nil {
		return statusError(codes.Unimplemented, reasonNotOffered, "a fan-out does not play vehicles out: leave playback_delay away, or ask a matcher that knows the whole fleet", nil)
	}
	end, err := f.beginWatch()
	if err != nil {
		return err
	}
	defer end()
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	messages, failures := watchAll(ctx, f, func(ctx context.Context, c starlingv1.FleetServiceClient) (grpc.ServerStreamingClient[starlingv1.WatchVehicleResponse], error) {
		return c.WatchVehicle(ctx, req)
	})
	w := vehicleWatch{last: make([]*starlingv1.WatchVehicleResponse, len(f.groups))}
	for {
		select {
		case <-f.stopped:
			return hasStopped()
		case err := <-failures:
			return failed(stream.Context(), err)
		case h := <-messages:
			w.last[h.number] = h.body
			if msg := w.next(); msg != nil {
				if err := stream.Send(msg); err != nil {
					return err
				}
			}
		}
	}
}

// vehicleWatch is what the matchers have sent last, and what was passed on.
type vehicleWatch struct {
	last []*starlingv1.WatchVehicleResponse
	sent *starlingv1.WatchVehicleResponse
}

// next is the message that is to be sent, nil if none is. A vehicle is unknown when no
// region knows it, and stale when the region whose messages are passed on is.
func (w *vehicleWatch) next() *starlingv1.WatchVehicleResponse {
	var best *starlingv1.WatchVehicleResponse
	unknown, all, stale := (*starlingv1.WatchVehicleResponse)(nil), true, false
	for _, one := range w.last {
		switch {
		case one == nil:
			all = false
		case one.GetUnknown():
			unknown, stale = one, stale || one.GetStale()
		case best == nil || newer(one.GetVehicle(), best.GetVehicle()):
			best = one
		}
	}
	if best == nil {
		if !all {
			return nil
		}
		best = proto.CloneOf(unknown)
		best.Stale, best.Resumed = stale, false
	}
	first := w.sent == nil
	if !first && !w.sent.GetUnknown() && !best.GetUnknown() && newer(w.sent.GetVehicle(), best.GetVehicle()) {
		return nil // from a matcher that is not so far
	}
	if !first && sameVehicle(w.sent.GetVehicle(), best.GetVehicle()) && w.sent.GetUnknown() == best.GetUnknown() && w.sent.GetStale() == best.GetStale() {
		return nil
	}
	w.sent = proto.CloneOf(best)
	w.sent.Resumed = first && best.GetResumed()
	return w.sent
}

// sameVehicle reports whether two views are the same, apart from their age.
func sameVehicle(a, b *starlingv1.Vehicle) bool {
	if newer(a, b) || newer(b, a) {
		return false
	}
	a, b = proto.CloneOf(a), proto.CloneOf(b)
	a.Age, b.Age = nil, nil
	return proto.Equal(a, b)
}
