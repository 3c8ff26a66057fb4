package redispositions

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/alarmtest"
	"github.com/starling-fleet/starling/internal/redisconn"
	"github.com/starling-fleet/starling/internal/redistest"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

const patience = 30 * time.Second

type harness struct {
	*Sink
	redis    redis.UniversalClient
	registry *prometheus.Registry
}

func newSink(t testing.TB, server *redistest.Server, epoch int64, keep time.Duration) *harness {
	t.Helper()
	cfg := redisconn.DefaultConfig()
	cfg.Addrs, cfg.Positions = []string{server.Addr()}, true
	require.NoError(t, cfg.Validate())
	client, err := redisconn.Open(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	registry := prometheus.NewRegistry()
	s, err := New(Config{Prefix: "p:", Keep: keep, MaxVehicles: 1000}, Deps{
		Client: client, Epoch: epoch, Registerer: registry, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	return &harness{s, client, registry}
}

func (h *harness) run(t *testing.T) *harness {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	t.Cleanup(func() { cancel(); require.NoError(t, <-ended) })
	return h
}

// hash returns what Redis has of a vehicle; nothing while it does not answer.
func (h *harness) hash(t *testing.T, id string) map[string]string {
	got, _ := h.redis.HGetAll(t.Context(), "p:vehicle:"+id).Result()
	return got
}

func (h *harness) fleet(t *testing.T) []string {
	got, _ := h.redis.ZRange(t.Context(), "p:fleet", 0, -1).Result()
	return got
}

// flush writes all that waits, without Run.
func (h *harness) flush(t *testing.T) {
	t.Helper()
	h.drain(t.Context())
	require.False(t, h.waiting())
}

// seen is a record of tracks: a vehicle at the place that its offset makes.
func seen(epoch, offset int64, id string) *wire.Track {
	return &wire.Track{Epoch: epoch, SourceOffset: offset, HasLive: true, Live: wire.View{
		VehicleID: id, DeviceTimeMS: 1000 + offset, SeenTimeMS: 2000 + offset, Availability: starlingv1.Availability_AVAILABILITY_FREE, Dispatchable: true,
		Estimate: wire.Estimate{LatDeg: 48 + float64(offset)/1e5, LonDeg: 16, SpeedMPS: 7.5, HasSpeed: true},
	}}
}

func forgotten(epoch, offset int64, id string) *wire.Track {
	return &wire.Track{Epoch: epoch, SourceOffset: offset, Fired: []wire.Fired{{VehicleID: id, Forgotten: true}}}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	require.Eventually(t, is, patience, 5*time.Millisecond, what)
}

func TestWritesHashAndGeoSet(t *testing.T) {
	h := newSink(t, redistest.Start(t), 3, time.Minute)
	h.Observe(seen(3, 10, "car-7"))
	h.Observe(&wire.Track{Epoch: 3, SourceOffset: 11, HasLive: true, Live: wire.View{VehicleID: "no-fix", Availability: starlingv1.Availability_AVAILABILITY_OFFLINE}})
	polar := seen(3, 12, "polar")
	polar.Live.LatDeg = 89.5
	h.Observe(polar)
	h.flush(t)
	require.Equal(t, map[string]string{
		"lat": "48.0001000", "lon": "16.0000000", "time_ms": "1010", "seen_time_ms": "2010", "epoch": "3", "source_offset": "10", "speed_mps": "7.50",
		"availability": "FREE", "reported_availability": "FREE", "dispatchable": "1",
	}, h.hash(t, "car-7"))
	require.Equal(t, map[string]string{
		"epoch": "3", "source_offset": "11", "seen_time_ms": "0", "availability": "OFFLINE", "reported_availability": "OFFLINE", "dispatchable": "0",
	}, h.hash(t, "no-fix"))
	require.Equal(t, "89.5000000", h.hash(t, "polar")["lat"])
	require.Equal(t, []string{"car-7"}, h.fleet(t), "a geo set holds neither poles nor who has no position")
	near, err := h.redis.GeoSearch(t.Context(), "p:fleet", &redis.GeoSearchQuery{Longitude: 16, Latitude: 48, Radius: 100, RadiusUnit: "m"}).Result()
	require.NoError(t, err)
	require.Equal(t, []string{"car-7"}, near)
	left, err := h.redis.PTTL(t.Context(), "p:vehicle:car-7").Result()
	require.NoError(t, err)
	require.Greater(t, left, time.Duration(0))
	require.LessOrEqual(t, left, time.Minute)

	// What is not known any more goes.
	still := seen(3, 13, "car-7")
	still.Live.HasSpeed = false
	h.Observe(still)
	h.flush(t)
	require.NotContains(t, h.hash(t, "car-7"), "speed_mps")
}

// Two processes write the same records at their own pace, and a third one replays
// old ones: nobody ever sees a vehicle go back.
func TestNeverOutOfOrder(t *testing.T) {
	server := redistest.Start(t)
	const vehicles, last = 5, 400
	var writers []*harness
	for range 3 {
		writers = append(writers, newSink(t, server, 1, time.Minute).run(t))
	}
	var writing sync.WaitGroup
	for n, w := range writers {
		writing.Go(func() {
			random := rand.New(rand.NewPCG(7, uint64(n)))
			for offset := int64(1); offset <= last; offset++ {
				w.Observe(seen(1, offset, "car-"+strconv.FormatInt(offset%vehicles, 10)))
				if random.IntN(8) == 0 { // so that they are apart
					_ = w.redis.Ping(context.Background()).Err()
				}
			}
		})
	}
	reader := newSink(t, server, 1, time.Minute)
	newest := map[string]int{}
	eventually(t, "every vehicle's last record", func() bool {
		done := 0
		for n := range vehicles {
			id := fmt.Sprintf("car-%d", n)
			h := reader.hash(t, id)
			offset, _ := strconv.Atoi(h["source_offset"])
			require.GreaterOrEqual(t, offset, newest[id], "%s went back", id)
			if newest[id] = offset; offset > 0 {
				require.Equal(t, strconv.Itoa(1000+offset), h["time_ms"], "a hash is of one record")
			}
			if offset > last-vehicles {
				done++
			}
		}
		return done == vehicles
	})
	writing.Wait()

	late := newSink(t, server, 1, time.Minute)
	late.Observe(seen(1, 3, "car-3"))
	late.flush(t)
	require.Equal(t, strconv.Itoa(newest["car-3"]), reader.hash(t, "car-3")["source_offset"])
	require.InDelta(t, 1, testutil.ToFloat64(late.metrics.older), 0)
}

func TestFlushIsFoundAndEverythingWrittenAgain(t *testing.T) {
	server := redistest.Start(t)
	a, b := newSink(t, server, 1, time.Hour).run(t), newSink(t, server, 1, time.Hour).run(t)
	// Each has vehicles that the other has not, and more than one batch of them.
	for n := range int64(maxBatch + 50) {
		a.Observe(seen(1, 2*n+1, fmt.Sprintf("a-%d", n)))
		b.Observe(seen(1, 2*n+2, fmt.Sprintf("b-%d", n)))
	}
	whole := func() bool { return len(a.fleet(t)) == 2*(maxBatch+50) }
	eventually(t, "the fleet", whole)
	for range 2 {
		require.NoError(t, a.redis.FlushAll(t.Context()).Err())
		eventually(t, "the fleet after a flush", whole)
		require.Equal(t, "2", a.hash(t, "b-0")["source_offset"])
	}
	require.GreaterOrEqual(t, testutil.ToFloat64(a.metrics.rewrites), 2.0)
	require.GreaterOrEqual(t, testutil.ToFloat64(b.metrics.rewrites), 2.0)
	// The sets alone may be lost too.
	require.NoError(t, a.redis.Del(t.Context(), "p:fleet", "p:fleet:times", "p:fleet:state").Err())
	eventually(t, "the fleet after its sets were deleted", whole)
}

func TestRedisKilledAndRestarted(t *testing.T) {
	server := redistest.Start(t)
	h := newSink(t, server, 1, time.Hour).run(t)
	h.Observe(seen(1, 1, "silent"))
	h.Observe(seen(1, 2, "moves"))
	eventually(t, "the fleet", func() bool { return len(h.fleet(t)) == 2 })
	server.Kill()
	// Nobody waits for Redis, and of each vehicle only the newest is kept.
	for offset := int64(3); offset < 5000; offset++ {
		h.Observe(seen(1, offset, "moves"))
	}
	h.Observe(forgotten(1, 5000, "gone"))
	eventually(t, "a failure", func() bool { return testutil.ToFloat64(h.metrics.failures) > 0 })
	alarmtest.Raised(t, h.registry, "starling_redis_positions_failures_total")
	h.mu.Lock()
	require.LessOrEqual(t, len(h.mirror.queue), 3)
	h.mu.Unlock()
	server.Restart()
	eventually(t, "the fleet after a restart", func() bool {
		return h.hash(t, "moves")["source_offset"] == "4999" && h.hash(t, "silent")["source_offset"] == "1" && len(h.fleet(t)) == 2
	})
}

func TestSilentVehicleExpires(t *testing.T) {
	h := newSink(t, redistest.Start(t), 1, time.Second).run(t)
	h.Observe(seen(1, 1, "car-7"))
	eventually(t, "the vehicle", func() bool { return testutil.ToFloat64(h.metrics.written) == 1 })
	eventually(t, "its expiry", func() bool {
		times, err := h.redis.ZCard(t.Context(), "p:fleet:times").Result()
		return err == nil && times == 0 && len(h.fleet(t)) == 0 && len(h.hash(t, "car-7")) == 0
	})
	eventually(t, "that it is let go here", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return len(h.mirror.vehicles) == 0
	})
	h.Observe(seen(1, 2, "car-7"))
	eventually(t, "that it is back", func() bool { return testutil.ToFloat64(h.metrics.written) == 2 })
}

func TestSweepTakesThoseOfWhomNothingWasWritten(t *testing.T) {
	h := newSink(t, redistest.Start(t), 1, time.Hour)
	h.Observe(seen(1, 1, "silent"))
	h.Observe(seen(1, 2, "moves"))
	h.flush(t)
	now, err := h.redis.Time(t.Context()).Result()
	require.NoError(t, err)
	require.NoError(t, h.redis.ZAdd(t.Context(), "p:fleet:times", redis.Z{Member: "silent", Score: float64(now.Add(-time.Hour - time.Millisecond).UnixMilli())}).Err())
	h.flush(t)
	require.Equal(t, []string{"moves"}, h.fleet(t))
	require.InDelta(t, 1, testutil.ToFloat64(h.metrics.swept), 0)
	times, err := h.redis.ZRange(t.Context(), "p:fleet:times", 0, -1).Result()
	require.NoError(t, err)
	require.Equal(t, []string{"moves"}, times)
}

func TestForgottenVehicleStaysRemoved(t *testing.T) {
	server := redistest.Start(t)
	h, behind := newSink(t, server, 1, time.Minute), newSink(t, server, 1, time.Minute)
	h.Observe(seen(1, 1, "car-7"))
	h.flush(t)
	h.Observe(forgotten(1, 5, "car-7"))
	h.flush(t)
	require.Equal(t, map[string]string{"epoch": "1", "source_offset": "5"}, h.hash(t, "car-7"))
	require.Empty(t, h.fleet(t))
	require.Empty(t, h.mirror.vehicles)
	behind.Observe(seen(1, 4, "car-7")) // by a process that is behind
	behind.flush(t)
	require.Empty(t, h.fleet(t))
	h.Observe(seen(1, 6, "car-7"))
	h.flush(t)
	require.Equal(t, []string{"car-7"}, h.fleet(t))
	// What time did to the vehicle comes before what it reported, in one record.
	both := seen(1, 7, "car-7")
	both.Fired = forgotten(1, 7, "car-7").Fired
	h.Observe(both)
	h.flush(t)
	require.Equal(t, "1007", h.hash(t, "car-7")["time_ms"])
}

func TestRaisedEpoch(t *testing.T) {
	server := redistest.Start(t)
	h, zombie := newSink(t, server, 1, time.Minute), newSink(t, server, 1, time.Minute)
	h.Observe(seen(1, 100, "back"))
	h.Observe(seen(1, 101, "not-back"))
	h.flush(t)
	h.Observe(seen(2, 5, "back")) // offsets may repeat
	h.flush(t)
	h.flush(t) // and the former ids, bounded a call
	require.Equal(t, "5", h.hash(t, "back")["source_offset"])
	require.Equal(t, []string{"back"}, h.fleet(t))
	require.Empty(t, h.hash(t, "not-back"), "unknown until it reports")
	h.Observe(seen(1, 200, "back"))
	require.False(t, h.waiting(), "a record of the former epoch")
	zombie.Observe(seen(1, 200, "back"))
	zombie.flush(t)
	require.Equal(t, "5", h.hash(t, "back")["source_offset"])
	alarmtest.Raised(t, zombie.registry, "starling_redis_positions_outdated_total")
}

func TestAnotherTypeUnderTheNameIsReplaced(t *testing.T) {
	h := newSink(t, redistest.Start(t), 1, time.Minute)
	require.NoError(t, h.redis.Set(t.Context(), "p:vehicle:car-7", "x", 0).Err())
	h.Observe(seen(1, 1, "car-7"))
	h.flush(t)
	require.Equal(t, "1", h.hash(t, "car-7")["source_offset"])
}
