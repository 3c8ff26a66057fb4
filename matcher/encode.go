package matcher

import (
	"context"
	"math"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/internal/geo"
	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// The functions of this file write the answer to SearchNearest straight from
// the index's hits, in the bytes that nearbyMessages and protobuf's own encoder
// give (which the tests hold them to), at a fraction of the cost.

// serviceDesc is the fleet's door with SearchNearest answered in encoded form.
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
	m := srv.(*Matcher)
	if interceptor == nil {
		return m.searchEncoded(ctx, req)
	}
	info := &grpc.UnaryServerInfo{Server: srv, FullMethod: starlingv1.FleetService_SearchNearest_FullMethodName}
	return interceptor(ctx, req, info, func(ctx context.Context, req any) (any, error) {
		return m.searchEncoded(ctx, req.(*starlingv1.SearchNearestRequest))
	})
}

func (m *Matcher) searchEncoded(ctx context.Context, req *starlingv1.SearchNearestRequest) (*wire.Encoded, error) {
	memory := findingPool.Get().(*finding)
	defer memory.free()
	now, err := m.search(ctx, req, memory)
	if err != nil {
		return nil, err
	}
	stale, err := encodedStale(m.staleMessages(now.ms))
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

// encodedStale is what an answer says of stale partitions, which is seldom
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

// Wire types of fields.
const (
	varint  = protowire.VarintType
	fixed64 = protowire.Fixed64Type
	fixed32 = protowire.Fixed32Type
	bytes   = protowire.BytesType
)

// appendNearby writes one of SearchNearestResponse.results.
func appendNearby(b []byte, h *hit, now *moment) []byte {
	b, whole := open(b, 1)
	b, inner := open(b, 1)
	b = shut(appendVehicle(b, &h.Vehicle, now), inner)
	b = appendDouble(b, 2, h.DistanceM)
	if h.Predicted {
		b, inner = open(b, 3)
		p := predictedPosition(h.Hit)
		b = appendPosition(b, p.Latitude, p.Longitude, p.VarEastM2, p.CovEastNorthM2, p.VarNorthM2)
		b = shut(b, inner)
	}
	if h.travel >= 0 {
		b, inner = open(b, 4)
		b = appendInt(b, 1, int64(h.travel/1e9))
		b = shut(appendInt(b, 2, int64(h.travel%1e9)), inner)
	}
	return shut(b, whole)
}

// appendVehicle writes a Vehicle as of a moment.
func appendVehicle(b []byte, v *liveindex.Vehicle, now *moment) []byte {
	b = append(b, 1<<3|byte(bytes), byte(len(namePrefix)+len(v.ID))) // an id has at most 64 bytes
	b = append(append(b, namePrefix...), v.ID...)
	if v.DeviceTimeMS != 0 {
		b = appendMillis(b, 2, v.DeviceTimeMS)
	}
	b = appendMillis(b, 3, v.SeenTimeMS)
	if v.DeviceTimeMS != 0 {
		if ms, known := now.ageMS(v); known {
			b = appendMillis(b, 4, ms)
		}
		var inner int
		b, inner = open(b, 5)
		b = appendPosition(b, v.LatDeg, v.LonDeg, v.VarEastM2, v.CovEastNorthM2, v.VarNorthM2)
		b = shut(b, inner)
		if v.HasSpeed {
			b = protowire.AppendFixed32(append(b, 6<<3|byte(fixed32)), math.Float32bits(v.SpeedMPS))
		}
		if v.HasHeading {
			b = protowire.AppendFixed32(append(b, 7<<3|byte(fixed32)), math.Float32bits(v.HeadingDeg))
		}
	}
	b = appendInt(b, 8, int64(v.Availability))
	if v.Attributes != nil {
		b = appendAttributes(b, v.Attributes)
	}
	if v.DeviceTimeMS != 0 && v.Cell != 0 {
		var inner int
		b, inner = open(b, 10)
		b = shut(strconv.AppendUint(b, v.Cell, 16), inner)
	}
	b, inner := open(b, 11)
	b = appendInt(b, 1, int64(v.Counts.Accepted))
	b = appendInt(b, 2, int64(v.Counts.Duplicate))
	b = appendInt(b, 3, int64(v.Counts.Conflict))
	b = appendInt(b, 4, int64(v.Counts.Late))
	b = shut(appendInt(b, 5, int64(v.Counts.SetAside)), inner)
	b = appendInt(b, 12, int64(v.Verdict))
	b = appendInt(b, 13, int64(v.DerivedAvailability))
	b = appendBool(b, 14, v.Dispatchable)
	b = appendBool(b, 15, v.Conflicting)
	if v.DeviceTimeMS != 0 && v.DeviceClockAheadMS != 0 {
		b = appendMillis(b, 16, v.DeviceClockAheadMS)
	}
	return b
}

func appendAttributes(b []byte, a *liveindex.Attributes) []byte {
	b, inner := open(b, 9)
	if a.Type != "" {
		b = protowire.AppendString(append(b, 1<<3|byte(bytes)), a.Type)
	}
	b = appendInt(b, 2, int64(a.Seats))
	for _, tag := range a.Tags {
		b = protowire.AppendString(append(b, 3<<3|byte(bytes)), tag)
	}
	return shut(b, inner)
}

func appendPosition(b []byte, latDeg, lonDeg float64, varEastM2, covEastNorthM2, varNorthM2 float32) []byte {
	b = appendDouble(b, 1, latDeg)
	b = appendDouble(b, 2, lonDeg)
	b = appendFloat(b, 3, varEastM2)
	b = appendFloat(b, 4, covEastNorthM2)
	b = appendFloat(b, 5, varNorthM2)
	return appendFloat(b, 6, float32(geo.Ellipse95RadiusM(float64(varEastM2), float64(covEastNorthM2), float64(varNorthM2))))
}

// appendMillis writes a Timestamp or a Duration of so many milliseconds, which
// have the same form.
func appendMillis(b []byte, field byte, ms int64) []byte {
	b, inner := open(b, field)
	b = appendInt(b, 1, ms/1000)
	return shut(appendInt(b, 2, ms%1000*1e6), inner)
}

// The append functions write a field, and nothing for what proto3 leaves out.
// Field numbers of all but messages are below 16.

func appendInt(b []byte, field byte, v int64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(append(b, field<<3|byte(varint)), uint64(v))
}

func appendBool(b []byte, field byte, v bool) []byte {
	if !v {
		return b
	}
	return append(b, field<<3|byte(varint), 1)
}

func appendDouble(b []byte, field byte, v float64) []byte {
	bits := math.Float64bits(v) // of -0 they are not zero, and it is written
	if bits == 0 {
		return b
	}
	return protowire.AppendFixed64(append(b, field<<3|byte(fixed64)), bits)
}

func appendFloat(b []byte, field byte, v float32) []byte {
	bits := math.Float32bits(v)
	if bits == 0 {
		return b
	}
	return protowire.AppendFixed32(append(b, field<<3|byte(fixed32)), bits)
}

// open begins a message in a field and keeps one byte for its length.
func open(b []byte, field byte) (out []byte, start int) {
	b = append(protowire.AppendTag(b, protowire.Number(field), bytes), 0)
	return b, len(b)
}

// shut writes the length of the message that starts at start, moving it up where
// one byte is not enough.
func shut(b []byte, start int) []byte {
	size := len(b) - start
	if size < 1<<7 {
		b[start-1] = byte(size)
		return b
	}
	extra := protowire.SizeVarint(uint64(size)) - 1
	var room [8]byte
	b = append(b, room[:extra]...)
	copy(b[start+extra:], b[start:start+size])
	protowire.AppendVarint(b[:start-1], uint64(size))
	return b
}
