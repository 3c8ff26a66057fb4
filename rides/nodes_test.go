package rides_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/config"
	"github.com/starling-fleet/starling/internal/eventlog/memlog"
	"github.com/starling-fleet/starling/internal/redisconn"
	"github.com/starling-fleet/starling/internal/redistest"
	"github.com/starling-fleet/starling/internal/rpcstatus"
	"github.com/starling-fleet/starling/matcher"
	"github.com/starling-fleet/starling/rides"
	"github.com/starling-fleet/starling/rides/events"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker"
)

// node is a process with the rides role, on a log that it shares with others.
type node struct {
	rides    *rides.Rides
	api      starlingv1.RideServiceClient
	owned    starlingv1.RideOwnerServiceClient
	registry *prometheus.Registry
	stop     func()
}

// everybody may do everything.
func everybody(ctx context.Context) context.Context {
	return auth.WithCaller(ctx, &auth.Caller{Scopes: auth.Dispatch})
}

type callerStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s callerStream) Context() context.Context { return s.ctx }

// startNode starts a node; redisAt, which names its Redis, is nil for none.
func startNode(t *testing.T, store *memlog.Store, redisAt func(*redisconn.Config), configure func(*rides.Config)) *node {
	t.Helper()
	log := memlog.Open(store, memlog.Options{})
	quiet := slog.New(slog.DiscardHandler)
	n := &node{registry: prometheus.NewRegistry()}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	m, err := matcher.New(matcher.DefaultConfig(), matcher.Deps{
		Log: log, Registerer: n.registry, Logger: quiet, Observe: func(p int32, track *wire.Track) { n.rides.Observe(p, track) },
	})
	require.NoError(t, err)
	cfg := rides.DefaultConfig()
	cfg.NameKeys = config.Secret(strings.Repeat("ab", 32))
	cfg.MatchInterval, cfg.CompareInterval = 10*time.Millisecond, 50*time.Millisecond
	if configure != nil {
		configure(&cfg)
	}
	deps := rides.Deps{Log: log, Fleet: m, Registerer: n.registry, Logger: quiet, Address: l.Addr().String()}
	closeRedis := func() {}
	if redisAt != nil {
		settings := redisconn.DefaultConfig()
		redisAt(&settings)
		client, err := redisconn.Open(settings)
		require.NoError(t, err)
		closeRedis = func() { _ = client.Close() }
		deps.Store = events.NewRedis(client, t.Name()+":", log.Epoch(), events.DefaultBounds())
	}
	n.rides, err = rides.New(cfg, deps)
	require.NoError(t, err)
	server := grpc.NewServer(
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
			return handle(everybody(ctx), req)
		}),
		grpc.StreamInterceptor(func(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
			return handle(srv, callerStream{s, everybody(s.Context())})
		}))
	n.rides.Register(server)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for name, run := range map[string]func(context.Context) error{"matcher": m.Run, "rides": n.rides.Run} {
		running.Go(func() {
			if err := run(ctx); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	running.Go(func() { _ = server.Serve(l) })
	n.stop = sync.OnceFunc(func() {
		cancel()
		server.Stop()
		running.Wait()
		closeRedis()
		_ = log.Close()
	})
	t.Cleanup(n.stop)
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	n.api, n.owned = starlingv1.NewRideServiceClient(conn), starlingv1.NewRideOwnerServiceClient(conn)
	return n
}

// cluster is two nodes beside a tracker. Its embedded system reports vehicles.
type cluster struct {
	*system
	nodes []*node
}

func startCluster(t *testing.T, redisAt func(*redisconn.Config), configure func(*rides.Config)) *cluster {
	t.Helper()
	store := memlog.NewStore(partitions, topics.All(), 0)
	log := memlog.Open(store, memlog.Options{})
	c := &cluster{system: &system{t: t, log: log, sent: map[string]int64{}}}
	tr, err := tracker.New(tracker.DefaultConfig(), tracker.Deps{Log: log, Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- tr.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
		_ = log.Close()
	})
	for range 2 {
		c.nodes = append(c.nodes, startNode(t, store, redisAt, configure))
	}
	// Each has its half of the partitions for good, and the other finds it there.
	require.Eventually(t, func() bool {
		return !slices.ContainsFunc(c.nodes, func(n *node) bool {
			owned := 0
			for p := range int32(partitions) {
				if _, err := n.owned.CompareRides(t.Context(), &starlingv1.CompareRidesRequest{Partition: p}); err == nil {
					owned++
				}
			}
			return !n.rides.Ready() || owned != partitions/2
		})
	}, 30*time.Second, time.Millisecond)
	return c
}

// request asks for a ride at a node.
func (c *cluster) request(at *node, rider string) (name string, position *starlingv1.RidePosition) {
	c.t.Helper()
	named, err := at.api.NewRide(c.t.Context(), &starlingv1.NewRideRequest{Rider: rider, PickupLatitude: 45, PickupLongitude: 9})
	require.NoError(c.t, err)
	called, err := at.api.RequestRide(c.t.Context(), &starlingv1.RequestRideRequest{Name: named.Name, Order: order(rider)})
	require.NoError(c.t, err)
	return named.Name, called.Position
}

// owner returns the node that owns a ride, and the other.
func (c *cluster) owner(name string) (owner, other *node) {
	c.t.Helper()
	var at int
	require.Eventually(c.t, func() bool {
		at = slices.IndexFunc(c.nodes, func(n *node) bool {
			_, err := n.owned.ResumeRide(c.t.Context(), &starlingv1.ResumeRideRequest{Name: name})
			return err == nil
		})
		return at >= 0
	}, 30*time.Second, time.Millisecond)
	return c.nodes[at], c.nodes[1-at]
}

// drive takes a ride that is assigned to its end, by calls at a node.
func (c *cluster) drive(at *node, name string, between func()) {
	c.t.Helper()
	var ride *starlingv1.Ride
	require.Eventually(c.t, func() bool {
		var err error
		ride, err = at.api.GetRide(c.t.Context(), &starlingv1.GetRideRequest{Name: name})
		return err == nil && ride.Phase == starlingv1.RidePhase_RIDE_PHASE_ASSIGNED
	}, 30*time.Second, time.Millisecond)
	for _, action := range []starlingv1.DriverAction{starlingv1.DriverAction_DRIVER_ACTION_ARRIVE, starlingv1.DriverAction_DRIVER_ACTION_BOARD, starlingv1.DriverAction_DRIVER_ACTION_COMPLETE} {
		called, err := at.api.ActOnRide(c.t.Context(), &starlingv1.ActOnRideRequest{Name: name, Vehicle: ride.Vehicle, Attempt: ride.Attempt, Action: action})
		require.NoError(c.t, err)
		_, err = at.api.GetRide(c.t.Context(), &starlingv1.GetRideRequest{Name: name, After: called.Position})
		require.NoError(c.t, err)
		between()
	}
}

// follow receives a ride's events until its end, and checks that they are whole.
func follow(t *testing.T, at *node, name string, after, epoch int64) (last int64) {
	t.Helper()
	stream, err := at.api.SubscribeRideEvents(t.Context(), &starlingv1.SubscribeRideEventsRequest{Name: name, AfterSequence: after, Epoch: epoch})
	require.NoError(t, err)
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return max(last, after)
		}
		if err != nil {
			t.Errorf("behind %d: %v", last, err)
			return last
		}
		if !m.Recovered || m.Event.GetSequence() != after+1 || m.Ride.GetSequence() != after+1 {
			t.Errorf("behind %d came %v", after, m)
			return last
		}
		after, last = m.Event.Sequence, m.Event.Sequence
	}
}

