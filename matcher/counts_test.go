package matcher_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber/h3-go/v4"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/starling-fleet/starling/matcher"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// inCell is a vehicle's view in the middle of the cell of a place.
func (w *world) inCell(t require.TestingT, id string, latDeg, lonDeg float64, a starlingv1.Availability) wire.View {
	v := w.at(id, latDeg, lonDeg)
	c, err := h3.LatLngToCell(h3.LatLng{Lat: latDeg, Lng: lonDeg}, 9)
	require.NoError(t, err)
	v.Cell, v.Availability = uint64(c), a
	return v
}

const (
	free   = starlingv1.Availability_AVAILABILITY_FREE
	onRide = starlingv1.Availability_AVAILABILITY_ON_RIDE
)

func TestCountVehicles(t *testing.T) {
	w := newWorld(t)
	w.report(w.inCell(t, "a", 48.2, 16.37, free))
	w.report(w.inCell(t, "b", 48.2, 16.37, onRide))
	w.report(w.inCell(t, "c", 48.21, 16.37, free))
	w.report(w.inCell(t, "far", -33, 151, free))
	nowhere := w.at("nowhere", 0, 0)
	nowhere.DeviceTimeMS = 0
	w.report(nowhere)
	w.tickAll()
	s := w.startReady()
	count := func(req *starlingv1.CountVehiclesRequest) (cells []*starlingv1.CellCount) {
		for {
			r, err := s.CountVehicles(ctx, req)
			require.NoError(t, err)
			require.Empty(t, r.StalePartitions)
			cells = append(cells, r.Cells...)
			if req.PageToken = r.NextPageToken; req.PageToken == "" {
				return cells
			}
		}
	}
	whole := count(&starlingv1.CountVehiclesRequest{})
	require.Len(t, whole, 2, "two cells of resolution 0")
	vienna, err := h3.LatLngToCell(h3.LatLng{Lat: 48.2, Lng: 16.37}, 3)
	require.NoError(t, err)
	near := &starlingv1.CellSelection{Resolution: 9, WithinH3Cells: []string{vienna.String()}}
	for _, size := range []int32{0, 1, 2} {
		cells := count(&starlingv1.CountVehiclesRequest{Selection: near, PageSize: size})
		require.Len(t, cells, 2)
		total := map[int32]*starlingv1.CellCount{cells[0].TotalCount: cells[0], cells[1].TotalCount: cells[1]}
		require.EqualValues(t, 1, total[2].FreeCount)
		require.EqualValues(t, 1, total[2].OnRideCount)
		require.EqualValues(t, 1, total[1].FreeCount)
	}
	near.Availabilities = []starlingv1.Availability{onRide}
	cells := count(&starlingv1.CountVehiclesRequest{Selection: near})
	require.Len(t, cells, 1)
	require.EqualValues(t, 1, cells[0].TotalCount)
	require.Zero(t, cells[0].FreeCount)
	require.Positive(t, s.metric("supply_cells"))

	for field, req := range map[string]*starlingv1.CountVehiclesRequest{
		"selection.resolution":      {Selection: &starlingv1.CellSelection{Resolution: 10}},
		"selection.availabilities":  {Selection: &starlingv1.CellSelection{Availabilities: []starlingv1.Availability{0}}},
		"selection.within_h3_cells": {Selection: &starlingv1.CellSelection{Resolution: 2, WithinH3Cells: []string{vienna.String()}}},
		"page_size":                 {PageSize: -1},
		"page_token":                {PageToken: "x"},
	} {
		_, err := s.CountVehicles(ctx, req)
		require.Equal(t, codes.InvalidArgument, status.Code(err), field)
		require.Equal(t, field, detail[*errdetails.BadRequest](t, err).FieldViolations[0].Field)
	}
	for _, cells := range [][]string{{"42"}, {"nonsense"}, make([]string, 1001)} {
		_, err := s.CountVehicles(ctx, &starlingv1.CountVehiclesRequest{Selection: &starlingv1.CellSelection{Resolution: 9, WithinH3Cells: cells}})
		require.Equal(t, "selection.within_h3_cells", detail[*errdetails.BadRequest](t, err).FieldViolations[0].Field)
	}
}

// counted are the numbers of a cell.
type counted [6]int32

func numbers(c *starlingv1.CellCount) counted {
	return counted{c.TotalCount, c.FreeCount, c.ReservedCount, c.OnRideCount, c.OfflineCount, c.UnstatedCount}
}

// countClient is the client of one WatchVehicleCounts call.
type countClient struct {
	grpc.ServerStream
	ctx   context.Context
	ended chan error

	mu      sync.Mutex
	busy    chan struct{} // while set, nothing is taken until it is closed
	updates int
	counts  map[string]counted
}

func (b *countClient) Context() context.Context { return b.ctx }

