package baseline_test

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	"github.com/starling-fleet/starling/client"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/eventlog/memlog"
	"github.com/starling-fleet/starling/loadtest/baseline"
	"github.com/starling-fleet/starling/loadtest/generate"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

func newLog(t *testing.T, o memlog.Options) eventlog.Log {
	t.Helper()
	log := memlog.New(4, o)
	t.Cleanup(func() { require.NoError(t, log.Close()) })
	return log
}

func serve(t *testing.T, p *baseline.Pipeline) *grpc.ClientConn {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	starlingv1.RegisterIngestServiceServer(server, p)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	conn, err := client.Dial("passthrough:///baseline", client.DialOptions{Extra: []grpc.DialOption{
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
	}})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, conn.Close())
		server.Stop()
		require.NoError(t, <-served)
	})
	return conn
}

func TestEverythingAcknowledgedIsRead(t *testing.T) {
	p := baseline.New(newLog(t, memlog.Options{}))
	reading, stop := context.WithCancel(t.Context())
	read := make(chan error, 1)
	go func() { read <- p.Read(reading) }()

	o := generate.DefaultOptions()
	o.Ingest = []grpc.ClientConnInterface{serve(t, p)}
	o.Streams, o.VehiclesPerStream, o.Warmup, o.Duration, o.FixesPerReport = 4, 50, 0, 2*time.Second, 3
	r, err := generate.Run(t.Context(), o)
	require.NoError(t, err)
	require.Zero(t, r.BrokenStreams)
	require.Positive(t, r.AcknowledgedFixes)
	require.Equal(t, r.SentFixes, r.AcknowledgedFixes)
	require.Eventually(t, func() bool { return p.Counts().ReadFixes == r.AcknowledgedFixes }, time.Minute, time.Millisecond)
	require.Equal(t, r.AcknowledgedFixes, p.Counts().AppendedFixes)
	stop()
	require.NoError(t, <-read)
}

func TestNothingBehindAFailureIsAcknowledged(t *testing.T) {
	var appended atomic.Int64
	p := baseline.New(newLog(t, memlog.Options{AfterAppend: func(string, int32, eventlog.Stored) error {
		if appended.Add(1) == 3 {
			return errors.New("outcome unknown")
		}
		return nil
	}}))
	stream, err := starlingv1.NewIngestServiceClient(serve(t, p)).StreamReports(t.Context())
	require.NoError(t, err)
	for i := range 5 {
		err := stream.Send(&starlingv1.StreamReportsRequest{Report: &starlingv1.Report{VehicleId: "v", SessionId: 1, Sequence: int64(i + 1), Fixes: []*starlingv1.Fix{{}}}})
		if err != nil {
			break // the stream may have ended already
		}
	}
	var acked int64
	for {
		resp, err := stream.Recv()
		if err != nil {
			require.ErrorContains(t, err, "outcome unknown")
			break
		}
		acked = resp.GetAcknowledgedReports()
	}
	require.LessOrEqual(t, acked, int64(2))
}
