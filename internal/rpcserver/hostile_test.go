package rpcserver_test

import (
	"context"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"google.golang.org/grpc"

	"github.com/starling-fleet/starling/internal/alarmtest"
	"github.com/starling-fleet/starling/internal/rpcserver"
	"github.com/starling-fleet/starling/internal/rpcstatus"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

const (
	getVehicle   = starlingv1.FleetService_GetVehicle_FullMethodName
	listVehicles = starlingv1.FleetService_ListVehicles_FullMethodName
	mib          = 1 << 20
)

// honest calls until it is stopped, and returns its slowest call.
func (r *running) honest(t *testing.T) (stop func() time.Duration) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	slowest := make(chan time.Duration, 1)
	go func() {
		var worst time.Duration
		for ctx.Err() == nil {
			began := time.Now()
			if _, err := r.client.GetVehicle(ctx, &starlingv1.GetVehicleRequest{Name: "honest"}); err != nil && ctx.Err() == nil {
				t.Errorf("an honest client was refused: %v", err)
				break
			}
			worst = max(worst, time.Since(began))
		}
		slowest <- worst
	}()
	done := sync.OnceValue(func() time.Duration { cancel(); return <-slowest })
	t.Cleanup(func() { done() })
	return done
}

// answering is a fleet whose list takes so many bytes.
func answering(bytes int, atWork, most *atomic.Int64) *fleet {
	out := &starlingv1.ListVehiclesResponse{}
	for range bytes >> 16 {
		out.Vehicles = append(out.Vehicles, &starlingv1.Vehicle{Name: strings.Repeat("x", 1<<16)})
	}
	return &fleet{
		get: func(_ context.Context, name string) (*starlingv1.Vehicle, error) {
			return &starlingv1.Vehicle{Name: name}, nil
		},
		list: func(context.Context) (*starlingv1.ListVehiclesResponse, error) {
			n := atWork.Add(1)
			defer atWork.Add(-1)
			for seen := most.Load(); n > seen && !most.CompareAndSwap(seen, n); seen = most.Load() {
			}
			return out, nil
		},
	}
}

// Calls that are taken back at once get little work done, and no more once
// their caller is gone.
func TestRapidReset(t *testing.T) {
	var atWork, most atomic.Int64
	r := start(t, answering(2*mib, &atWork, &most), time.Second)
	stop := r.honest(t)
	cost := watchCost(t)
	began := time.Now()
	c := dialRaw(t, r.addr, false)
	sent := 0
	for ; time.Since(began) < time.Second; sent++ {
		id, err := c.call(listVehicles, &starlingv1.ListVehiclesRequest{})
		if err != nil {
			break
		}
		if c.reset(id) != nil {
			break
		}
	}
	require.Eventually(t, func() bool { return atWork.Load() == 0 }, patience, time.Millisecond)
	bytes, cpu := cost.end()
	t.Logf("%d calls taken back: %d MiB, %v CPU, at most %d at work, slowest honest call %v", sent, bytes/mib, cpu, most.Load(), stop())
	require.Less(t, bytes, int64(150*mib))
	require.Greater(t, sent, 100)
}

// Answers that are never read are bounded, and their clients disconnected.
func TestAnswersNeverRead(t *testing.T) {
	var atWork, most atomic.Int64
	r := start(t, answering(3*mib, &atWork, &most), time.Second, func(c *rpcserver.Config) {
		c.UnreadBytes, c.ConnUnreadBytes, c.SendTimeout = 48*mib, 12*mib, 3*time.Second
	})
	stop := r.honest(t)
	cost := watchCost(t)
	began := time.Now()
	conns := make([]*raw, 10)
	for i := range conns {
		conns[i] = dialRaw(t, r.addr, true)
		for range 30 {
			if _, err := conns[i].call(listVehicles, &starlingv1.ListVehiclesRequest{}); err != nil {
				break // disconnected already
			}
		}
	}
	const disconnected = "starling_rpc_disconnected_clients_total"
	require.Eventually(t, func() bool {
		begun := metric(t, r.registry, "grpc_server_started_total", "grpc_method", "ListVehicles")
		answered := metric(t, r.registry, "grpc_server_handled_total", "grpc_method", "ListVehicles")
		return answered == begun && metric(t, r.registry, disconnected) > 0 && metric(t, r.registry, "starling_rpc_unread_bytes") == 0
	}, patience, 10*time.Millisecond, "everything is given back")
	took := time.Since(began)
	bytes, _ := cost.end()
	t.Logf("300 answers of 3 MiB: %d MiB, ended after %v, slowest honest call %v", bytes/mib, took, stop())
	require.Less(t, bytes, int64(200*mib))
	require.Eventually(t, func() bool {
		gone := 0.0
		for _, c := range conns {
			select {
			case <-c.closed:
				gone++
			default: // it got nothing but refusals
			}
		}
		return gone == metric(t, r.registry, disconnected)
	}, patience, 10*time.Millisecond)
	alarmtest.Raised(t, r.registry, `starling_rpc_refused_calls_total{reason="ANSWERS_UNREAD"}`)
	alarmtest.Raised(t, r.registry, "starling_rpc_disconnected_clients_total")
}

