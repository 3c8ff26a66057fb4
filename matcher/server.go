package matcher

import (
	"context"
	"runtime"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// maxRequestBytes bounds a request: the largest that follows the rules has
// 10,000 cells of 15 characters, and labels.
const maxRequestBytes = 256 << 10

// WindowBytes is the window of a stream.
const WindowBytes = maxRequestBytes

// pageBytes is about how large the vehicles of one page may become before it
// ends early; gRPC clients refuse 4 MiB by default.
const pageBytes = 3 << 20

// ServerOptions are the options of the gRPC server that serves the fleet.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxRequestBytes),
		grpc.ForceServerCodecV2(wire.Codec()),
		// Requests are small: windows of a fixed size that one fits into spare the
		// connection the pings that would measure how large they should be, one
		// or more for every call.
		grpc.StaticStreamWindowSize(WindowBytes),
		grpc.StaticConnWindowSize(maxRequestBytes),
		// A goroutine that is used again has the stack that a search needs; a new
		// one grows it step by step. Watch calls that keep a worker for
		// themselves only take that away: gRPC then starts goroutines as ever.
		grpc.NumStreamWorkers(uint32(4 * runtime.GOMAXPROCS(0))),
	}
}

// Register adds FleetService to a gRPC server.
func (m *Matcher) Register(r grpc.ServiceRegistrar) { r.RegisterService(serviceDesc(), m) }

// serving is nil when the fleet can be asked.
func (m *Matcher) serving() error {
	if m.follower.Ready() {
		return nil
	}
	if m.follower.Ended() {
		return hasStopped()
	}
	return statusError(codes.Unavailable, reasonRebuilding, "the fleet is being rebuilt from the log", retryInfo())
}

// GetVehicle implements starlingv1.FleetServiceServer.
func (m *Matcher) GetVehicle(_ context.Context, req *starlingv1.GetVehicleRequest) (*starlingv1.Vehicle, error) {
	if err := m.serving(); err != nil {
		return nil, err
	}
	var f faults
	id := f.vehicleID("name", req.GetName())
	if err := f.err(); err != nil {
		return nil, err
	}
	v, ok := m.index.GetWhole(id)
	if !ok {
		return nil, m.unknown(req.GetName(), id)
	}
	now := m.follower.Moment()
	now.Freshen(&v)
	return new(wholeMessage).fillWhole(&v, &now), nil
}

// ListVehicles implements starlingv1.FleetServiceServer. Each page is read by
// itself: a vehicle that is known all the while is on exactly one page of a
// walk, in the state of that moment; one that comes or goes meanwhile may be
// missing.
func (m *Matcher) ListVehicles(_ context.Context, req *starlingv1.ListVehiclesRequest) (*starlingv1.ListVehiclesResponse, error) {
	if err := m.serving(); err != nil {
		return nil, err
	}
	var f faults
	size, after := f.pageSize(req.GetPageSize()), f.pageStart(req.GetPageToken())
	if err := f.err(); err != nil {
		return nil, err
	}
	now := m.follower.Moment()
	page, next := m.index.Page(after, size, nil)
	if n := fitting(page); n < len(page) {
		next, page = page[n-1].ID, page[:n]
	}
	out := &starlingv1.ListVehiclesResponse{Vehicles: make([]*starlingv1.Vehicle, len(page)), StalePartitions: m.staleMessages(now.MS)}
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

// messageBytes bounds the encoded size of a vehicle.
func messageBytes(v *liveindex.Vehicle) int {
	n := 320 + len(v.ID)
	if v.Attributes != nil {
		n += len(v.Attributes.Type)
		for _, tag := range v.Attributes.Tags {
			n += len(tag) + 2
		}
	}
	return n
}
