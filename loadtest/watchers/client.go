package watchers

import (
	"context"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/starling-fleet/starling/internal/latency"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// clients is all clients together.
type clients struct {
	opts *Options
	// measuring is true while updates are counted.
	measuring        atomic.Bool
	fix, log, first  latency.Histogram
	updates, changed atomic.Int64
	open             atomic.Int64
	updated          []atomic.Bool // by client: within the measured time
}

// watch is one client: it watches its area until ctx is done.
func (a *clients) watch(ctx context.Context, conn *grpc.ClientConn, number int) error {
	lat, lon := a.opts.centre(number % a.opts.Areas)
	const half = spacingDeg / 4
	wide := half / math.Cos(lat*math.Pi/180)
	begun := time.Now()
	stream, err := starlingv1.NewFleetServiceClient(conn).WatchArea(ctx, &starlingv1.WatchAreaRequest{
		Area: &starlingv1.Area{Shape: &starlingv1.Area_Viewport{Viewport: &starlingv1.Viewport{
			Southwest: &starlingv1.Place{Latitude: lat - half, Longitude: lon - wide},
			Northeast: &starlingv1.Place{Latitude: lat + half, Longitude: lon + wide},
		}}},
		MinInterval: durationpb.New(a.opts.MinInterval),
	})
	if err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	inside := 0
	for snapshot := true; ; {
		update, err := stream.Recv()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("watcher %d: %w", number, err)
		}
		if snapshot {
			inside += len(update.Changed)
			if snapshot = update.More; !snapshot {
				a.first.Record(time.Since(begun))
				a.open.Add(1)
				if inside != a.opts.VehiclesPerArea {
					return fmt.Errorf("watcher %d: %d vehicles are in the snapshot, %d are in the area", number, inside, a.opts.VehiclesPerArea)
				}
			}
			continue
		}
		a.take(number, update)
	}
}

func (a *clients) take(number int, update *starlingv1.WatchAreaResponse) {
	if !a.measuring.Load() {
		return
	}
	now := time.Now()
	a.updated[number].Store(true)
	a.updates.Add(1)
	a.changed.Add(int64(len(update.Changed)))
	for _, v := range update.Changed {
		a.fix.Record(now.Sub(v.DeviceTime.AsTime()))
		a.log.Record(now.Sub(v.SeenTime.AsTime()))
	}
}

func (a *clients) silent() (n int) {
	for i := range a.updated {
		if !a.updated[i].Load() {
			n++
		}
	}
	return n
}
