package ingest_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/starling-fleet/starling/ingest"
	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

const partitions = 8

// patience bounds waits for what must happen; nothing waits for it to pass.
const patience = 20 * time.Second

// now is the wall clock of the tests.
var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// fakeLog is a log in memory whose appends a test can hold and fail, before or
// after they are stored.
type fakeLog struct {
	mu     sync.Mutex
	stored []storedRecord
	held   []heldAppend
	hold   bool
	// before answers an append instead of storing it, after in spite of having
	// stored it; sync is what Append itself returns.
	before, after, sync func(key string) error
	changed             chan struct{}
}

type storedRecord struct {
	topic     string
	partition int32
	key       string
	location  wire.Location
}

type heldAppend struct {
	rec  storedRecord
	done eventlog.Completion
}

func (l *fakeLog) Append(_ context.Context, topic string, partition int32, rec eventlog.Record, done eventlog.Completion) error {
	r := storedRecord{topic: topic, partition: partition, key: string(rec.Key)}
	if err := r.location.Unmarshal(rec.Value); err != nil {
		panic(err)
	}
	l.mu.Lock()
	if l.sync != nil {
		if err := l.sync(r.key); err != nil {
			l.mu.Unlock()
			return err
		}
	}
	if l.hold {
		l.held = append(l.held, heldAppend{r, done})
		l.tellLocked()
		l.mu.Unlock()
		return nil
	}
	l.mu.Unlock()
	l.settle(heldAppend{r, done})
	return nil
}

func (l *fakeLog) settle(h heldAppend) {
	l.mu.Lock()
	var err error
	if l.before != nil {
		err = l.before(h.rec.key)
	}
	if err == nil {
		l.stored = append(l.stored, h.rec)
		if l.after != nil {
			err = l.after(h.rec.key)
		}
	}
	offset := int64(len(l.stored))
	l.tellLocked()
	l.mu.Unlock()
	h.done.Done(offset, err)
}

func (l *fakeLog) tellLocked() {
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// await waits until ok, which is called with the lock held, is true.
func (l *fakeLog) await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for {
		l.mu.Lock()
		if ok() {
			l.mu.Unlock()
			return
		}
		if l.changed == nil {
			l.changed = make(chan struct{})
		}
		changed := l.changed
		l.mu.Unlock()
		select {
		case <-changed:
		case <-deadline:
			require.FailNow(t, "never happened: "+what)
		}
	}
}

func (l *fakeLog) awaitHeld(t *testing.T, n int) {
	t.Helper()
	l.await(t, "held appends", func() bool { return len(l.held) >= n })
}

// release settles the held append with the index, in the order they came.
func (l *fakeLog) release(i int) {
	l.mu.Lock()
	h := l.held[i]
	l.mu.Unlock()
	l.settle(h)
}

// releaseAll settles all held appends and holds no more.
func (l *fakeLog) releaseAll() {
	l.mu.Lock()
	held := l.held
	l.held, l.hold = nil, false
	l.mu.Unlock()
	for _, h := range held {
		l.settle(h)
	}
}

func (l *fakeLog) records() []storedRecord {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]storedRecord(nil), l.stored...)
}

// endpoint is a running ingest server with a connection to it.
type endpoint struct {
	client   starlingv1.IngestServiceClient
	conn     *grpc.ClientConn
	server   *ingest.Server
	registry *prometheus.Registry
	listener *bufconn.Listener
	// skew and elapsed move the server's clocks: the wall clock is now plus
	// both, the monotonic clock elapsed. Both are nanoseconds.
	skew, elapsed atomic.Int64
	stop          func() // asks Run to end
	ended         chan error
}

