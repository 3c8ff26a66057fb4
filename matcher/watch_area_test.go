package matcher_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/starling-fleet/starling/matcher"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// areaClient is the client of one WatchArea call. It shows what it received.
type areaClient struct {
	grpc.ServerStream
	t     *testing.T
	ctx   context.Context
	leave func()
	ended chan error

	mu        sync.Mutex
	busy      chan struct{} // while set, nothing is taken until it is closed
	updates   []*starlingv1.WatchAreaResponse
	updatedAt []time.Time
}

func (d *areaClient) Context() context.Context { return d.ctx }

func (d *areaClient) Send(r *starlingv1.WatchAreaResponse) error {
	d.mu.Lock()
	busy := d.busy
	d.mu.Unlock()
	if busy != nil {
		<-busy
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.updates, d.updatedAt = append(d.updates, r), append(d.updatedAt, time.Now())
	return d.ctx.Err()
}

func (th *watchWorld) areaClient(t *testing.T, role *matcher.Matcher, interval time.Duration, token string, change ...func(*starlingv1.WatchAreaRequest)) *areaClient {
	d := &areaClient{t: t, ended: make(chan error, 1)}
	d.ctx, d.leave = context.WithCancel(ctx)
	req := &starlingv1.WatchAreaRequest{Area: box(0, 0, 10, 10), MinInterval: durationpb.New(interval), ResumeToken: token}
	for _, c := range change {
		c(req)
	}
	go func() { d.ended <- role.WatchArea(req, d) }()
	t.Cleanup(d.leave)
	synctest.Wait()
	return d
}

// hold makes the client take nothing until the returned function is called.
func (d *areaClient) hold() (release func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	busy := make(chan struct{})
	d.busy = busy
	return func() {
		d.mu.Lock()
		d.busy = nil
		d.mu.Unlock()
		close(busy)
		synctest.Wait()
	}
}

func (d *areaClient) messages() ([]*starlingv1.WatchAreaResponse, []time.Time) {
	synctest.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.updates, d.updatedAt
}

func (d *areaClient) end() {
	d.leave()
	require.ErrorIs(d.t, <-d.ended, context.Canceled)
}

// shown are the vehicles and when they were seen last, after some messages.
type shown map[string]int64

func (s shown) take(messages []*starlingv1.WatchAreaResponse) {
	for i, r := range messages {
		if r.Snapshot && (i == 0 || !messages[i-1].More) {
			clear(s)
		}
		for _, v := range r.Changed {
			s[v.Name] = v.DeviceTime.AsTime().UnixMilli()
		}
		for _, n := range r.Left {
			delete(s, n)
		}
	}
}

// truth is what a search finds inside.
func (th *watchWorld) truth(t *testing.T) shown {
	r, err := th.role.SearchArea(ctx, &starlingv1.SearchAreaRequest{Area: box(0, 0, 10, 10)})
	require.NoError(t, err)
	out := shown{}
	for _, v := range r.Vehicles {
		out[v.Name] = v.DeviceTime.AsTime().UnixMilli()
	}
	return out
}

// TestWatchAreaPace: a change after a quiet time is sent at once, and in a busy
// time updates come at the rate that the client chose.
func TestWatchAreaPace(t *testing.T) {
	inWatchWorld(t, func(t *testing.T, th *watchWorld) {
		d := th.areaClient(t, th.role, time.Second, "")
		time.Sleep(10 * time.Second)
		th.report(th.at("a", 1, 1))
		_, at := d.messages()
		require.Len(t, at, 2)
		require.Equal(t, time.Now(), at[1])
		time.Sleep(7 * time.Millisecond) // off the beat of the updates
		for range 100 {
			time.Sleep(50 * time.Millisecond)
			th.report(th.at("a", 1, 1))
		}
		_, at = d.messages()
		require.Len(t, at, 2+5)
		for i := range at[2:] {
			require.Equal(t, time.Second, at[i+2].Sub(at[i+1]))
		}
		time.Sleep(time.Minute)
		updates, _ := d.messages()
		require.Len(t, updates, 2+5+1, "the last change; then nothing changes and nothing is sent")
		for i := range updates {
			require.Equal(t, i == 0, updates[i].Snapshot)
		}
		d.end()
	})
}

// TestWatchAreaResumes loses the last updates of clients whose calls break off,
// while vehicles come, go and are forgotten, and compares what they show with a
// search.
func TestWatchAreaResumes(t *testing.T) {
	for seed := range uint64(10) {
		inWatchWorld(t, func(t *testing.T, th *watchWorld) {
			rng := rand.New(rand.NewPCG(seed, 6))
			churn := func() {
				for range 1 + rng.IntN(60) {
					id := fmt.Sprint("v", rng.IntN(40))
					if rng.IntN(8) == 0 {
						due := th.next(partitionOf(id))
						due.Fired = []wire.Fired{{VehicleID: id, Forgotten: true}}
						th.append(partitionOf(id), due)
						continue
					}
					th.report(th.at(id, rng.Float64()*15, rng.Float64()*12))
				}
				time.Sleep(time.Duration(rng.IntN(200)) * time.Millisecond)
			}
			churn()
			d, screen := th.areaClient(t, th.role, 50*time.Millisecond, ""), shown{}
			for range 15 {
				for range 1 + rng.IntN(5) {
					churn()
				}
				updates, _ := d.messages()
				// The last ones were on their way when the network went.
				got := updates[:1+rng.IntN(len(updates))]
				screen.take(got)
				old, token := d, got[len(got)-1].ResumeToken
				zombie := rng.IntN(2) == 0 // the server has not noticed yet
				if !zombie {
					old.end()
				}
				for range rng.IntN(3) {
					churn()
				}
				d = th.areaClient(t, th.role, 50*time.Millisecond, token)
				updates, _ = d.messages()
				require.False(t, updates[0].Snapshot, "seed %d", seed)
				time.Sleep(time.Second)
				if zombie {
					th.report(th.at("v0", 5, 5))
					require.Equal(t, codes.Aborted, status.Code(<-old.ended))
					time.Sleep(time.Second)
				}
				updates, _ = d.messages()
				check := shown{}
				for k, v := range screen {
					check[k] = v
				}
				check.take(updates)
				require.Equal(t, th.truth(t), check, "seed %d", seed)
			}
			d.end()
		})
	}
}

// TestWatchAreaTokensThatDoNotCount: the client is sent a snapshot.
func TestWatchAreaTokensThatDoNotCount(t *testing.T) {
	inWatchWorld(t, func(t *testing.T, th *watchWorld) {
		th.report(th.at("a", 1, 1))
		synctest.Wait()
		first := th.areaClient(t, th.role, time.Second, "")
		updates, _ := first.messages()
		token := updates[0].ResumeToken
		first.end()
		snapshot := func(role *matcher.Matcher, token string, change ...func(*starlingv1.WatchAreaRequest)) bool {
			d := th.areaClient(t, role, time.Second, token, change...)
			updates, _ := d.messages()
			d.end()
			require.Equal(t, updates[0].Snapshot, len(updates[0].Changed) == 1)
			return updates[0].Snapshot
		}
		require.True(t, snapshot(th.run(t, matcher.DefaultConfig()), token), "another replica")
		require.True(t, snapshot(th.role, token, func(r *starlingv1.WatchAreaRequest) { r.Area = box(0, 0, 10, 11) }), "another area")
		require.True(t, snapshot(th.role, token, func(r *starlingv1.WatchAreaRequest) {
			r.Filter = &starlingv1.VehicleFilter{MinSeats: 0, MaxAge: durationpb.New(time.Hour)}
		}), "another filter")
		require.False(t, snapshot(th.role, token))
		time.Sleep(59 * time.Second)
		require.False(t, snapshot(th.role, token), "each call keeps it for another minute")
		time.Sleep(61 * time.Second)
		require.True(t, snapshot(th.role, token), "too long ago")
		bad := th.areaClient(t, th.role, time.Second, token[1:])
		require.Equal(t, codes.InvalidArgument, status.Code(<-bad.ended))
	})
}

// TestWatchAreaOfASlowClient: while it takes nothing there are more changes than
// are remembered. It is then sent the newest state.
func TestWatchAreaOfASlowClient(t *testing.T) {
	inWatchWorld(t, func(t *testing.T, th *watchWorld) {
		d := th.areaClient(t, th.role, 50*time.Millisecond, "")
		release := d.hold()
		for i := range 20_000 {
			// Slowly at first: a feed grows with the pace of the changes.
			v := th.at(fmt.Sprint("v", i%50), 1, 1)
			if i > 19_000 {
				v.LatDeg = float64(i % 12)
			}
			v.SeenTimeMS += int64(i)
			th.report(v)
			if i%100 == 0 {
				time.Sleep(10 * time.Millisecond)
			}
		}
		release()
		time.Sleep(time.Second)
		updates, _ := d.messages()
		require.LessOrEqual(t, len(updates), 4)
		screen := shown{}
		screen.take(updates)
		require.Equal(t, th.truth(t), screen)
		require.Positive(t, th.metric("area_rescans_total"), "the whole area was looked at")
		d.end()
	})
}

// TestWatchAreaAges: vehicles leave without a change.
func TestWatchAreaAges(t *testing.T) {
	inWatchWorld(t, func(t *testing.T, th *watchWorld) {
		d := th.areaClient(t, th.role, 50*time.Millisecond, "", func(r *starlingv1.WatchAreaRequest) {
			r.Filter = &starlingv1.VehicleFilter{MaxAge: durationpb.New(10 * time.Second)}
		})
		th.report(th.at("a", 1, 1))
		time.Sleep(5 * time.Second)
		th.report(th.at("b", 1, 1))
		time.Sleep(3 * time.Second)
		th.report(th.at("a", 2, 2))
		left := func() (names []string) {
			updates, _ := d.messages()
			for _, r := range updates {
				names = append(names, r.Left...)
			}
			return names
		}
		time.Sleep(6 * time.Second)
		require.Empty(t, left())
		time.Sleep(3 * time.Second)
		require.Equal(t, []string{"vehicles/b"}, left())
		time.Sleep(3 * time.Second)
		require.Equal(t, []string{"vehicles/b", "vehicles/a"}, left())
		d.end()
	})
}
