package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/ingest"
	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// memoryLog is the cheapest log that keeps the contract: one committer settles
// what has gathered, in order.
type memoryLog struct {
	mu     sync.Mutex
	queue  []eventlog.Completion
	wake   chan struct{}
	offset int64
}

func newMemoryLog(b *testing.B) *memoryLog {
	l := &memoryLog{wake: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	b.Cleanup(cancel)
	go func() {
		var batch []eventlog.Completion
		for {
			select {
			case <-l.wake:
			case <-ctx.Done():
				return
			}
			l.mu.Lock()
			batch, l.queue = l.queue, batch[:0]
			l.mu.Unlock()
			for _, done := range batch {
				l.offset++
				done.Done(l.offset, nil)
			}
		}
	}()
	return l
}

func (l *memoryLog) Append(_ context.Context, _ string, _ int32, _ eventlog.Record, done eventlog.Completion) error {
	l.mu.Lock()
	l.queue = append(l.queue, done)
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return nil
}

// baseline is the pipeline to compare with: generated code and nothing else.
type baseline struct {
	starlingv1.UnimplementedIngestServiceServer
	log *memoryLog
}

type bareDone struct{ acked chan int64 }

func (d *bareDone) Done(int64, error) { d.acked <- 1 }

func (s *baseline) StreamReports(stream grpc.BidiStreamingServer[starlingv1.StreamReportsRequest, starlingv1.StreamReportsResponse]) error {
	done := &bareDone{acked: make(chan int64, 4096)}
	go func() {
		var n int64
		for range done.acked {
			n++
			for more := true; more; {
				select {
				case <-done.acked:
					n++
				default:
					more = false
				}
			}
			if stream.Send(&starlingv1.StreamReportsResponse{AcknowledgedReports: n}) != nil {
				return
			}
		}
	}()
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		key := []byte(req.Report.VehicleId)
		value, err := proto.Marshal(&starlingv1.LocationRecord{Event: &starlingv1.LocationRecord_Report{Report: req.Report}})
		if err != nil {
			return err
		}
		if err := s.log.Append(stream.Context(), "", eventlog.PartitionOf(key, partitions), eventlog.Record{Key: key, Value: value}, done); err != nil {
			return err
		}
	}
}

// acks counts acknowledgements received.
var acks atomic.Int64

// BenchmarkIngest drives the baseline pipeline and ingest with the same prepared
// messages over loopback TCP, on 4 streams, and counts acknowledged reports.
func BenchmarkIngest(b *testing.B) {
	for _, fixes := range []int{1, 5, 50} {
		b.Run(fmt.Sprintf("baseline/fixes=%d", fixes), func(b *testing.B) {
			g := grpc.NewServer()
			starlingv1.RegisterIngestServiceServer(g, &baseline{log: newMemoryLog(b)})
			drive(b, g, fixes)
		})
		b.Run(fmt.Sprintf("ingest/fixes=%d", fixes), func(b *testing.B) {
			drive(b, serveIngest(b, auth.Open(), true), fixes)
		})
	}
}

func serveIngest(b *testing.B, guard *auth.Guard, rates bool) *grpc.Server {
	const plenty = 1e9 // far beyond what is sent
	cfg := ingest.DefaultConfig()
	l := &cfg.Limits
	rate := 0.0
	if rates {
		rate = plenty
	}
	l.VehicleReportsPerSec, l.VehicleFixesPerSec, l.CallerReportsPerSec, l.CallerFixesPerSec = rate, rate, rate, rate
	s, err := ingest.New(cfg, ingest.Deps{Log: newMemoryLog(b), Partitions: partitions, Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	require.NoError(b, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	b.Cleanup(func() { cancel(); require.NoError(b, <-ended) })
	g := grpc.NewServer(append(s.ServerOptions(), guard.Server("ingest").Options()...)...)
	s.Register(g)
	return g
}

// driver sends reports over streams of its own.
type driver struct {
	b       *testing.B
	senders []*reportSender
}

// openDriver connects streams to a server.
func openDriver(b *testing.B, g *grpc.Server, fixes int, token string) *driver {
	const streams = 4
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	go func() { _ = g.Serve(lis) }()
	b.Cleanup(g.Stop)
	d := &driver{b: b}
	for k := range streams {
		conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.ForceCodecV2(wire.Codec())))
		require.NoError(b, err)
		b.Cleanup(func() { _ = conn.Close() })
		ctx := context.Background()
		if token != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
		}
		client, err := starlingv1.NewIngestServiceClient(conn).StreamReports(ctx)
		require.NoError(b, err)
		d.senders = append(d.senders, newReportSender(b, client, k, fixes))
	}
	return d
}

