// Package freshness measures how long after it was sent a fix can be found: it
// watches some vehicles and notes when their newest fix is shown.
package freshness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/internal/latency"
	"github.com/starling-fleet/starling/internal/retry"
	"github.com/starling-fleet/starling/schemas/limits"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// maxWaiting bounds the fixes of one vehicle that have not been shown yet.
const maxWaiting = 4096

// reopenPause comes before a watch that broke is opened again.
const reopenPause = 200 * time.Millisecond

// Probe watches vehicles. Make it with New; its methods are safe for concurrent
// use.
type Probe struct {
	fleet    starlingv1.FleetServiceClient
	vehicles map[string]*watched
	shown    latency.Histogram
}

type watched struct {
	mu      sync.Mutex
	waiting []sent // by device time
	newest  int64
}

type sent struct {
	deviceTimeMS int64
	at           time.Time
}

// New makes a probe that will watch the named vehicles. It does nothing until
// Run.
func New(fleet grpc.ClientConnInterface, vehicles []string) *Probe {
	p := &Probe{fleet: starlingv1.NewFleetServiceClient(fleet), vehicles: map[string]*watched{}}
	for _, id := range vehicles {
		p.vehicles[id] = &watched{}
	}
	return p
}

// Watches reports whether the probe watches a vehicle.
func (p *Probe) Watches(vehicle string) bool { return p.vehicles[vehicle] != nil }

// Sent notes that a vehicle's newest fix is being sent. Fixes of vehicles that
// are not watched, and fixes that are not the vehicle's newest, are ignored:
// they do not show.
func (p *Probe) Sent(vehicle string, deviceTimeMS int64, at time.Time) {
	w := p.vehicles[vehicle]
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if deviceTimeMS <= w.newest {
		return
	}
	w.newest = deviceTimeMS
	if len(w.waiting) == maxWaiting {
		w.waiting = append(w.waiting[:0], w.waiting[maxWaiting/2:]...)
	}
	w.waiting = append(w.waiting, sent{deviceTimeMS, at})
}

// show notes that the fleet shows a vehicle's fix, and with it those before.
func (p *Probe) show(w *watched, deviceTimeMS int64, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for n < len(w.waiting) && w.waiting[n].deviceTimeMS <= deviceTimeMS {
		p.shown.Record(now.Sub(w.waiting[n].at))
		n++
	}
	w.waiting = append(w.waiting[:0], w.waiting[n:]...)
}

// Shown is the time from sending a fix to the watcher seeing it.
func (p *Probe) Shown() latency.Summary { return p.shown.Summary() }

// Waiting is how many noted fixes have not been shown yet.
func (p *Probe) Waiting() int {
	n := 0
	for _, w := range p.vehicles {
		w.mu.Lock()
		n += len(w.waiting)
		w.mu.Unlock()
	}
	return n
}

// Run watches until ctx is done, which is no error. A watch that breaks is
// opened again.
func (p *Probe) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for id, w := range p.vehicles {
		group.Go(func() error {
			for {
				err := p.watch(ctx, id, w)
				if ctx.Err() != nil {
					return nil
				}
				switch code := status.Code(err); {
				case code == codes.Unavailable, code == codes.ResourceExhausted:
				// The server may notice the end of ctx first.
				case code == codes.DeadlineExceeded, errors.Is(err, io.EOF):
				default:
					return fmt.Errorf("watch vehicle %q: %w", id, err)
				}
				if retry.Sleep(ctx, reopenPause) != nil {
					return nil
				}
			}
		})
	}
	return group.Wait()
}

func (p *Probe) watch(ctx context.Context, id string, w *watched) error {
	stream, err := p.fleet.WatchVehicle(ctx, &starlingv1.WatchVehicleRequest{Name: limits.VehicleNamePrefix + id})
	if err != nil {
		return err
	}
	for {
		resp, err := stream.Recv()
		if err != nil {
			return err
		}
		if t := resp.GetVehicle().GetDeviceTime(); t != nil {
			p.show(w, t.AsTime().UnixMilli(), time.Now())
		}
	}
}