// Who takes back a call whose answer it has not read owes nothing.
func TestAnswersTakenBackAreGivenBack(t *testing.T) {
	var atWork, most atomic.Int64
	r := start(t, answering(3*mib, &atWork, &most), time.Second, func(c *rpcserver.Config) { c.SendTimeout = time.Hour })
	c := dialRaw(t, r.addr, true)
	var ids []uint32
	for range 3 {
		id, err := c.call(listVehicles, &starlingv1.ListVehiclesRequest{})
		require.NoError(t, err)
		ids = append(ids, id)
	}
	require.Eventually(t, func() bool { return metric(t, r.registry, "starling_rpc_unread_bytes") > 9*mib-1 }, patience, 10*time.Millisecond)
	for _, id := range ids {
		require.NoError(t, c.reset(id))
	}
	require.Eventually(t, func() bool { return metric(t, r.registry, "starling_rpc_unread_bytes") == 0 }, patience, 10*time.Millisecond)
	select {
	case <-c.closed:
		require.FailNow(t, "it was disconnected")
	default:
	}
}

// A client that reads is not disconnected, however much it gets.
func TestAnswersThatAreReadAreGivenBack(t *testing.T) {
	var atWork, most atomic.Int64
	r := start(t, answering(3*mib, &atWork, &most), time.Second)
	for range 30 {
		_, err := r.client.ListVehicles(within(t), &starlingv1.ListVehiclesRequest{}, grpc.MaxCallRecvMsgSize(8*mib))
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool { return metric(t, r.registry, "starling_rpc_unread_bytes") == 0 }, patience, 10*time.Millisecond)
	require.Zero(t, metric(t, r.registry, "starling_rpc_disconnected_clients_total"))
}

// Requests that never become whole are bounded and ended, and honest clients
// are served all the while.
func TestRequestsNeverFinished(t *testing.T) {
	var atWork, most atomic.Int64
	r := start(t, answering(1, &atWork, &most), time.Second, func(c *rpcserver.Config) {
		c.ReadingBytes, c.ReadTimeout = 32*mib, 2*time.Second
	})
	stop := r.honest(t)
	cost := watchCost(t)
	part := make([]byte, 16<<10-5)
	var opened int
	var conns []*raw
	for _, calls := range []int{3000, 500, 500, 500, 500, 500, 500, 500, 500, 500, 500} {
		c := dialRaw(t, r.addr, false)
		conns = append(conns, c)
		for range calls {
			id, err := c.open(getVehicle)
			require.NoError(t, err)
			opened++
			_ = c.data(id, false, append(prefix(1<<20), part...))
		}
	}
	require.Eventually(t, func() bool {
		ended := 0
		for _, c := range conns {
			ended += c.endedStreams()
		}
		return ended == opened
	}, patience, 10*time.Millisecond, "all have been ended")
	bytes, cpu := cost.end()
	t.Logf("%d requests of 16 KiB, never whole: %d MiB, %v CPU, slowest honest call %v", opened, bytes/mib, cpu, stop())
	require.Less(t, bytes, int64(200*mib))
	alarmtest.Raised(t, r.registry, "starling_rpc_unfinished_requests_total")
	require.Eventually(t, func() bool { return metric(t, r.registry, "starling_rpc_reading_bytes") == 0 }, patience, 10*time.Millisecond)
}

// A call that ends before its request is whole gives its budget back.
func TestRequestsTakenBackHalfway(t *testing.T) {
	var atWork, most atomic.Int64
	r := start(t, answering(1, &atWork, &most), time.Second, func(c *rpcserver.Config) { c.ReadingBytes, c.ReadTimeout = mib, time.Hour })
	c := dialRaw(t, r.addr, false)
	for range 2000 {
		id, err := c.open(getVehicle)
		require.NoError(t, err)
		require.NoError(t, c.data(id, false, prefix(100)))
		require.NoError(t, c.reset(id))
	}
	require.Eventually(t, func() bool { return metric(t, r.registry, "starling_rpc_reading_bytes") == 0 }, patience, 10*time.Millisecond)
	_, err := r.client.GetVehicle(within(t), &starlingv1.GetVehicleRequest{Name: "v"})
	require.NoError(t, err)
}

func TestHeadersAreBounded(t *testing.T) {
	var atWork, most atomic.Int64
	r := start(t, answering(1, &atWork, &most), time.Second)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := r.client.GetVehicle(ctx, &starlingv1.GetVehicleRequest{Name: strings.Repeat("v", 5*mib)})
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	c := dialRaw(t, r.addr, false)
	_, err = c.open("/" + strings.Repeat("x", 17<<10))
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		select {
		case <-c.closed:
			return true
		default:
			return c.endedStreams() == 1
		}
	}, patience, time.Millisecond)
}

