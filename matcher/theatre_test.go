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

// theatre is a matcher in a bubble of fake time, whose watchers are called
// without a network between.
type theatre struct {
	*world
	t    *testing.T
	role *matcher.Matcher
}

// metric is one of the first matcher's.
func (th *theatre) metric(name string) float64 {
	s := &service{t: th.t, registry: th.registries[th.role]}
	return s.metric(name)
}

// inTheatre runs a test with time that passes only when all wait.
func inTheatre(t *testing.T, test func(*testing.T, *theatre), change ...func(*matcher.Config)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.clock = time.Now
		cfg := matcher.DefaultConfig()
		cfg.StaleAfter = time.Hour // tests of staleness say otherwise
		for _, c := range change {
			c(&cfg)
		}
		test(t, &theatre{world: w, t: t, role: w.run(t, cfg)})
	})
}

// run starts a matcher and waits until it serves.
func (w *world) run(t *testing.T, cfg matcher.Config) *matcher.Matcher {
	registry := prometheus.NewRegistry()
	role, err := matcher.New(cfg, w.log, registry, slog.New(slog.DiscardHandler))
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

// audience is the client of one WatchVehicle call.
type audience struct {
	grpc.ServerStream
	t     *testing.T
	ctx   context.Context
	leave func()

	mu   sync.Mutex
	said []heard

	// away makes the client take messages only when it is back.
	away  chan struct{}
	ended chan error
}

type heard struct {
	at time.Time
	*starlingv1.WatchVehicleResponse
}

func (a *audience) Context() context.Context { return a.ctx }

func (a *audience) Send(r *starlingv1.WatchVehicleResponse) error {
	if a.away != nil {
		<-a.away
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.said = append(a.said, heard{time.Now(), r})
	return a.ctx.Err()
}

// heard is what came so far.
func (a *audience) heard() []heard {
	synctest.Wait()
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.said
}

// forget drops the first messages.
func (a *audience) forget(n int) {
	heard := a.heard()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.said = heard[n:]
}

// watch opens a call and waits for its first message.
func (th *theatre) watch(role *matcher.Matcher, delay time.Duration, token string) *audience {
	a := &audience{t: th.t, ended: make(chan error, 1)}
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
func (a *audience) end() string {
	a.leave()
	require.ErrorIs(a.t, <-a.ended, context.Canceled)
	return a.heard()[len(a.heard())-1].ResumeToken
}

// upload reports fixes taken at device times, the last of which becomes the
// live state. A fix's latitude tells its device time.
func (th *theatre) upload(deviceTimes ...time.Time) {
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

// fixes are the device times heard, each checked to come with its own place.
func (a *audience) fixes() (out []time.Time) {
	for i, h := range a.heard() {
		at := h.Vehicle.DeviceTime.AsTime()
		require.Equal(a.t, latitude(at), h.Vehicle.Position.Latitude)
		if i > 0 {
			require.NotEqual(a.t, "891e15b70afffff", h.Vehicle.H3Cell)
		}
		out = append(out, at)
	}
	return out
}

func (a *audience) skipped() (n int) {
	for _, h := range a.heard() {
		n += int(h.Playback.SkippedFixes)
	}
	return n
}
