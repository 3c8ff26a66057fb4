package recovery

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
)

// Beacons stand apart from the fleet, so that a search there finds them alone.
const (
	beaconLatDeg, beaconLonDeg = 40, 10
	beaconEvery                = 100 * time.Millisecond
)

// beacons are vehicles that stand at one place, one in each partition. A search
// that finds all of them with fixes that were sent after a start shows that
// every partition is restored: its tracker has caught up, and ingest, tracker
// and matcher serve.
type beacons struct {
	ingest  starlingv1.IngestServiceClient
	fleet   starlingv1.FleetServiceClient
	ids     []string
	session uint64
}

func newBeacons(ingest, fleet grpc.ClientConnInterface) *beacons {
	b := &beacons{
		ingest: starlingv1.NewIngestServiceClient(ingest), fleet: starlingv1.NewFleetServiceClient(fleet),
		session: max(1, rand.Uint64()),
	}
	covered := map[int32]bool{}
	for n := 0; len(covered) < topics.DefaultPartitions; n++ {
		id := fmt.Sprintf("beacon-%d", n)
		if p := eventlog.PartitionOf([]byte(id), topics.DefaultPartitions); !covered[p] {
			covered[p] = true
			b.ids = append(b.ids, id)
		}
	}
	return b
}

// run reports until ctx is done. A report that fails is given up: the next one
// has a newer fix.
func (b *beacons) run(ctx context.Context) {
	tick := time.NewTicker(beaconEvery)
	defer tick.Stop()
	for sequence := int64(1); ; sequence++ {
		var sending sync.WaitGroup
		for _, id := range b.ids {
			sending.Go(func() { b.report(ctx, id, sequence) })
		}
		sending.Wait()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (b *beacons) report(ctx context.Context, id string, sequence int64) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, _ = b.ingest.SendReport(ctx, &starlingv1.SendReportRequest{Report: &starlingv1.Report{
		VehicleId: id, SessionId: b.session, Sequence: sequence,
		Fixes: []*starlingv1.Fix{{DeviceTimeMs: time.Now().UnixMilli(), Latitude: beaconLatDeg, Longitude: beaconLonDeg}},
	}})
}

// served reports whether one search finds every beacon with a fix that was sent at
// a time or later, and names no partition as stale.
func (b *beacons) served(ctx context.Context, since time.Time) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	resp, err := b.fleet.SearchNearest(ctx, &starlingv1.SearchNearestRequest{
		Place:      &starlingv1.Place{Latitude: beaconLatDeg, Longitude: beaconLonDeg},
		MaxResults: int32(len(b.ids)), RadiusM: 10_000,
	})
	if err != nil || len(resp.GetStalePartitions()) > 0 {
		return false
	}
	fresh := 0
	for _, r := range resp.GetResults() {
		if deviceTimeMS(r.GetVehicle().GetDeviceTime()) >= since.UnixMilli() {
			fresh++
		}
	}
	return fresh == len(b.ids)
}

// await waits until the beacons are served with fixes sent since a time.
func (b *beacons) await(ctx context.Context, since time.Time) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !b.served(ctx, since) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the fleet is not served after %v: %w", time.Since(since).Round(time.Second), ctx.Err())
		}
	}
	return nil
}

func deviceTimeMS(t *timestamppb.Timestamp) int64 {
	if t == nil {
		return 0
	}
	return t.AsTime().UnixMilli()
}