func TestConnectionsWithoutUseAreClosed(t *testing.T) {
	var atWork, most atomic.Int64
	r := start(t, answering(1, &atWork, &most), time.Second, func(c *rpcserver.Config) {
		c.HandshakeTimeout, c.MaxConnIdle, c.ConnAgeGrace = time.Second, time.Second, time.Second
	})
	silent, err := net.Dial("tcp", r.addr)
	require.NoError(t, err)
	defer func() { _ = silent.Close() }()
	idle := dialRaw(t, r.addr, false)
	require.NoError(t, silent.SetReadDeadline(time.Now().Add(patience)))
	for err == nil { // the server sends its settings first
		_, err = silent.Read(make([]byte, 1<<10))
	}
	require.NotErrorIs(t, err, context.DeadlineExceeded)
	select {
	case <-idle.closed:
	case <-time.After(patience):
		require.FailNow(t, "a connection without calls stays open")
	}
}

// A connection that is old is asked to end; a call on it may still be answered.
func TestOldConnectionsAreReplaced(t *testing.T) {
	begun, release := make(chan struct{}, 1), make(chan struct{})
	f := &fleet{get: func(context.Context, string) (*starlingv1.Vehicle, error) {
		begun <- struct{}{}
		<-release
		return &starlingv1.Vehicle{}, nil
	}}
	r := start(t, f, time.Second, func(c *rpcserver.Config) { c.MaxConnAge, c.ConnAgeGrace = time.Second, patience })
	c := dialRaw(t, r.addr, false)
	_, err := c.call(getVehicle, &starlingv1.GetVehicleRequest{})
	require.NoError(t, err)
	<-begun
	require.Eventually(t, func() bool { c.reading.Lock(); defer c.reading.Unlock(); return c.goAway }, patience, 10*time.Millisecond)
	close(release)
	require.Eventually(t, func() bool { return c.endedStreams() == 1 }, patience, time.Millisecond)
	select {
	case <-c.closed:
	case <-time.After(patience):
		require.FailNow(t, "an old connection stays open")
	}
}

func TestStreamsOfHealthAndReflectionAreBounded(t *testing.T) {
	var atWork, most atomic.Int64
	r := start(t, answering(1, &atWork, &most), time.Second, func(c *rpcserver.Config) { c.MaxSideStreams = 3 })
	ctx, cancel := context.WithCancel(within(t))
	checks := healthpb.NewHealthClient(r.conn)
	for range 3 {
		w, err := checks.Watch(ctx, &healthpb.HealthCheckRequest{})
		require.NoError(t, err)
		_, err = w.Recv()
		require.NoError(t, err)
	}
	w, err := checks.Watch(within(t), &healthpb.HealthCheckRequest{})
	require.NoError(t, err)
	_, err = w.Recv()
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	require.Equal(t, "TOO_MANY_STREAMS", rpcstatus.ReasonOf(err))
	_, err = checks.Check(within(t), &healthpb.HealthCheckRequest{})
	require.NoError(t, err, "a probe is answered")
	cancel()
	require.Eventually(t, func() bool {
		w, err := checks.Watch(within(t), &healthpb.HealthCheckRequest{})
		require.NoError(t, err)
		_, err = w.Recv()
		return err == nil
	}, patience, 10*time.Millisecond)
}

func TestLargeCallsOfOneConnectionAreBounded(t *testing.T) {
	release := make(chan struct{})
	f := &fleet{
		get: func(context.Context, string) (*starlingv1.Vehicle, error) { return &starlingv1.Vehicle{}, nil },
		list: func(ctx context.Context) (*starlingv1.ListVehiclesResponse, error) {
			<-release
			return &starlingv1.ListVehiclesResponse{}, nil
		},
	}
	r := start(t, f, time.Second, func(c *rpcserver.Config) { c.MaxConnLarge = 5 })
	refused := make(chan error, 10)
	for range 10 {
		go func() {
			_, err := r.client.ListVehicles(within(t), &starlingv1.ListVehiclesRequest{})
			refused <- err
		}()
	}
	for range 5 {
		err := <-refused
		require.Equal(t, "TOO_MANY_LARGE_CALLS", rpcstatus.ReasonOf(err), "%v", err)
	}
	_, err := r.client.GetVehicle(within(t), &starlingv1.GetVehicleRequest{Name: "v"})
	require.NoError(t, err, "small calls are answered")
	other, err := grpc.NewClient(r.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer func() { _ = other.Close() }()
	answered := make(chan error, 1)
	go func() {
		_, err := starlingv1.NewFleetServiceClient(other).ListVehicles(within(t), &starlingv1.ListVehiclesRequest{})
		answered <- err
	}()
	close(release)
	require.NoError(t, <-answered)
	for range 5 {
		require.NoError(t, <-refused)
	}
}