// How many rides a rider has is the owner's to say, wherever the rider asks.
func TestTheOwnerCountsARidersRides(t *testing.T) {
	c := startCluster(t, nil, func(cfg *rides.Config) { cfg.RiderActive = 1 })
	first, position := c.request(c.nodes[0], "ann")
	owner, other := c.owner(first)
	_, err := other.api.GetRide(t.Context(), &starlingv1.GetRideRequest{Name: first, After: position})
	require.NoError(t, err)
	ann := auth.WithCaller(t.Context(), &auth.Caller{Scopes: auth.Rider, Subject: "ann"})
	for _, n := range []*node{owner, other} {
		named, err := n.rides.NewRide(ann, &starlingv1.NewRideRequest{PickupLatitude: 45, PickupLongitude: 9})
		require.NoError(t, err)
		_, err = n.rides.RequestRide(ann, &starlingv1.RequestRideRequest{Name: named.Name, Order: order("ann")})
		require.Equal(t, "TOO_MANY_RIDES", rpcstatus.ReasonOf(err), "%v", err)
		_, err = n.rides.CancelRide(ann, &starlingv1.CancelRideRequest{Name: named.Name})
		require.Equal(t, "TOO_MANY_RIDES", rpcstatus.ReasonOf(err), "%v", err)
		_, err = n.rides.RequestRide(ann, &starlingv1.RequestRideRequest{Name: first, Order: order("ann")})
		require.NoError(t, err, "a repetition")
	}
	_, err = other.rides.CancelRide(ann, &starlingv1.CancelRideRequest{Name: first})
	require.NoError(t, err)
}

