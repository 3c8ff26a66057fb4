package overload

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/client"
	"github.com/starling-fleet/starling/internal/latency"
	"github.com/starling-fleet/starling/internal/retry"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// tally counts statuses. It is safe for concurrent use.
type tally struct {
	mu sync.Mutex
	n  map[string]int64
}

// add counts a stream's end as "Code" or "Code REASON".
func (t *tally) add(err error) {
	st := status.Convert(err)
	key := st.Code().String()
	for _, detail := range st.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			key += " " + info.GetReason()
		}
	}
	if errors.Is(err, client.ErrAckTimeout) {
		key = "no acknowledgement in time"
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n == nil {
		t.n = map[string]int64{}
	}
	t.n[key]++
}

func (t *tally) counts() map[string]int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.n)
}

// flood is the senders of the overload. Each offers its share at a fixed rate
// whatever the server does, as far as the protocol allows: it sends while its
// window allows, comes back after the delay that the server asks for, and sends again what
// was not acknowledged, so that in the end everything it sent is accounted for.
type flood struct {
	opts    *Options
	conns   []grpc.ClientConnInterface
	rate    float64 // fixes offered a second by all
	ended   tally
	acks    latency.Histogram
	mu      sync.Mutex
	senders []*client.Reporter
}

// run sends until load is done and then until everything sent is acknowledged
// or ctx is done.
func (f *flood) run(ctx, load context.Context) error {
	group, groupCtx := errgroup.WithContext(ctx)
	for i := range f.opts.streams() {
		cfg := client.DefaultConfig()
		cfg.MaxPendingReports = f.opts.InFlight
		reporter, err := client.NewReporter(f.conns[i%len(f.conns)], cfg, client.Handlers{
			Acknowledged: func(r client.Receipt) { f.acks.Record(r.Latency) },
			Broken:       func(err error, _ time.Duration) { f.ended.add(err) },
		})
		if err != nil {
			return err
		}
		f.mu.Lock()
		f.senders = append(f.senders, reporter)
		f.mu.Unlock()
		group.Go(func() error { return reporter.Run(groupCtx) })
		group.Go(func() error {
			if err := f.send(load, reporter, i); err != nil {
				return err
			}
			return reporter.Close(groupCtx)
		})
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("a sender of the overload: %w", err)
	}
	return nil
}

// send offers one stream's share until load is done.
func (f *flood) send(load context.Context, reporter *client.Reporter, stream int) error {
	vehicles := make([]*vehicle, f.opts.VehiclesPerStream)
	for i := range vehicles {
		vehicles[i] = newVehicle(fmt.Sprintf("flood-%d-%d", stream, i), f.opts.FixesPerReport)
	}
	every := time.Duration(float64(f.opts.FixesPerReport*f.opts.streams()) / f.rate * float64(time.Second))
	due := time.Now()
	for n := 0; ; n++ {
		if wait := time.Until(due); wait > time.Millisecond {
			_ = retry.Sleep(load, wait) // Send notices that load is done
		}
		due = due.Add(every)
		if err := reporter.Send(load, vehicles[n%len(vehicles)].next()); err != nil {
			if load.Err() != nil {
				return nil
			}
			return err
		}
	}
}

// stats sums up the senders.
func (f *flood) stats() client.Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	var sum client.Stats
	for _, r := range f.senders {
		s := r.Stats()
		sum.AcknowledgedReports += s.AcknowledgedReports
		sum.AcknowledgedFixes += s.AcknowledgedFixes
		sum.RefusedFixes += s.RefusedFixes
		sum.RejectedReports += s.RejectedReports
		sum.ResentReports += s.ResentReports
		sum.ResentFixes += s.ResentFixes
		sum.BrokenStreams += s.BrokenStreams
		sum.PendingReports += s.PendingReports
	}
	return sum
}

// vehicle drives around in circles, one fix a second of device time.
type vehicle struct {
	id     string
	angle  float64
	radius float64 // degrees
	timeMS int64
	fixes  []*starlingv1.Fix
}

// backdate is how long before now a vehicle's device time begins: far enough
// that a flood does not reach the present, and within the age that is taken.
const backdate = 25 * 24 * time.Hour

func newVehicle(id string, fixesPerReport int) *vehicle {
	v := &vehicle{id: id, angle: 2 * math.Pi * rand.Float64(), radius: 0.01 + 0.1*rand.Float64(), timeMS: time.Now().Add(-backdate).UnixMilli()}
	for range fixesPerReport {
		v.fixes = append(v.fixes, &starlingv1.Fix{AccuracyM: proto.Float32(5), SpeedMps: proto.Float32(10)})
	}
	return v
}

// next makes the vehicle's next report, which holds until it is called again.
func (v *vehicle) next() *starlingv1.Report {
	const metresPerDegree, speedMPS = 111_195, 10
	for _, f := range v.fixes {
		v.timeMS += 1000
		v.angle += speedMPS / (v.radius * metresPerDegree)
		sin, cos := math.Sincos(v.angle)
		f.DeviceTimeMs, f.Latitude, f.Longitude = v.timeMS, 48.2+v.radius*sin, 16.4+1.5*v.radius*cos
	}
	return &starlingv1.Report{VehicleId: v.id, Fixes: v.fixes}
}