func open(t *testing.T, log ingest.Appender, change ...func(*ingest.Config)) *endpoint {
	t.Helper()
	cfg := ingest.DefaultConfig()
	for _, c := range change {
		c(&cfg)
	}
	d := &endpoint{registry: prometheus.NewRegistry(), listener: bufconn.Listen(64 << 10), ended: make(chan error, 1)}
	var err error
	d.server, err = ingest.New(cfg, ingest.Deps{
		Log:           log,
		Partitions:    partitions,
		Registerer:    d.registry,
		Logger:        slog.New(slog.NewTextHandler(io.Discard, nil)),
		Now:           func() time.Time { return now.Add(time.Duration(d.skew.Load() + d.elapsed.Load())) },
		Monotonic:     func() time.Duration { return time.Duration(d.elapsed.Load()) },
		StampInterval: time.Millisecond,
	})
	require.NoError(t, err)
	g := grpc.NewServer(append(append(d.server.ServerOptions(), auth.Open().Server("ingest").Options()...), grpc.WaitForHandlers(true))...)
	d.server.Register(g)
	ctx, cancel := context.WithCancel(context.Background())
	d.stop = cancel
	go func() { d.ended <- d.server.Run(ctx) }()
	served := make(chan error, 1)
	go func() { served <- g.Serve(d.listener) }()
	d.conn = d.dial(t)
	d.client = starlingv1.NewIngestServiceClient(d.conn)
	t.Cleanup(func() {
		cancel()
		g.Stop()
		require.NoError(t, <-served)
		select {
		case err := <-d.ended:
			require.NoError(t, err)
		case <-time.After(patience):
			t.Error("Run does not end")
		}
	})
	return d
}

// dial opens another connection.
func (d *endpoint) dial(t *testing.T, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///ingest", append(opts,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return d.listener.DialContext(ctx) }))...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

type reports = grpc.BidiStreamingClient[starlingv1.StreamReportsRequest, starlingv1.StreamReportsResponse]

func (d *endpoint) stream(t *testing.T) reports {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	s, err := d.client.StreamReports(ctx)
	require.NoError(t, err)
	return s
}

func send(t *testing.T, s reports, r *starlingv1.Report) {
	t.Helper()
	require.NoError(t, s.Send(&starlingv1.StreamReportsRequest{Report: r}))
}

// until receives acknowledgements until n reports are covered, and returns them
// summed up.
func until(t *testing.T, s reports, n int64) *starlingv1.StreamReportsResponse {
	t.Helper()
	sum := &starlingv1.StreamReportsResponse{}
	for sum.AcknowledgedReports < n {
		ack, err := s.Recv()
		require.NoError(t, err)
		require.Greater(t, ack.AcknowledgedReports, sum.AcknowledgedReports, "acknowledgements move on")
		sum.AcknowledgedReports, sum.AcknowledgedSequence = ack.AcknowledgedReports, ack.AcknowledgedSequence
		sum.Refusals = append(sum.Refusals, ack.Refusals...)
	}
	require.Equal(t, n, sum.AcknowledgedReports)
	return sum
}

func goodFix(offset time.Duration) *starlingv1.Fix {
	return &starlingv1.Fix{DeviceTimeMs: now.Add(offset).UnixMilli(), Latitude: 52.5, Longitude: 13.4}
}

// report is a good report of vehicle "v" with n fixes.
func report(sequence int64, fixes int) *starlingv1.Report {
	r := &starlingv1.Report{VehicleId: "v", SessionId: 7, Sequence: sequence}
	for i := range fixes {
		r.Fixes = append(r.Fixes, goodFix(time.Duration(i-fixes)*time.Second))
	}
	return r
}

// metric returns the value of a counter or gauge, summed over labels that
// contain all of want (name, value, name, value, ...).
func (d *endpoint) metric(t *testing.T, name string, want ...string) float64 {
	t.Helper()
	families, err := d.registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		var sum float64
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			matches := true
			for i := 0; i < len(want); i += 2 {
				matches = matches && labels[want[i]] == want[i+1]
			}
			if matches {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
		return sum
	}
	require.FailNow(t, "no metric "+name)
	return 0
}
