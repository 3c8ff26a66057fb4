package matcher_test

import (
	"context"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/eventlog/memlog"
	"github.com/starling-fleet/starling/matcher"
	"github.com/starling-fleet/starling/matcher/eta"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
)

// partitions of every test's log.
const partitions = 4

// startMS is the wall clock's first reading in milliseconds.
const startMS = 1_800_000_000_000

// world is a log, a clock and what a tracker would write.
type world struct {
	t       testing.TB
	store   *memlog.Store
	log     *memlog.Log
	nowMS   atomic.Int64
	sources [partitions]int64 // next source offset
	epoch   int64
	clock   func() time.Time // nil: nowMS
	logger  *slog.Logger     // matchers'

	registries map[*matcher.Matcher]*prometheus.Registry
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, logger: slog.New(slog.DiscardHandler), store: memlog.NewStore(partitions, topics.All(), 0), registries: map[*matcher.Matcher]*prometheus.Registry{}}
	w.nowMS.Store(startMS)
	w.log = memlog.Open(w.store, memlog.Options{Now: w.now})
	t.Cleanup(func() { w.log.Close() })
	w.epoch = w.log.Epoch()
	return w
}

func (w *world) now() time.Time {
	if w.clock != nil {
		return w.clock()
	}
	return time.UnixMilli(w.nowMS.Load())
}

func (w *world) pass(d time.Duration) { w.nowMS.Add(d.Milliseconds()) }

type doneFunc func(int64, error)

func (f doneFunc) Done(offset int64, err error) { f(offset, err) }

// append writes a track record as it is and waits until it is durable.
func (w *world) append(partition int32, t *wire.Track) {
	done := make(chan error, 1)
	err := w.log.Append(context.Background(), topics.Tracks, partition, eventlog.Record{Key: []byte(t.Live.VehicleID), Value: t.Append(nil)},
		doneFunc(func(_ int64, err error) { done <- err }))
	require.NoError(w.t, err)
	require.NoError(w.t, <-done)
}

// next is the partition's next record, without content.
func (w *world) next(partition int32) *wire.Track {
	source := w.sources[partition]
	w.sources[partition]++
	return &wire.Track{Epoch: w.epoch, SourceOffset: source, PreviousSourceOffset: source - 1, ClockMS: w.now().UnixMilli()}
}

// tick moves a partition's clock on, as a tracker does for a silent one.
func (w *world) tick(partitions ...int32) {
	for _, p := range partitions {
		w.append(p, w.next(p))
	}
}

func (w *world) tickAll() { w.tick(0, 1, 2, 3) }

// at is a free vehicle's view at a place, now.
func (w *world) at(id string, latDeg, lonDeg float64) wire.View {
	v := wire.View{
		VehicleID: id, DeviceTimeMS: w.now().UnixMilli(), SeenTimeMS: w.now().UnixMilli(),
		Availability: starlingv1.Availability_AVAILABILITY_FREE,
	}
	v.LatDeg, v.LonDeg = latDeg, lonDeg
	return v
}

// report writes the record with which a vehicle reports v.
func (w *world) report(v wire.View) {
	p := partitionOf(v.VehicleID)
	t := w.next(p)
	t.HasLive, t.Live = true, v
	w.append(p, t)
}

func partitionOf(id string) int32 { return eventlog.PartitionOf([]byte(id), partitions) }

// service is a running matcher and a client of its server.
type service struct {
	role *matcher.Matcher
	starlingv1.FleetServiceClient
	t        testing.TB
	registry *prometheus.Registry
	failed   chan error // receives what Run returned
	stop     context.CancelFunc
}

// start runs a matcher over the world's log, but does not wait for it.
func (w *world) start(cfg matcher.Config, change ...func(*matcher.Deps)) *service {
	s := &service{t: w.t, registry: prometheus.NewRegistry(), failed: make(chan error, 1)}
	deps := matcher.Deps{Log: w.log, Registerer: s.registry, Logger: w.logger, Now: w.now}
	for _, c := range change {
		c(&deps)
	}
	var err error
	s.role, err = matcher.New(cfg, deps)
	require.NoError(w.t, err)
	s.FleetServiceClient = dial(w.t, s.role)
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.failed <- s.role.Run(ctx)
	}()
	w.t.Cleanup(func() { cancel(); <-ended })
	return s
}

// dial serves a matcher in memory and connects to it.
func dial(t testing.TB, m *matcher.Matcher) starlingv1.FleetServiceClient {
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer(matcher.ServerOptions()...)
	m.Register(server)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient("passthrough:matcher", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return starlingv1.NewFleetServiceClient(conn)
}

// startReady runs a matcher and waits until it serves.
func (w *world) startReady(change ...func(*matcher.Config)) *service {
	cfg := matcher.DefaultConfig()
	for _, c := range change {
		c(&cfg)
	}
	s := w.start(cfg)
	s.eventually(s.role.Ready)
	return s
}

// estimating has a matcher rank by an estimator.
func estimating(e eta.Estimator) func(*matcher.Deps) {
	return func(d *matcher.Deps) { d.Estimator = e }
}

// startWith does so with other dependencies.
func (w *world) startWith(change ...func(*matcher.Deps)) *service {
	s := w.start(matcher.DefaultConfig(), change...)
	s.eventually(s.role.Ready)
	return s
}

func (s *service) eventually(ok func() bool) {
	s.t.Helper()
	require.Eventually(s.t, ok, 10*time.Second, time.Millisecond)
}

// seen waits until the vehicle's newest fix is the one taken at ms.
func (s *service) seen(id string, ms int64) {
	s.t.Helper()
	s.eventually(func() bool {
		v, err := s.GetVehicle(context.Background(), &starlingv1.GetVehicleRequest{Name: "vehicles/" + id})
		return err == nil && v.DeviceTime.AsTime().UnixMilli() == ms
	})
}

func (s *service) metric(name string) float64 {
	families, err := s.registry.Gather()
	require.NoError(s.t, err)
	for _, f := range families {
		if f.GetName() == "starling_matcher_"+name {
			return f.Metric[0].GetCounter().GetValue() + f.Metric[0].GetGauge().GetValue()
		}
	}
	s.t.Fatalf("no metric %s", name)
	return 0
}

// detail returns the detail of type T of an error's status.
func detail[T any](t testing.TB, err error) T {
	t.Helper()
	for _, d := range status.Convert(err).Details() {
		if d, ok := d.(T); ok {
			return d
		}
	}
	require.FailNow(t, "detail is missing", "%v has %v", err, status.Convert(err).Details())
	panic("not reached")
}
