package watchers

import (
	"context"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/starling-fleet/starling/internal/retry"
	"github.com/starling-fleet/starling/loadtest/conns"
	"github.com/starling-fleet/starling/loadtest/process"
)

// openAtOnce is how many calls are being opened at a time.
const openAtOnce = 64

// run is a measurement under way.
type run struct {
	opts    *Options
	server  *process.Up
	conns   conns.Set
	fleet   *fleet
	clients *clients
	result  Result
}

// Run measures. It returns an error if it could not; goals that were missed are
// in the result.
func Run(ctx context.Context, o Options) (result Result, err error) {
	if err := o.Validate(); err != nil {
		return Result{}, err
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	server, err := process.StartUp(ctx, o.Starling, o.WorkDir, "--matcher-max-watchers", fmt.Sprint(o.Watchers))
	if err != nil {
		return Result{}, err
	}
	r := &run{opts: &o, server: server, fleet: newFleet(&o), clients: &clients{opts: &o, updated: make([]atomic.Bool, o.Watchers)}}
	defer func() {
		r.conns.Close()
		if stopErr := r.server.End(time.Minute); err == nil {
			err = stopErr
		}
	}()
	err = r.measure(ctx)
	return r.result, err
}

// eachStream runs fn for every share of the fleet, on a connection of its own.
func (r *run) eachStream(ctx context.Context, ingest []*grpc.ClientConn, fn func(context.Context, *grpc.ClientConn, int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for i, conn := range ingest {
		group.Go(func() error { return fn(ctx, conn, i) })
	}
	return group.Wait()
}

func (r *run) measure(ctx context.Context) error {
	ingest := make([]*grpc.ClientConn, reportStreams)
	for i := range ingest {
		var err error
		if ingest[i], err = r.conns.Dial(r.server.Ingest); err != nil {
			return err
		}
	}
	o := r.opts
	o.Progress(fmt.Sprintf("%d vehicles report for the first time", o.Areas*o.VehiclesPerArea))
	if err := r.eachStream(ctx, ingest, r.fleet.fill); err != nil {
		return err
	}
	if err := r.searchable(ctx); err != nil {
		return err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	done, finish := context.WithCancel(groupCtx)
	defer finish()
	group.Go(func() error {
		return r.eachStream(groupCtx, ingest, func(ctx context.Context, conn *grpc.ClientConn, i int) error {
			return r.fleet.drive(ctx, done, conn, i)
		})
	})
	group.Go(func() error {
		defer finish()
		return r.inFrontOf(groupCtx)
	})
	return group.Wait()
}

// inFrontOf opens the calls while the fleet drives, and measures.
func (r *run) inFrontOf(ctx context.Context) error {
	o := r.opts
	o.Progress("memory without watchers")
	before, err := r.leastMemory(ctx)
	if err != nil {
		return err
	}
	watching, leave := context.WithCancel(ctx)
	defer leave()
	group, groupCtx := errgroup.WithContext(watching)
	o.Progress(fmt.Sprintf("%d watchers call", o.Watchers))
	if err := r.call(ctx, groupCtx, group); err != nil {
		return err
	}
	o.Progress("memory with watchers")
	if err := retry.Sleep(groupCtx, o.Warmup); err != nil {
		return firstError(group, leave, err)
	}
	after, err := r.leastMemory(ctx)
	if err != nil {
		return err
	}
	o.Progress("measuring")
	if err := r.count(groupCtx); err != nil {
		return firstError(group, leave, err)
	}
	leave()
	if err := group.Wait(); err != nil {
		return err
	}
	r.result.LiveBytesPerWatcher = (after.live - before.live) / float64(o.Watchers)
	r.result.ResidentBytesPerWatcher = (after.resident - before.resident) / float64(o.Watchers)
	r.judge()
	return nil
}

// firstError returns a watcher's error instead of the cancellation that it
// caused.
func firstError(group *errgroup.Group, leave func(), err error) error {
	leave()
	if cause := group.Wait(); cause != nil {
		return cause
	}
	return err
}

// call opens all calls and waits until each has its first update.
func (r *run) call(ctx, watching context.Context, group *errgroup.Group) error {
	var conn *grpc.ClientConn
	for i := range r.opts.Watchers {
		if i%r.opts.StreamsPerConnection == 0 {
			var err error
			if conn, err = r.conns.Dial(r.server.Matcher); err != nil {
				return err
			}
		}
		to := conn
		group.Go(func() error { return r.clients.watch(watching, to, i) })
		for int64(i+1)-r.clients.open.Load() >= openAtOnce && watching.Err() == nil {
			if err := retry.Sleep(ctx, time.Millisecond); err != nil {
				return err
			}
		}
	}
	for r.clients.open.Load() < int64(r.opts.Watchers) && watching.Err() == nil {
		if err := retry.Sleep(ctx, time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// count measures for Duration.
func (r *run) count(ctx context.Context) error {
	cpu := func() (float64, float64, error) {
		m, err := r.server.Metrics(ctx)
		return m["process_cpu_seconds_total"], ownCPUSeconds(), err
	}
	server, own, err := cpu()
	if err != nil {
		return err
	}
	begun, sent := time.Now(), r.fleet.sent.Load()
	r.clients.measuring.Store(true)
	if err := retry.Sleep(ctx, r.opts.Duration); err != nil {
		return err
	}
	r.clients.measuring.Store(false)
	took := time.Since(begun)
	serverAfter, ownAfter, err := cpu()
	if err != nil {
		return err
	}
	m, err := r.server.Metrics(ctx)
	if err != nil {
		return err
	}
	out := &r.result
	out.Watchers, out.Vehicles, out.Measured = r.opts.Watchers, r.opts.Areas*r.opts.VehiclesPerArea, took
	out.FixesPerSecond = float64(r.fleet.sent.Load()-sent) / took.Seconds()
	out.ChangesPerSecond = float64(r.clients.changed.Load()) / took.Seconds()
	out.UpdatesPerSecond = float64(r.clients.updates.Load()) / took.Seconds()
	out.FixToClient, out.LogToClient, out.Snapshot = r.clients.fix.Summary(), r.clients.log.Summary(), r.clients.first.Summary()
	out.Silent, out.Rescans = r.clients.silent(), m["starling_matcher_area_rescans_total"]
	out.ServerCores, out.GeneratorCores = (serverAfter-server)/took.Seconds(), (ownAfter-own)/took.Seconds()
	return nil
}

func (r *run) judge() {
	out := &r.result
	if p99 := out.FixToClient.P99; p99 > r.opts.MaxP99 {
		out.Faults = append(out.Faults, fmt.Sprintf("fix to client takes %v for 99 in 100, at most %v is promised", p99, r.opts.MaxP99))
	}
	if out.Silent > 0 {
		out.Faults = append(out.Faults, fmt.Sprintf("%d watchers got no update", out.Silent))
	}
}

// searchable waits until the matcher has every vehicle.
func (r *run) searchable(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	want := float64(r.opts.Areas * r.opts.VehiclesPerArea)
	for {
		m, err := r.server.Metrics(ctx)
		if err == nil && m["starling_matcher_vehicles"] == want {
			return nil
		}
		if retry.Sleep(ctx, 20*time.Millisecond) != nil {
			return fmt.Errorf("%v of %v vehicles can be found: %w", m["starling_matcher_vehicles"], want, ctx.Err())
		}
	}
}

// memory is what the server has, in bytes.
type memory struct{ live, resident float64 }

// leastMemory is the least that the server has had in use over some collections:
// about what is live. The resident memory is the last seen.
func (r *run) leastMemory(ctx context.Context) (low memory, err error) {
	const looks = 25
	for i := range looks {
		m, err := r.server.Metrics(ctx)
		if err != nil {
			return low, err
		}
		live := m["go_memstats_heap_alloc_bytes"] + m["go_memstats_stack_inuse_bytes"]
		if i == 0 || live < low.live {
			low.live = live
		}
		low.resident = m["process_resident_memory_bytes"]
		if err := retry.Sleep(ctx, r.opts.Warmup/looks); err != nil {
			return low, err
		}
	}
	return low, nil
}

func ownCPUSeconds() float64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}
