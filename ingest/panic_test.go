package ingest_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/starling-fleet/starling/ingest"
	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/rpcserver"
	"github.com/starling-fleet/starling/internal/rpcstatus"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// panickyLog panics when it is to take a record of the vehicle "bad".
type panickyLog struct{ fakeLog }

func (l *panickyLog) Append(ctx context.Context, topic string, partition int32, rec eventlog.Record, done eventlog.Completion) error {
	if string(rec.Key) == "bad" {
		panic("the log is broken")
	}
	return l.fakeLog.Append(ctx, topic, partition, rec, done)
}

// A panic ends its own stream or call. In the path of an append the outcome is
// unknown and nothing is acknowledged; elsewhere it is INTERNAL.
func TestAPanicCostsItsOwnStream(t *testing.T) {
	var log bytes.Buffer
	reg := prometheus.NewRegistry()
	logger := slog.New(slog.NewTextHandler(&log, nil))
	var fails atomic.Bool
	s, err := ingest.New(ingest.DefaultConfig(), ingest.Deps{
		Log:        &panickyLog{},
		Partitions: partitions,
		Registerer: reg,
		Logger:     logger,
		Now: func() time.Time {
			if fails.Load() {
				panic("the clock is broken")
			}
			return now
		},
		Monotonic: func() time.Duration { return 0 },
	})
	require.NoError(t, err)
	group, err := rpcserver.NewGroup(rpcserver.DefaultConfig(), rpcserver.Deps{Guard: auth.Open(), Registerer: reg, Logger: logger})
	require.NoError(t, err)
	server := group.New(rpcserver.Role{Name: "ingest", Register: s.Register, Options: s.ServerOptions(), Codec: wire.Codec()})
	l := bufconn.Listen(64 << 10)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, []net.Listener{l}, nil, func() time.Duration { return patience }) }()
	defer func() {
		cancel()
		require.NoError(t, <-served)
	}()
	d := &endpoint{listener: l, registry: reg}
	d.conn = d.dial(t, grpc.WithTransportCredentials(insecure.NewCredentials()))
	d.client = starlingv1.NewIngestServiceClient(d.conn)

	bad := func() *starlingv1.Report { r := report(2, 1); r.VehicleId = "bad"; return r }
	stream := d.stream(t)
	send(t, stream, report(1, 1))
	until(t, stream, 1)
	send(t, stream, bad())
	st, acked := ending(t, stream)
	require.Equal(t, codes.Unavailable, st.Code())
	require.Equal(t, "OUTCOME_UNKNOWN", rpcstatus.ReasonOf(st.Err()))
	require.Zero(t, acked, "nothing more was acknowledged")
	_, err = d.client.SendReport(t.Context(), &starlingv1.SendReportRequest{Report: bad()})
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.Equal(t, "OUTCOME_UNKNOWN", rpcstatus.ReasonOf(err))
	require.Equal(t, 2.0, d.metric(t, "starling_rpc_panics_total"))
	require.Equal(t, 2, strings.Count(log.String(), "handler panicked"))
	require.Contains(t, log.String(), "panickyLog", "the stack is that of the panic")

	stream = d.stream(t)
	send(t, stream, report(1, 1))
	until(t, stream, 1)
	fails.Store(true)
	send(t, stream, report(2, 1))
	st, _ = ending(t, stream)
	require.Equal(t, codes.Internal, st.Code())
	require.Equal(t, 3.0, d.metric(t, "starling_rpc_panics_total"))

	fails.Store(false)
	stream = d.stream(t)
	send(t, stream, report(1, 1))
	until(t, stream, 1)
	require.NoError(t, stream.CloseSend())
}
