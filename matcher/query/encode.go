package query

import (
	"context"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/internal/geo"
	"github.com/starling-fleet/starling/matcher/follow"
	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/schemas/limits"
	"github.com/starling-fleet/starling/schemas/protoappend"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// The functions of this file write the answer to SearchNearest straight from
// the index's hits, in the bytes that nearbyMessages and protobuf's own encoder
// give (which the tests hold them to), at a fraction of the cost.

// EncodedServer is a server of the service with SearchNearest answered in encoded
// form, as Searcher does.
type EncodedServer interface {
	starlingv1.FleetServiceServer
	SearchNearestEncoded(ctx context.Context, req *starlingv1.SearchNearestRequest) (*wire.Encoded, error)
}

// Register adds FleetService to a gRPC server, with SearchNearest answered in
// encoded form.
func Register(r grpc.ServiceRegistrar, srv EncodedServer) { r.RegisterService(serviceDesc(), srv) }

func serviceDesc() *grpc.ServiceDesc {
	desc := starlingv1.FleetService_ServiceDesc
	desc.Methods = append([]grpc.MethodDesc(nil), desc.Methods...)
	for i := range desc.Methods {
		if desc.Methods[i].MethodName == "SearchNearest" {
			desc.Methods[i].Handler = searchNearestEncoded
		}
	}
	return &desc
}

// searchNearestEncoded is what the generated handler of SearchNearest does, but
// that the answer is a *wire.Encoded.
func searchNearestEncoded(srv any, ctx context.Context, dec func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) { //nolint:revive // gRPC sets the order of the arguments
	req := &starlingv1.SearchNearestRequest{}
	if err := dec(req); err != nil {
		return nil, err
	}
	s := srv.(EncodedServer)
	if interceptor == nil {
		return s.SearchNearestEncoded(ctx, req)
	}
	info := &grpc.UnaryServerInfo{Server: srv, FullMethod: starlingv1.FleetService_SearchNearest_FullMethodName}
	return interceptor(ctx, req, info, func(ctx context.Context, req any) (any, error) {
		return s.SearchNearestEncoded(ctx, req.(*starlingv1.SearchNearestRequest))
	})
}

// SearchNearestEncoded answers as SearchNearest does, in encoded form.
func (s *Searcher) SearchNearestEncoded(ctx context.Context, req *starlingv1.SearchNearestRequest) (*wire.Encoded, error) {
	memory := findingPool.Get().(*finding)
	defer memory.free()
	now, err := s.search(ctx, req, memory)
	if err != nil {
		return nil, err
	}
	stale, err := encodedStale(StaleMessages(s.follower, now.MS))
	if err != nil {
		return nil, err
	}
	size := len(stale)
	for i := range memory.hits {
		size += maxNearbyBytes(memory.hits[i].Hit)
	}
	pool := mem.DefaultBufferPool()
	buf := pool.Get(size)
	b := (*buf)[:0]
	for i := range memory.hits {
		b = appendNearby(b, &memory.hits[i], &now)
	}
	*buf = append(b, stale...)
	return &wire.Encoded{Data: mem.BufferSlice{mem.NewBuffer(buf, pool)}}, nil
}

// encodedStale is the stale partitions of an answer, which is seldom
// anything.
func encodedStale(stale []*starlingv1.StalePartition) ([]byte, error) {
	if len(stale) == 0 {
		return nil, nil
	}
	return proto.Marshal(&starlingv1.SearchNearestResponse{StalePartitions: stale})
}

// maxNearbyBytes is at least the length of a hit's encoding.
func maxNearbyBytes(h *liveindex.Hit) int {
	const fixed = 400
	n := fixed + len(h.Vehicle.ID)
	if a := h.Vehicle.Attributes; a != nil {
		n += len(a.Type)
		for _, tag := range a.Tags {
			n += len(tag) + 4
		}
	}
	return n
}

// appendNearby writes one of SearchNearestResponse.results.
func appendNearby(b []byte, h *hit, now *follow.Moment) []byte {
	b, whole := protoappend.Open(b, 1)
	b, inner := protoappend.Open(b, 1)
	b = protoappend.Close(appendVehicle(b, &h.Vehicle, now), inner)
	b = protoappend.Double(b, 2, h.DistanceM)
	if h.Predicted {
		b, inner = protoappend.Open(b, 3)
		p := predictedPosition(h.Hit)
		b = appendPosition(b, p.Latitude, p.Longitude, p.VarEastM2, p.CovEastNorthM2, p.VarNorthM2)
		b = protoappend.Close(b, inner)
	}
	if h.travel >= 0 {
		b, inner = protoappend.Open(b, 4)
		b = protoappend.Varint(b, 1, uint64(h.travel/1e9))
		b = protoappend.Close(protoappend.Varint(b, 2, uint64(h.travel%1e9)), inner)
	}
	return protoappend.Close(b, whole)
}

// appendVehicle writes a Vehicle as of a moment.
func appendVehicle(b []byte, v *liveindex.Vehicle, now *follow.Moment) []byte {
	b, inner := protoappend.Open(b, 1)
	b = protoappend.Close(append(append(b, limits.VehicleNamePrefix...), v.ID...), inner)
	if v.DeviceTimeMS != 0 {
		b = appendMillis(b, 2, v.DeviceTimeMS)
	}
	b = appendMillis(b, 3, v.SeenTimeMS)
	if v.DeviceTimeMS != 0 {
		if ms, known := now.AgeMS(v); known {
			b = appendMillis(b, 4, ms)
		}
		b, inner = protoappend.Open(b, 5)
		b = appendPosition(b, v.LatDeg, v.LonDeg, v.VarEastM2, v.CovEastNorthM2, v.VarNorthM2)
		b = protoappend.Close(b, inner)
		if v.HasSpeed {
			b = protoappend.OptionalFloat(b, 6, v.SpeedMPS)
		}
		if v.HasHeading {
			b = protoappend.OptionalFloat(b, 7, v.HeadingDeg)
		}
	}
	b = protoappend.Varint(b, 8, uint64(v.Availability))
	if v.Attributes != nil {
		b = appendAttributes(b, v.Attributes)
	}
	if v.DeviceTimeMS != 0 && v.Cell != 0 {
		b, inner = protoappend.Open(b, 10)
		b = protoappend.Close(strconv.AppendUint(b, uint64(v.Cell), 16), inner)
	}
	b, inner = protoappend.Open(b, 11)
	b = protoappend.Varint(b, 1, uint64(v.Counts.Accepted))
	b = protoappend.Varint(b, 2, uint64(v.Counts.Duplicate))
	b = protoappend.Varint(b, 3, uint64(v.Counts.Conflict))
	b = protoappend.Varint(b, 4, uint64(v.Counts.Late))
	b = protoappend.Close(protoappend.Varint(b, 5, uint64(v.Counts.SetAside)), inner)
	b = protoappend.Varint(b, 12, uint64(v.Verdict))
	b = protoappend.Varint(b, 13, uint64(v.DerivedAvailability))
	b = protoappend.Bool(b, 14, v.Dispatchable)
	b = protoappend.Bool(b, 15, v.Conflicting)
	if v.DeviceTimeMS != 0 && v.DeviceClockAheadMS != 0 {
		b = appendMillis(b, 16, v.DeviceClockAheadMS)
	}
	return b
}

func appendAttributes(b []byte, a *liveindex.Attributes) []byte {
	b, inner := protoappend.Open(b, 9)
	b = protoappend.String(b, 1, a.Type)
	b = protoappend.Varint(b, 2, uint64(a.Seats))
	for _, tag := range a.Tags {
		var start int
		b, start = protoappend.Open(b, 3) // written also if it is empty
		b = protoappend.Close(append(b, tag...), start)
	}
	return protoappend.Close(b, inner)
}

func appendPosition(b []byte, latDeg, lonDeg float64, varEastM2, covEastNorthM2, varNorthM2 float32) []byte {
	b = protoappend.Double(b, 1, latDeg)
	b = protoappend.Double(b, 2, lonDeg)
	b = protoappend.Float(b, 3, varEastM2)
	b = protoappend.Float(b, 4, covEastNorthM2)
	b = protoappend.Float(b, 5, varNorthM2)
	return protoappend.Float(b, 6, float32(geo.Ellipse95RadiusM(float64(varEastM2), float64(covEastNorthM2), float64(varNorthM2))))
}

// appendMillis writes a Timestamp or a Duration of so many milliseconds, which
// have the same form.
func appendMillis(b []byte, field protoappend.Number, ms int64) []byte {
	b, inner := protoappend.Open(b, field)
	b = protoappend.Varint(b, 1, uint64(ms/1000))
	return protoappend.Close(protoappend.Varint(b, 2, uint64(ms%1000*1e6)), inner)
}
