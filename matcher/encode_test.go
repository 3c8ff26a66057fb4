package matcher_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// Over gRPC the answer is encoded by hand; in the process it is built of the
// generated types. Both must be the same, whatever vehicles and requests look
// like.
func TestEncodedAnswerIsTheTypedOne(t *testing.T) {
	w := newWorld(t)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 200 {
		w.report(oddVehicle(w, rng, i))
	}
	w.tickAll()
	s := w.startWith(estimating(backwards{}))
	last := oddVehicle(w, rng, 200)
	last.DeviceTimeMS = startMS
	w.report(last)
	s.seen(last.VehicleID, startMS)
	for _, late := range []time.Duration{0, 3 * time.Second, time.Minute} { // after a minute the partitions are stale
		w.pass(late)
		for i := range 60 {
			req := &starlingv1.SearchNearestRequest{
				Place:      &starlingv1.Place{Latitude: rng.Float64()*4 - 2, Longitude: rng.Float64()*4 - 2},
				MaxResults: []int32{0, 1, 30, 1000}[i%4], Predict: i%3 == 0, Ranking: starlingv1.Ranking(i % 2 * 2),
			}
			want, err := s.role.SearchNearest(ctx, req)
			require.NoError(t, err)
			require.NotEmpty(t, want.Results)
			got, err := s.SearchNearest(ctx, req)
			require.NoError(t, err)
			require.True(t, proto.Equal(want, got), "%v\nwant %s\ngot  %s", req, protojson.Format(want), protojson.Format(got))
		}
	}
}

// oddVehicle has fields that are absent, zero, negative and long.
func oddVehicle(w *world, rng *rand.Rand, i int) wire.View {
	v := w.at(fmt.Sprint("v", i, strings.Repeat("x", rng.IntN(50))), rng.Float64()*2-1, rng.Float64()*2-1)
	v.DeviceTimeMS += rng.Int64N(20_000) - 15_000
	v.Cell = []uint64{0, 0x8928308280fffff, 1, 1<<64 - 1}[rng.IntN(4)]
	v.SpeedMPS, v.HasSpeed = float32(rng.IntN(3)*10), rng.IntN(3) > 0
	v.HeadingDeg, v.HasHeading = float32(rng.IntN(3)*90), rng.IntN(3) > 0
	v.VarEastM2, v.CovEastNorthM2, v.VarNorthM2 = rng.Float32()*9, -rng.Float32()*float32(rng.IntN(2)), rng.Float32()*9
	v.Availability = starlingv1.Availability(rng.IntN(6))
	v.DerivedAvailability = starlingv1.Availability(rng.IntN(2) * 3)
	v.Dispatchable, v.Conflicting = rng.IntN(2) == 0, rng.IntN(2) == 0
	v.DeviceClockAheadMS = []int64{0, 1, -999, -130_001, 90_000}[rng.IntN(5)]
	v.Verdict = starlingv1.Verdict(rng.IntN(6))
	v.Counts = wire.FixCounts{Accepted: rng.Int64() >> rng.IntN(63), Duplicate: int64(rng.IntN(2)), Conflict: int64(rng.IntN(300)), Late: 1 << 31, SetAside: int64(rng.IntN(2) * 200)}
	if v.HasAttributes = rng.IntN(4) > 0; v.HasAttributes {
		v.Attributes = wire.Attributes{Type: strings.Repeat("t", rng.IntN(32)), Seats: int32(rng.IntN(3) * 100)}
		for range rng.IntN(17) {
			v.Attributes.Tags = append(v.Attributes.Tags, strings.Repeat("ä", 1+rng.IntN(31)))
		}
	}
	if rng.IntN(10) == 0 {
		v.LatDeg, v.LonDeg = 0, 0
	}
	return v
}
