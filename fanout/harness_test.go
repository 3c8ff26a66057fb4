package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/uber/h3-go/v4"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/starling-fleet/starling/fanout"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/eventlog/memlog"
	"github.com/starling-fleet/starling/matcher"
	"github.com/starling-fleet/starling/matcher/follow"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
)

const (
	partitions = 3
	startMS    = 1_800_000_000_000
)

// published is a vehicle's view and the offset of the record with it.
type published struct {
	offset int64
	view   wire.View
}

// world is a log in memory, a clock, and what a tracker has written.
type world struct {
	t     testing.TB
	nowMS atomic.Int64
	log   *memlog.Log
	next  [partitions]int64 // offset of the next record, of the source too
	views map[string][]published
	last  map[string]wire.View
	// metrics are those of the fan-out that was started last.
	metrics *prometheus.Registry
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, views: map[string][]published{}, last: map[string]wire.View{}}
	w.nowMS.Store(startMS)
	w.log = memlog.Open(memlog.NewStore(partitions, topics.All(), 0), memlog.Options{Now: w.now})
	t.Cleanup(func() { w.log.Close() })
	return w
}

func (w *world) now() time.Time       { return time.UnixMilli(w.nowMS.Load()) }
func (w *world) pass(d time.Duration) { w.nowMS.Add(d.Milliseconds()) }

type doneFunc func(int64, error)

func (f doneFunc) Done(offset int64, err error) { f(offset, err) }

func (w *world) append(p int32, change func(*wire.Track)) {
	t := &wire.Track{Epoch: w.log.Epoch(), SourceOffset: w.next[p], PreviousSourceOffset: w.next[p] - 1, ClockMS: w.now().UnixMilli()}
	change(t)
	done := make(chan error, 1)
	require.NoError(w.t, w.log.Append(context.Background(), topics.Tracks, p, eventlog.Record{Key: []byte(t.Live.VehicleID), Value: t.Append(nil)},
		doneFunc(func(offset int64, err error) {
			if err == nil && offset != w.next[p] {
				err = errors.New("another offset than expected")
			}
			done <- err
		})))
	require.NoError(w.t, <-done)
	w.next[p]++
}

// tick moves all partitions' clocks on.
func (w *world) tick() {
	for p := range int32(partitions) {
		w.append(p, func(*wire.Track) {})
	}
}

func partitionOf(id string) int32 { return eventlog.PartitionOf([]byte(id), partitions) }

// report writes what a vehicle reports now.
func (w *world) report(id string, latDeg, lonDeg float64, change ...func(*wire.View)) {
	cell, err := h3.LatLngToCell(h3.LatLng{Lat: latDeg, Lng: lonDeg}, 9)
	require.NoError(w.t, err)
	v := w.last[id]
	v.VehicleID, v.Cell, v.LatDeg, v.LonDeg = id, uint64(cell), latDeg, lonDeg
	v.DeviceTimeMS, v.SeenTimeMS = w.now().UnixMilli(), w.now().UnixMilli()
	v.Availability = starlingv1.Availability_AVAILABILITY_FREE
	v.Counts.Accepted++
	for _, c := range change {
		c(&v)
	}
	p := partitionOf(id)
	w.views[id] = append(w.views[id], published{w.next[p], v})
	w.last[id] = v
	w.append(p, func(t *wire.Track) { t.HasLive, t.Live = true, v })
}

// gate is a log that lets its reader see each partition up to an offset.
type gate struct {
	follow.Log
	mu        sync.Mutex
	turned    sync.Cond
	allowed   [partitions]int64 // records below may be read
	delivered [partitions]int64
	idle      bool // the reader waits: what was delivered has been applied
}

func newGate(l follow.Log) *gate {
	g := &gate{Log: l}
	g.turned.L = &g.mu
	return g
}

// open lets records below an offset pass and waits until they are applied.
func (g *gate) open(upTo [partitions]int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.allowed = upTo
	g.turned.Broadcast()
	for !g.idle || g.delivered != g.allowed {
		g.turned.Wait()
	}
}

func (g *gate) NewReader(ctx context.Context, topic string, start map[int32]int64) (eventlog.Reader, error) {
	inner, err := g.Log.NewReader(ctx, topic, start)
	return &gatedReader{Reader: inner, gate: g}, err
}

type gatedReader struct {
	eventlog.Reader
	gate    *gate
	pending []eventlog.Batch
	fetched [partitions]int64
}

