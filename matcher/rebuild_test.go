package matcher_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// A matcher that was there when everything happened judges one that starts
// after it.
func TestARebuiltFleetIsThatOfAMatcherThatWasThere(t *testing.T) {
	for seed := range uint64(5) {
		w, rng := newWorld(t), rand.New(rand.NewPCG(seed, 0))
		judge := w.startReady()
		draw := func() string { return fmt.Sprint("v", rng.IntN(40)) }
		view := func(id string) wire.View {
			v := w.at(id, rng.Float64(), rng.Float64())
			if v.HasAttributes = rng.IntN(2) == 0; v.HasAttributes {
				v.Attributes = wire.Attributes{Type: fmt.Sprint("type", rng.IntN(3)), Seats: int32(rng.IntN(4))}
				for range rng.IntN(3) {
					v.Attributes.Tags = append(v.Attributes.Tags, fmt.Sprint("tag", rng.IntN(5)))
				}
			}
			if rng.IntN(10) == 0 {
				v.DeviceTimeMS, v.LatDeg, v.LonDeg = 0, 0, 0 // no position yet
			}
			return v
		}
		const records = 600
		for range records {
			w.pass(time.Second)
			v := view(draw())
			record := w.next(partitionOf(v.VehicleID))
			record.HasLive, record.Live = rng.IntN(10) > 0, v
			for range rng.IntN(3) {
				due := draw()
				if partitionOf(due) != partitionOf(v.VehicleID) {
					continue
				}
				if rng.IntN(3) == 0 {
					record.Fired = append(record.Fired, wire.Fired{VehicleID: due, Forgotten: true})
				} else {
					record.Fired = append(record.Fired, wire.Fired{VehicleID: due, HasLive: true, Live: view(due)})
				}
			}
			w.append(partitionOf(v.VehicleID), record)
		}
		judge.eventually(func() bool { return judge.metric("records_total") == records })
		rebuilt := w.startReady()
		want, got := listAll(t, judge), listAll(t, rebuilt)
		require.NotEmpty(t, want.GetVehicles())
		require.True(t, proto.Equal(want, got), "seed %d:\n%v\n%v", seed, want, got)
	}
}

func listAll(t *testing.T, s *service) *starlingv1.ListVehiclesResponse {
	t.Helper()
	page, err := s.ListVehicles(t.Context(), &starlingv1.ListVehiclesRequest{PageSize: 1000})
	require.NoError(t, err)
	require.Empty(t, page.GetNextPageToken())
	return page
}