func TestAnyNodeAnswers(t *testing.T) {
	c := startCluster(t, nil, nil)
	c.report("v", 45.001, 9, starlingv1.Availability_AVAILABILITY_FREE)
	name, position := c.request(c.nodes[0], "ann")
	owner, other := c.owner(name)

	ride, err := other.api.GetRide(t.Context(), &starlingv1.GetRideRequest{Name: name, After: position})
	require.NoError(t, err, "a caller reads its own write, wherever it asks")
	require.NotZero(t, ride.Phase)
	again := order("ann")
	again.PartySize = 3
	_, err = other.api.RequestRide(t.Context(), &starlingv1.RequestRideRequest{Name: name, Order: again})
	require.Equal(t, codes.AlreadyExists, status.Code(err))
	_, err = other.owned.GetOwnedRide(t.Context(), &starlingv1.GetOwnedRideRequest{Request: &starlingv1.GetRideRequest{Name: name}})
	require.Equal(t, codes.Unavailable, status.Code(err), "one that does not own it asks nobody")

	driver, err := other.api.SubscribeVehicleEvents(t.Context(), &starlingv1.SubscribeVehicleEventsRequest{Name: "vehicles/v"})
	require.NoError(t, err)
	assigned := make(chan *starlingv1.Ride, 1)
	freed := make(chan struct{})
	go func() {
		bound := false
		for {
			m, err := driver.Recv()
			switch {
			case err != nil:
				return
			case m.Ride != nil && !bound:
				bound = true
				assigned <- m.Ride
			case m.Ride == nil && bound:
				close(freed)
				return
			}
		}
	}()
	var following sync.WaitGroup
	for _, n := range []*node{owner, other} {
		following.Go(func() { require.Equal(t, int64(5), follow(t, n, name, 0, 0)) })
	}
	require.Equal(t, name, (<-assigned).Name) // before it ends: who subscribes later hears nothing of it
	c.drive(other, name, func() {})
	following.Wait()
	<-freed

	ride, err = other.api.GetRide(t.Context(), &starlingv1.GetRideRequest{Name: name})
	require.NoError(t, err)
	for _, n := range c.nodes {
		for after := range int64(6) {
			require.Equal(t, int64(5), follow(t, n, name, after, ride.Epoch), "resumed behind %d", after)
		}
		for after, epoch := range map[int64]int64{99: ride.Epoch, 3: ride.Epoch + 1} {
			stream, err := n.api.SubscribeRideEvents(t.Context(), &starlingv1.SubscribeRideEventsRequest{Name: name, AfterSequence: after, Epoch: epoch})
			require.NoError(t, err)
			m, err := stream.Recv()
			require.NoError(t, err)
			require.False(t, m.Recovered, "nothing was sent with %d", after)
			require.Equal(t, int64(5), m.Ride.Sequence)
		}
	}
}

func TestEveryNodeListsAllRides(t *testing.T) {
	c := startCluster(t, nil, nil)
	var names []string
	for i := range 12 {
		name, position := c.request(c.nodes[i%2], "ann")
		_, err := c.nodes[0].api.GetRide(t.Context(), &starlingv1.GetRideRequest{Name: name, After: position})
		require.NoError(t, err)
		names = append(names, name)
	}
	slices.Sort(names)
	for _, n := range c.nodes {
		var listed []string
		req := &starlingv1.ListRidesRequest{PageSize: 5, Rider: "ann"}
		for {
			page, err := n.api.ListRides(t.Context(), req)
			require.NoError(t, err)
			require.LessOrEqual(t, len(page.Rides), 5)
			for _, r := range page.Rides {
				listed = append(listed, r.Name)
			}
			if req.PageToken = page.NextPageToken; req.PageToken == "" {
				break
			}
		}
		require.Equal(t, names, listed)
	}
}

// Whatever becomes of Redis in the middle of rides, everybody who follows them is
// sent every event once and in order.
func TestRedisIsKilledAndFlushedAndNothingIsMissed(t *testing.T) {
	server := redistest.Start(t)
	c := startCluster(t, func(c *redisconn.Config) { c.Addrs = []string{server.Addr()} }, nil)
	wipe := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer func() { _ = wipe.Close() }()
	for i, disturb := range []func(){
		func() {},
		func() { require.NoError(t, wipe.FlushAll(t.Context()).Err()) },
		server.Kill,
		server.Restart,
	} {
		c.report(fmt.Sprint("v", i), 45.001, 9, starlingv1.Availability_AVAILABILITY_FREE)
		name, _ := c.request(c.nodes[i%2], "ann")
		owner, other := c.owner(name)
		var following sync.WaitGroup
		for _, n := range []*node{owner, other, other} {
			following.Go(func() { require.Equal(t, int64(5), follow(t, n, name, 0, 0)) })
		}
		c.drive(c.nodes[(i+1)%2], name, sync.OnceFunc(disturb))
		following.Wait()
	}
}