func (b *countClient) Send(r *starlingv1.WatchVehicleCountsResponse) error {
	b.mu.Lock()
	busy := b.busy
	b.mu.Unlock()
	if busy != nil {
		<-busy
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.Snapshot != (b.updates == 0) {
		return fmt.Errorf("update %d: snapshot is %v", b.updates, r.Snapshot)
	}
	if !r.More {
		b.updates++
	}
	for _, c := range r.Cells {
		if b.counts[c.H3Cell] == numbers(c) {
			return fmt.Errorf("%s is sent again", c.H3Cell)
		}
		if b.counts[c.H3Cell] = numbers(c); c.TotalCount == 0 {
			delete(b.counts, c.H3Cell)
		}
	}
	return b.ctx.Err()
}

func (th *watchWorld) countClient(t *testing.T, selection *starlingv1.CellSelection) *countClient {
	b := &countClient{counts: map[string]counted{}, ended: make(chan error, 1)}
	watching, leave := context.WithCancel(ctx)
	b.ctx = watching
	go func() {
		b.ended <- th.role.WatchVehicleCounts(&starlingv1.WatchVehicleCountsRequest{Selection: selection, MinInterval: durationpb.New(100 * time.Millisecond)}, b)
	}()
	t.Cleanup(leave)
	synctest.Wait()
	return b
}

func (b *countClient) shows() map[string]counted {
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.counts
}

// count asks for the same counts at once.
func (th *watchWorld) count(t *testing.T, selection *starlingv1.CellSelection) map[string]counted {
	r, err := th.role.CountVehicles(ctx, &starlingv1.CountVehiclesRequest{Selection: selection, PageSize: 10_000})
	require.NoError(t, err)
	out := map[string]counted{}
	for _, c := range r.Cells {
		out[c.H3Cell] = numbers(c)
	}
	return out
}

func TestWatchVehicleCounts(t *testing.T) {
	inWatchWorld(t, func(t *testing.T, th *watchWorld) {
		rng := rand.New(rand.NewPCG(1, 2))
		churn := func(n int) {
			for range n {
				id := fmt.Sprint("v", rng.IntN(60))
				if rng.IntN(10) == 0 {
					due := th.next(partitionOf(id))
					due.Fired = []wire.Fired{{VehicleID: id, Forgotten: true}}
					th.append(partitionOf(id), due)
					continue
				}
				th.report(th.inCell(t, id, 48+rng.Float64()/2, 16+rng.Float64()/2, starlingv1.Availability(rng.IntN(5))))
			}
			synctest.Wait()
		}
		churn(200)
		region, err := h3.LatLngToCell(h3.LatLng{Lat: 48.2, Lng: 16.2}, 4)
		require.NoError(t, err)
		selections := []*starlingv1.CellSelection{
			{Resolution: 9}, {Resolution: 5}, {Resolution: 7, WithinH3Cells: []string{region.String()}},
			{Resolution: 6, Availabilities: []starlingv1.Availability{free}},
		}
		var boards []*countClient
		for _, s := range selections {
			boards = append(boards, th.countClient(t, s))
			require.Equal(t, th.count(t, s), boards[len(boards)-1].shows())
		}
		for range 20 {
			churn(40)
			time.Sleep(250 * time.Millisecond)
			for i, s := range selections {
				require.Equal(t, th.count(t, s), boards[i].shows())
			}
		}
		for _, b := range boards {
			b.mu.Lock()
			require.LessOrEqual(t, b.updates, 1+2*20, "as many as the interval allows")
			b.mu.Unlock()
		}

		// One that takes nothing meanwhile is then sent the newest counts.
		slow := boards[0]
		release := make(chan struct{})
		slow.mu.Lock()
		slow.busy = release
		before := slow.updates
		slow.mu.Unlock()
		churn(12_000)
		slow.mu.Lock()
		slow.busy = nil
		slow.mu.Unlock()
		close(release)
		time.Sleep(time.Second)
		require.Equal(t, th.count(t, selections[0]), slow.shows())
		require.LessOrEqual(t, slow.updates, before+3)
		for _, b := range boards {
			require.Empty(t, b.ended)
		}
	})
}

func TestWatchVehicleCountsLimits(t *testing.T) {
	w := newWorld(t)
	for i := range 3 {
		w.report(w.inCell(t, "v"+strconv.Itoa(i), 48+float64(i), 16, free))
	}
	s := w.startReady(func(c *matcher.Config) { c.MaxWatchers, c.MaxAreaVehicles = 1, 2 })
	open := func(resolution int32) (grpc.ServerStreamingClient[starlingv1.WatchVehicleCountsResponse], error) {
		stream, err := s.WatchVehicleCounts(ctx, &starlingv1.WatchVehicleCountsRequest{Selection: &starlingv1.CellSelection{Resolution: resolution}})
		require.NoError(t, err)
		_, err = stream.Recv()
		return stream, err
	}
	_, err := open(9)
	require.Equal(t, "AREA_TOO_LARGE", detail[*errdetails.ErrorInfo](t, err).Reason)
	s.eventually(func() bool { return s.metric("count_watchers") == 0 })
	stream, err := open(0)
	require.NoError(t, err)
	_, err = open(0)
	require.Equal(t, "TOO_MANY_WATCHERS", detail[*errdetails.ErrorInfo](t, err).Reason)
	_, err = open(10)
	require.Equal(t, codes.InvalidArgument, status.Code(err))
	s.stop()
	_, err = stream.Recv()
	require.Equal(t, codes.Unavailable, status.Code(err))
}