func (r *gatedReader) Poll(ctx context.Context) (eventlog.Batch, error) {
	g := r.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	defer func() { g.idle = false }()
	defer context.AfterFunc(ctx, func() { g.mu.Lock(); defer g.mu.Unlock(); g.turned.Broadcast() })()
	for {
		if b, ok := r.deliver(); ok {
			return b, nil
		}
		if ctx.Err() != nil {
			return eventlog.Batch{}, ctx.Err()
		}
		missing := false
		for p := range r.fetched {
			missing = missing || r.fetched[p] < g.allowed[p]
		}
		if !missing {
			g.idle = true
			g.turned.Broadcast()
			g.turned.Wait()
			continue
		}
		g.mu.Unlock()
		b, err := r.Reader.Poll(ctx)
		g.mu.Lock()
		if err != nil {
			return b, err
		}
		r.pending = append(r.pending, b)
		r.fetched[b.Partition] = b.Records[len(b.Records)-1].Offset + 1
	}
}

// deliver returns the first records that are pending and allowed.
func (r *gatedReader) deliver() (eventlog.Batch, bool) {
	for i := range r.pending {
		b := r.pending[i]
		n := 0
		for n < len(b.Records) && b.Records[n].Offset < r.gate.allowed[b.Partition] {
			n++
		}
		if n == 0 {
			continue
		}
		r.pending[i].Records = b.Records[n:]
		if n == len(b.Records) {
			r.pending = append(r.pending[:i:i], r.pending[i+1:]...)
		}
		b.Records = b.Records[:n]
		r.gate.delivered[b.Partition] = b.Records[n-1].Offset + 1
		return b, true
	}
	return eventlog.Batch{}, false
}

// network connects by address in memory.
type network struct {
	mu        sync.Mutex
	listeners map[string]*bufconn.Listener
}

func (n *network) dial(ctx context.Context, address string) (net.Conn, error) {
	n.mu.Lock()
	listener := n.listeners[address]
	n.mu.Unlock()
	if listener == nil {
		return nil, errors.New("nobody listens at " + address)
	}
	return listener.DialContext(ctx)
}

// serve opens a listener until stop is called or the test ends.
func (n *network) serve(t testing.TB, address string, server *grpc.Server) (stop func()) {
	listener := bufconn.Listen(1 << 20)
	n.mu.Lock()
	if n.listeners == nil {
		n.listeners = map[string]*bufconn.Listener{}
	}
	n.listeners[address] = listener
	n.mu.Unlock()
	go server.Serve(listener)
	stop = sync.OnceFunc(func() {
		n.mu.Lock()
		delete(n.listeners, address)
		n.mu.Unlock()
		server.Stop()
	})
	t.Cleanup(stop)
	return stop
}

func (n *network) client(t testing.TB, address string) starlingv1.FleetServiceClient {
	conn, err := grpc.NewClient("passthrough:"+address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(n.dial))
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return starlingv1.NewFleetServiceClient(conn)
}

// matcher runs a matcher of a region ("" for all) at an address. It begins with
// what is in the log.
func (w *world) matcher(n *network, address, region string, regions []string) (g *gate, stop func()) {
	g = newGate(w.log)
	g.allowed = w.next // what is there when it starts it may read
	cfg := matcher.DefaultConfig()
	cfg.Region, cfg.Regions = region, regions
	m, err := matcher.New(cfg, matcher.Deps{Log: g, Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler), Now: w.now})
	require.NoError(w.t, err)
	w.run(m.Run)
	require.Eventually(w.t, m.Ready, time.Minute, time.Millisecond)
	server := grpc.NewServer(append(matcher.ServerOptions(), m.RegionOptions()...)...)
	m.Register(server)
	return g, n.serve(w.t, address, server)
}

// run runs a role until the test ends.
func (w *world) run(role func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- role(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("a role failed: %v", err)
		}
	})
}

// fanout runs a fan-out and returns its client.
func (w *world) fanout(n *network, regions []string, replicas ...string) starlingv1.FleetServiceClient {
	cfg := fanout.DefaultConfig()
	cfg.Replicas, cfg.Timeout = replicas, 5*time.Second
	estimator, err := matcher.DefaultConfig().ETA.Estimator()
	require.NoError(w.t, err)
	w.metrics = prometheus.NewRegistry()
	f, err := fanout.New(cfg, fanout.Deps{
		Regions:     regions,
		Estimator:   estimator,
		Registerer:  w.metrics,
		Logger:      slog.New(slog.DiscardHandler),
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(n.dial)},
	})
	require.NoError(w.t, err)
	w.run(f.Run)
	server := grpc.NewServer(matcher.ServerOptions()...)
	f.Register(server)
	address := fmt.Sprint("fanout", len(n.listeners)) // a test opens its listeners one by one
	n.serve(w.t, address, server)
	return n.client(w.t, address)
}

func list(cells []h3.Cell) string {
	var out []string
	for _, c := range cells {
		out = append(out, c.String())
	}
	return strings.Join(out, " ")
}