// run sends n reports and waits until they are acknowledged. It returns the CPU time
// of the process, the clients' included.
func (d *driver) run(n int) time.Duration {
	before := cpuTime(d.b)
	var wg sync.WaitGroup
	for _, s := range d.senders {
		wg.Go(func() { s.run(n / len(d.senders)) })
	}
	wg.Wait()
	return cpuTime(d.b) - before
}

func drive(b *testing.B, g *grpc.Server, fixes int) {
	d := openDriver(b, g, fixes, "")
	b.ReportAllocs()
	b.ResetTimer()
	acks.Store(0)
	cpu := d.run(b.N)
	b.StopTimer()
	b.ReportMetric(float64(cpu)/float64(b.N), "cpu-ns/op")
	b.ReportMetric(float64(b.N)/float64(acks.Load()), "reports/ack")
	b.ReportMetric(float64(b.N*fixes)/b.Elapsed().Seconds(), "fixes/s")
}

// cpuTime is what the process has used of the processors: on a shared machine
// it shows more than the time that has passed.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// reportSender sends prepared reports over one stream, a window ahead.
type reportSender struct {
	b           *testing.B
	client      grpc.ClientStream
	messages    []*wire.StreamRequest
	sequence    int64
	outstanding int
	credit      chan int64
}

func newReportSender(b *testing.B, client grpc.ClientStream, k, fixes int) *reportSender {
	const distinct = 64
	s := &reportSender{b: b, client: client, credit: make(chan int64, reportWindow)}
	for i := range distinct {
		r := &wire.StreamRequest{HasReport: true, Report: wire.Report{VehicleID: fmt.Sprintf("vehicle-%d-%d", k, i), SessionID: 7, Sequence: 1}}
		for f := range fixes {
			r.Report.Fixes = append(r.Report.Fixes, wire.Fix{
				DeviceTimeMS: time.Now().UnixMilli() - int64(fixes-f)*1000, LatDeg: 52.5, LonDeg: 13.4, AccuracyM: 5, SpeedMPS: 12, HeadingDeg: 270,
				Has: wire.HasAccuracy | wire.HasSpeed | wire.HasHeading,
			})
		}
		s.messages = append(s.messages, r)
	}
	go func() {
		var ack wire.Ack
		var before int64
		for client.RecvMsg(&ack) == nil {
			acks.Add(1)
			s.credit <- ack.AcknowledgedReports - before
			before = ack.AcknowledgedReports
		}
		close(s.credit)
	}()
	return s
}

// reportWindow is how many reports are unacknowledged at most on a stream.
const reportWindow = 512

func (s *reportSender) run(n int) {
	for range n {
		s.await(reportWindow - 1)
		s.outstanding++
		m := s.messages[s.sequence%int64(len(s.messages))]
		s.sequence++
		m.Report.Sequence = s.sequence
		if s.client.SendMsg(m) != nil {
			return
		}
	}
	s.await(0)
}

// await waits until at most so many reports are unacknowledged.
func (s *reportSender) await(most int) {
	for s.outstanding > most {
		c, ok := <-s.credit
		require.True(s.b, ok)
		s.outstanding -= int(c)
	}
}