// The primary is killed in the middle of rides, and a replica takes its place:
// everybody who follows them is sent every event once and in order.
func TestRedisFailsOverAndNothingIsMissed(t *testing.T) {
	fails := func(t *testing.T, redisAt func(*redisconn.Config), kill func(stream string), promoted func()) {
		c := startCluster(t, redisAt, nil)
		for i, disturb := range []func(stream string){func(string) {}, kill, func(string) { promoted() }, func(string) {}} {
			c.report(fmt.Sprint("v", i), 45.001, 9, starlingv1.Availability_AVAILABILITY_FREE)
			name, _ := c.request(c.nodes[i%2], "ann")
			owner, other := c.owner(name)
			var following sync.WaitGroup
			for _, n := range []*node{owner, other, other} {
				following.Go(func() { require.Equal(t, int64(5), follow(t, n, name, 0, 0)) })
			}
			c.drive(c.nodes[(i+1)%2], name, sync.OnceFunc(func() {
				disturb(fmt.Sprintf("%s:%d:ride:%s", t.Name(), c.log.Epoch(), strings.TrimPrefix(name, "rides/")))
			}))
			following.Wait()
		}
	}
	t.Run("Sentinels", func(t *testing.T) {
		servers := redistest.StartSentinels(t)
		fails(t, func(c *redisconn.Config) { c.Addrs, c.MasterName = servers.Addrs(), redistest.Master },
			func(string) { servers.KillPrimary() }, servers.Promoted)
	})
	t.Run("Cluster", func(t *testing.T) {
		servers := redistest.StartCluster(t)
		var killed int
		fails(t, func(c *redisconn.Config) { c.Addrs, c.Cluster = servers.Addrs(), true }, func(stream string) {
			killed = servers.Of(stream)
			servers.KillPrimary(killed)
		}, func() { servers.Promoted(killed) })
	})
}

// The owner stops while its rides are followed at the other node, which takes them
// over.
func TestFollowersOutliveTheOwner(t *testing.T) {
	c := startCluster(t, nil, nil)
	name, position := c.request(c.nodes[0], "ann")
	owner, other := c.owner(name)
	_, err := other.api.GetRide(t.Context(), &starlingv1.GetRideRequest{Name: name, After: position})
	require.NoError(t, err)
	stream, err := other.api.SubscribeRideEvents(t.Context(), &starlingv1.SubscribeRideEventsRequest{Name: name})
	require.NoError(t, err)
	m, err := stream.Recv()
	require.NoError(t, err)
	require.Equal(t, int64(1), m.Event.Sequence)
	owner.stop()
	c.report("v", 45.001, 9, starlingv1.Availability_AVAILABILITY_FREE)
	m, err = stream.Recv()
	require.NoError(t, err)
	require.True(t, m.Recovered)
	require.Equal(t, int64(2), m.Event.Sequence)
	require.Equal(t, starlingv1.RideEventKind_RIDE_EVENT_KIND_ASSIGNED, m.Event.Kind)
}

func TestTheVehiclesPositionIsSentToThoseWhoAsk(t *testing.T) {
	c := startCluster(t, nil, nil)
	c.report("v", 45.001, 9, starlingv1.Availability_AVAILABILITY_FREE)
	name, _ := c.request(c.nodes[0], "ann")
	_, other := c.owner(name)
	stream, err := other.api.SubscribeRideEvents(t.Context(), &starlingv1.SubscribeRideEventsRequest{Name: name, Positions: true})
	require.NoError(t, err)
	position := func() *starlingv1.RideVehiclePosition {
		for {
			m, err := stream.Recv()
			require.NoError(t, err)
			if m.VehiclePosition != nil {
				require.Nil(t, m.Event)
				require.True(t, m.Recovered)
				return m.VehiclePosition
			}
		}
	}
	first := position()
	require.Equal(t, "vehicles/v", first.Vehicle)
	require.InDelta(t, 45.001, first.Latitude, 1e-6)
	c.report("v", 45.0009, 9, starlingv1.Availability_AVAILABILITY_UNSPECIFIED)
	second := position()
	require.True(t, second.DeviceTime.AsTime().After(first.DeviceTime.AsTime()))
	require.Less(t, second.Latitude, first.Latitude)
}
