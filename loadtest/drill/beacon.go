package drill

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/loadtest/drill/check"
	"github.com/starling-fleet/starling/schemas/limits"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// A beacon is a vehicle that stands far from the fleet and reports one fix at a
// time, as soon as it is taken. There is one in each partition, so the
// longest time from a beacon's fix to its being found is the longest gap of any
// partition.
const (
	beaconPrefix   = "beacon-"
	beaconInterval = 500 * time.Millisecond // 40 unacknowledged last for 20 s
	beaconLatDeg   = -30.0
	beaconLonDeg   = 25.0
	beaconPoll     = 20 * time.Millisecond
	// beaconPatience is how long a matcher may take to answer before the next
	// is asked.
	beaconPatience = 500 * time.Millisecond
)

// beacons sends them and looks for them.
type beacons struct {
	fleets  []starlingv1.FleetServiceClient
	current int // the matcher that answered last
	count   int

	mu      sync.Mutex
	waiting map[string][]int64 // device times of fixes that were not found yet
	longest time.Duration      // since the last take
	fresh   time.Time          // when each beacon was last found with a fix of the last second
	found   int64
}

// newBeacons makes one vehicle for each partition.
func newBeacons(o *Options, matchers []grpc.ClientConnInterface) (*beacons, []*vehicle) {
	b := &beacons{count: o.Partitions, waiting: map[string][]int64{}}
	for _, m := range matchers {
		b.fleets = append(b.fleets, starlingv1.NewFleetServiceClient(m))
	}
	var vehicles []*vehicle
	for p := range o.Partitions {
		for n := 0; ; n++ {
			id := fmt.Sprintf("%s%d-%d", beaconPrefix, p, n)
			if eventlog.PartitionOf([]byte(id), int32(o.Partitions)) != int32(p) {
				continue
			}
			vehicles = append(vehicles, &vehicle{id: id, number: p, rng: rand.New(rand.NewPCG(o.Seed, 1<<35+uint64(p))), beacon: b})
			b.waiting[id] = nil
			break
		}
	}
	return b, vehicles
}

// ping makes a beacon's next report, with the fix that was due at a time.
func (v *vehicle) ping(due time.Time) *entry {
	if v.session == 0 {
		v.session = v.rng.Uint64() | 1
	}
	v.sequence++
	ms := due.UnixMilli()
	fix := &starlingv1.Fix{DeviceTimeMs: ms, Latitude: beaconLatDeg + float64(v.number)*0.0001, Longitude: beaconLonDeg}
	e := v.enter(&starlingv1.Report{
		VehicleId: v.id, SessionId: v.session, Sequence: v.sequence, Fixes: []*starlingv1.Fix{fix},
	}, []starlingv1.RefusalReason{starlingv1.RefusalReason_REFUSAL_REASON_UNSPECIFIED})
	v.beacon.sent(v.id, ms)
	return e
}

func (b *beacons) sent(id string, ms int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting[id] = append(b.waiting[id], ms)
}

// run looks for the beacons until ctx is done. When a matcher does not answer,
// the next is asked at once, as a client behind a balancer does.
func (b *beacons) run(ctx context.Context) {
	for sleep(ctx, beaconPoll) {
		shown, err := b.search(ctx)
		if err != nil {
			b.current = (b.current + 1) % len(b.fleets)
			continue
		}
		b.note(shown, time.Now())
	}
}

// search returns the device time of each beacon's newest fix.
func (b *beacons) search(ctx context.Context) (map[string]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, beaconPatience)
	defer cancel()
	resp, err := b.fleets[b.current].SearchNearest(ctx, &starlingv1.SearchNearestRequest{
		Place:      &starlingv1.Place{Latitude: beaconLatDeg, Longitude: beaconLonDeg},
		MaxResults: int32(b.count), RadiusM: 100_000,
	})
	if err != nil {
		return nil, err
	}
	shown := make(map[string]int64, len(resp.Results))
	for _, r := range resp.Results {
		shown[strings.TrimPrefix(r.Vehicle.Name, limits.VehicleNamePrefix)] = r.Vehicle.DeviceTime.AsTime().UnixMilli()
	}
	return shown, nil
}

func (b *beacons) note(shown map[string]int64, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	fresh := true
	for id, waiting := range b.waiting {
		n := 0
		for n < len(waiting) && waiting[n] <= shown[id] {
			b.longest = max(b.longest, now.Sub(time.UnixMilli(waiting[n])))
			n++
		}
		b.found += int64(n)
		b.waiting[id] = waiting[n:]
		fresh = fresh && now.Sub(time.UnixMilli(shown[id])) < beaconInterval+time.Second
	}
	if fresh {
		b.fresh = now
	}
}

// settle waits until every beacon was found with a fix of the last second, for a
// while on end, which began after the call.
func (b *beacons) settle(ctx context.Context, calm time.Duration) error {
	began := time.Now()
	var since time.Time
	for sleep(ctx, beaconPoll) {
		b.mu.Lock()
		fresh, calmNow := b.fresh, time.Since(b.fresh) < 500*time.Millisecond
		b.mu.Unlock()
		switch {
		case !calmNow || fresh.Before(began.Add(time.Second)):
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		case time.Since(since) >= calm:
			return nil
		}
	}
	return fmt.Errorf("fixes do not become searchable within a second again: %w", ctx.Err())
}

// take returns the longest time from a fix to its being found since the last
// take, and counts what still waits.
func (b *beacons) take() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	longest := b.longest
	for _, waiting := range b.waiting {
		if len(waiting) > 0 {
			longest = max(longest, time.Since(time.UnixMilli(waiting[0])))
		}
	}
	b.longest = 0
	return longest
}

// A Gap is what one phase of the plan cost.
type Gap struct {
	Phase string
	// Longest is the longest time from sending a fix to finding it.
	Longest time.Duration
	// Bar is what it may be; 0 means anything.
	Bar time.Duration
}

func (g Gap) judge(findings *check.Findings) {
	if g.Bar > 0 && g.Longest > g.Bar {
		findings.Add("a gap that is too long", "%s: %v from a fix to its being found, at most %v", g.Phase, round(g.Longest), g.Bar)
	}
}
