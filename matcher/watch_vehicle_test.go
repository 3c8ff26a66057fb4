package matcher_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/starling-fleet/starling/matcher"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// watchWorld is a matcher in a bubble of fake time, whose watchers are called
// without a network between.
type watchWorld struct {
	*world
	t    *testing.T
	role *matcher.Matcher
}

// metric is one of the first matcher's.
func (th *watchWorld) metric(name string) float64 {
	s := &service{t: th.t, registry: th.registries[th.role]}
	return s.metric(name)
}

// inWatchWorld runs a test with time that passes only when all wait.
func inWatchWorld(t *testing.T, test func(*testing.T, *watchWorld), change ...func(*matcher.Config)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.clock = time.Now
		cfg := matcher.DefaultConfig()
		cfg.StaleAfter = time.Hour // tests of staleness set their own
		for _, c := range change {
			c(&cfg)
		}
		test(t, &watchWorld{world: w, t: t, role: w.run(t, cfg)})
	})
}

// run starts a matcher and waits until it serves.
func (w *world) run(t *testing.T, cfg matcher.Config) *matcher.Matcher {
	registry := prometheus.NewRegistry()
	role, err := matcher.New(cfg, matcher.Deps{Log: w.log, Registerer: registry, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	w.registries[role] = registry
	runCtx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- role.Run(runCtx) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-ended)
	})
	synctest.Wait()
	require.True(t, role.Ready())
	return role
}

// watchClient is the client of one WatchVehicle call.
type watchClient struct {
	grpc.ServerStream
	t     *testing.T
	ctx   context.Context
	leave func()

	mu        sync.Mutex
	responses []received

	// away makes the client take messages only when it is back.
	away  chan struct{}
	ended chan error
}

type received struct {
	at time.Time
	*starlingv1.WatchVehicleResponse
}

func (a *watchClient) Context() context.Context { return a.ctx }

func (a *watchClient) Send(r *starlingv1.WatchVehicleResponse) error {
	if a.away != nil {
		<-a.away
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.responses = append(a.responses, received{time.Now(), r})
	return a.ctx.Err()
}

// received is what came so far.
func (a *watchClient) received() []received {
	synctest.Wait()
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.responses
}

// forget drops the first messages.
func (a *watchClient) forget(n int) {
	received := a.received()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.responses = received[n:]
}

// watch opens a call and waits for its first message.
func (th *watchWorld) watch(role *matcher.Matcher, delay time.Duration, token string) *watchClient {
	a := &watchClient{t: th.t, ended: make(chan error, 1)}
	a.ctx, a.leave = context.WithCancel(ctx)
	req := &starlingv1.WatchVehicleRequest{Name: "vehicles/a", ResumeToken: token}
	if delay > 0 {
		req.PlaybackDelay = durationpb.New(delay)
	}
	go func() { a.ended <- role.WatchVehicle(req, a) }()
	th.t.Cleanup(a.leave)
	synctest.Wait()
	return a
}

// end leaves the call and returns the token of its last message.
func (a *watchClient) end() string {
	a.leave()
	require.ErrorIs(a.t, <-a.ended, context.Canceled)
	return a.received()[len(a.received())-1].ResumeToken
}

// upload reports fixes taken at device times, the last of which becomes the
// live state. A fix's latitude encodes its device time.
func (th *watchWorld) upload(deviceTimes ...time.Time) {
	p := partitionOf("a")
	r := th.next(p)
	for _, at := range deviceTimes {
		r.Points = append(r.Points, wire.TrackPoint{Fix: wire.Fix{DeviceTimeMS: at.UnixMilli()}, Estimate: wire.Estimate{LatDeg: latitude(at), LonDeg: 16}})
	}
	r.HasLive, r.Live = true, th.at("a", 0, 16)
	if n := len(r.Points); n > 0 {
		r.Live.DeviceTimeMS, r.Live.Estimate = r.Points[n-1].Fix.DeviceTimeMS, r.Points[n-1].Estimate
	}
	r.Live.Cell = 0x891e15b70afffff // near Vienna; the play-out sets its own
	th.append(p, r)
	synctest.Wait()
}

func latitude(at time.Time) float64 { return float64(at.UnixMilli()%1_000_000) / 1_000_000 }

// seconds are n device times, a second apart, the last of which is given.
func seconds(n int, last time.Time) (out []time.Time) {
	for i := range n {
		out = append(out, last.Add(time.Duration(i-n+1)*time.Second))
	}
	return out
}

// fixes are the device times received, each checked to come with its own position.
func (a *watchClient) fixes() (out []time.Time) {
	for i, h := range a.received() {
		at := h.Vehicle.DeviceTime.AsTime()
		require.Equal(a.t, latitude(at), h.Vehicle.Position.Latitude)
		if i > 0 {
			require.NotEqual(a.t, "891e15b70afffff", h.Vehicle.H3Cell)
		}
		out = append(out, at)
	}
	return out
}

func (a *watchClient) skipped() (n int) {
	for _, h := range a.received() {
		n += int(h.Playback.SkippedFixes)
	}
	return n
}
