package ingest_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
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
	"github.com/starling-fleet/starling/internal/auth/mint"
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
			drive(b, g, fixes, "")
		})
		b.Run(fmt.Sprintf("ingest/fixes=%d", fixes), func(b *testing.B) {
			serveBench(b, auth.Open(), "", true, fixes)
		})
	}
}

// BenchmarkIdentity is what it costs a report on a stream that the server knows who
// sends it (an EdDSA token, of which the vehicle of each report is compared with the
// pattern) and holds vehicles and callers to rates: beside neither, 64 vehicles in
// turn on each stream.
func BenchmarkIdentity(b *testing.B) {
	_, secret, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(b, err)
	key, err := mint.NewKey(secret)
	require.NoError(b, err)
	public, err := mint.Public(secret)
	require.NoError(b, err)
	cfg := auth.DefaultConfig()
	cfg.Issuer, cfg.KeysFile = "bench", filepath.Join(b.TempDir(), "keys.pem")
	require.NoError(b, os.WriteFile(cfg.KeysFile, public, 0o600))
	guard, err := auth.New(cfg, auth.Deps{Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(b, err)
	require.NoError(b, guard.Start(context.Background()))
	token, err := key.Sign(mint.Token{Issuer: "bench", Audience: "starling", Subject: "gateway", Scope: "report", Vehicle: "vehicle-*", Until: time.Now().Add(time.Hour)})
	require.NoError(b, err)
	for _, fixes := range []int{1, 5} {
		b.Run(fmt.Sprintf("neither/fixes=%d", fixes), func(b *testing.B) { serveBench(b, auth.Open(), "", false, fixes) })
		b.Run(fmt.Sprintf("token/fixes=%d", fixes), func(b *testing.B) { serveBench(b, guard, token, false, fixes) })
		b.Run(fmt.Sprintf("token and rates/fixes=%d", fixes), func(b *testing.B) { serveBench(b, guard, token, true, fixes) })
	}
}

// serveBench drives an ingest server behind a guard. Rates are far beyond what is
// sent.
func serveBench(b *testing.B, guard *auth.Guard, token string, rates bool, fixes int) {
	const plenty = 1e9
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
	g := grpc.NewServer(append(s.ServerOptions(), guard.Server("ingest").Options()...)...)
	s.Register(g)
	drive(b, g, fixes, token)
	cancel()
	require.NoError(b, <-ended)
}

func drive(b *testing.B, g *grpc.Server, fixes int, token string) {
	const streams, distinct, window = 4, 64, 512
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	go func() { _ = g.Serve(lis) }()
	defer g.Stop()

	var wg sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	cpu := cpuTime(b)
	acks.Store(0)
	for k := range streams {
		wg.Go(func() {
			conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithDefaultCallOptions(grpc.ForceCodecV2(wire.Codec())))
			require.NoError(b, err)
			defer conn.Close()
			ctx := context.Background()
			if token != "" {
				ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
			}
			client, err := starlingv1.NewIngestServiceClient(conn).StreamReports(ctx)
			require.NoError(b, err)
			driveStream(b, client, k, b.N/streams, fixes, distinct, window)
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(cpuTime(b)-cpu)/float64(b.N), "cpu-ns/op")
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

func driveStream(b *testing.B, client grpc.ClientStream, k, n, fixes, distinct, window int) {
	messages := make([]*wire.StreamRequest, distinct)
	for i := range messages {
		r := &wire.StreamRequest{HasReport: true, Report: wire.Report{
			VehicleID: fmt.Sprintf("vehicle-%d-%d", k, i), SessionID: 7, Sequence: 1,
		}}
		for f := range fixes {
			r.Report.Fixes = append(r.Report.Fixes, wire.Fix{
				DeviceTimeMS: time.Now().UnixMilli() - int64(fixes-f)*1000, LatDeg: 52.5, LonDeg: 13.4, AccuracyM: 5, SpeedMPS: 12, HeadingDeg: 270,
				Has: wire.HasAccuracy | wire.HasSpeed | wire.HasHeading,
			})
		}
		messages[i] = r
	}
	credit := make(chan int64, n+1)
	go func() {
		var ack wire.Ack
		var before int64
		for client.RecvMsg(&ack) == nil {
			acks.Add(1)
			credit <- ack.AcknowledgedReports - before
			before = ack.AcknowledgedReports
		}
		close(credit)
	}()
	outstanding := 0
	for i := range n {
		for outstanding >= window {
			c, ok := <-credit
			require.True(b, ok)
			outstanding -= int(c)
		}
		outstanding++
		m := messages[i%distinct]
		m.Report.Sequence = int64(i + 1)
		if client.SendMsg(m) != nil {
			return
		}
	}
	for outstanding > 0 {
		c, ok := <-credit
		require.True(b, ok)
		outstanding -= int(c)
	}
	_ = client.CloseSend()
	runtime.KeepAlive(messages)
}
