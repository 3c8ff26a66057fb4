package hostile

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/starling-fleet/starling/internal/retry"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Where the fleet is.
const (
	cityLatDeg, cityLonDeg = 48.2, 16.37
	spreadDeg              = 0.25
	fleetColumns           = 100
)

func report(id string, i int, sequence int64) *starlingv1.Report {
	return &starlingv1.Report{
		VehicleId: id, SessionId: 1, Sequence: sequence, Availability: starlingv1.Availability_AVAILABILITY_FREE,
		Fixes: []*starlingv1.Fix{{
			DeviceTimeMs: time.Now().UnixMilli(),
			Latitude:     cityLatDeg + spreadDeg*(float64(i%fleetColumns)/fleetColumns-0.5),
			Longitude:    cityLonDeg + spreadDeg*(float64(i/fleetColumns%fleetColumns)/fleetColumns-0.5),
		}},
	}
}

// fill reports vehicles and waits until the matcher knows them.
func (t *target) fill(ctx context.Context, vehicles int) error {
	conn, err := t.as("gateway", "report", t.Ingest)
	if err != nil {
		return err
	}
	stream, err := starlingv1.NewIngestServiceClient(conn).StreamReports(ctx)
	if err != nil {
		return fmt.Errorf("report the fleet: %w", err)
	}
	sent := make(chan error, 1)
	go func() {
		for i := range vehicles {
			if err := stream.Send(&starlingv1.StreamReportsRequest{Report: report(fmt.Sprintf("fleet-%06d", i), i, 1)}); err != nil {
				sent <- err
				return
			}
		}
		sent <- stream.CloseSend()
	}()
	for err == nil {
		_, err = stream.Recv()
	}
	if serr := <-sent; err != io.EOF || serr != nil { //nolint:errorlint // Recv returns io.EOF itself
		return fmt.Errorf("report the fleet: %w, %w", err, serr)
	}
	fleet, err := t.fleet("dispatcher")
	if err != nil {
		return err
	}
	for {
		found, err := fleet.SearchArea(ctx, &starlingv1.SearchAreaRequest{Area: world(), MaxResults: 1})
		if err == nil && int(found.TotalCount) >= vehicles {
			return nil
		}
		if retry.Sleep(ctx, 100*time.Millisecond) != nil {
			return fmt.Errorf("wait until the matcher knows the fleet: %w", ctx.Err())
		}
	}
}

func world() *starlingv1.Area {
	return &starlingv1.Area{Shape: &starlingv1.Area_Viewport{Viewport: &starlingv1.Viewport{
		Southwest: &starlingv1.Place{Latitude: -90, Longitude: -180}, Northeast: &starlingv1.Place{Latitude: 90, Longitude: 180},
	}}}
}

func (t *target) fleet(subject string) (starlingv1.FleetServiceClient, error) {
	conn, err := t.as(subject, "dispatch", t.fleetAddr(), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		return nil, err
	}
	return starlingv1.NewFleetServiceClient(conn), nil
}

// honest are a driver app, a dispatcher and a map, each with a token and on a
// connection of its own, that call without a pause worth mentioning.
type honest struct {
	stop context.CancelFunc
	done sync.WaitGroup

	mu     sync.Mutex
	took   []time.Duration
	failed int
	first  error
}

const (
	honestPause    = 20 * time.Millisecond
	honestPatience = 10 * time.Second
)

func (t *target) honest(ctx context.Context) (*honest, error) {
	ctx, cancel := context.WithCancel(ctx)
	h := &honest{stop: cancel}
	conn, err := t.as("driver", "report", t.Ingest)
	if err != nil {
		cancel()
		return nil, err
	}
	driver := starlingv1.NewIngestServiceClient(conn)
	dispatcher, err := t.fleet("dispatcher")
	if err != nil {
		cancel()
		return nil, err
	}
	rider, err := t.fleet("map")
	if err != nil {
		cancel()
		return nil, err
	}
	at := &starlingv1.Place{Latitude: cityLatDeg, Longitude: cityLonDeg}
	sequence := time.Now().UnixMilli()
	h.repeat(ctx, func(ctx context.Context) error {
		sequence++
		_, err := driver.SendReport(ctx, &starlingv1.SendReportRequest{Report: report("honest", 0, sequence)})
		return err
	})
	h.repeat(ctx, func(ctx context.Context) error {
		_, err := dispatcher.SearchNearest(ctx, &starlingv1.SearchNearestRequest{Place: at, MaxResults: 5})
		return err
	})
	h.repeat(ctx, func(ctx context.Context) error {
		_, err := rider.SearchArea(ctx, &starlingv1.SearchAreaRequest{MaxResults: 20, Area: &starlingv1.Area{Shape: &starlingv1.Area_Viewport{Viewport: &starlingv1.Viewport{
			Southwest: at, Northeast: &starlingv1.Place{Latitude: at.Latitude + 0.02, Longitude: at.Longitude + 0.02},
		}}}})
		return err
	})
	return h, nil
}

func (h *honest) repeat(ctx context.Context, call func(context.Context) error) {
	h.done.Go(func() {
		for ctx.Err() == nil {
			one, cancel := context.WithTimeout(ctx, honestPatience)
			begun := time.Now()
			err := call(one)
			took := time.Since(begun)
			cancel()
			if ctx.Err() != nil {
				return
			}
			h.mu.Lock()
			h.took = append(h.took, took)
			if err != nil {
				h.failed++
				if h.first == nil {
					h.first = err
				}
			}
			h.mu.Unlock()
			if retry.Sleep(ctx, honestPause) != nil {
				return
			}
		}
	})
}

func (h *honest) end(out *Outcome) {
	h.stop()
	h.done.Wait()
	slices.Sort(h.took)
	out.HonestCalls, out.HonestFailed = len(h.took), h.failed
	if len(h.took) > 0 {
		out.HonestP99 = h.took[len(h.took)*99/100]
	}
	if h.first != nil {
		out.FirstFailure = h.first.Error()
	}
}

// watch follows what the process uses.
type watch struct {
	t         *target
	base, top int64
	cpu       time.Duration
	stop      chan struct{}
	stopped   chan struct{}
}

func (t *target) watch() (*watch, error) {
	cpu, err := t.cpu()
	if err != nil {
		return nil, err
	}
	w := &watch{t: t, base: t.memory(), cpu: cpu, stop: make(chan struct{}), stopped: make(chan struct{})}
	go func() {
		defer close(w.stopped)
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		for {
			w.top = max(w.top, t.memory())
			select {
			case <-w.stop:
				return
			case <-ticker.C:
			}
		}
	}()
	return w, nil
}

// end returns by how much resident memory grew at most, and the CPU time used.
func (w *watch) end() (grown int64, cpu time.Duration, err error) {
	close(w.stop)
	<-w.stopped
	now, err := w.t.cpu()
	return max(0, w.top-w.base), now - w.cpu, err
}
