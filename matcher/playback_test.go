package matcher_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/starling-fleet/starling/matcher"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

func TestPlaybackIsSmoothOverBatches(t *testing.T) {
	inWatchWorld(t, func(t *testing.T, th *watchWorld) {
		th.upload(seconds(60, time.Now())...)
		a := th.watch(th.role, 61*time.Second, "")
		require.Len(t, a.received(), 1, "the newest state, which stands until its time comes")
		begun := time.Now()
		for range 5 {
			time.Sleep(time.Minute)
			th.upload(seconds(60, time.Now())...)
		}
		time.Sleep(61 * time.Second)
		synctest.Wait()
		require.Len(t, a.received(), 301)
		for i, h := range a.received()[1:] {
			require.Equal(t, begun.Add(time.Duration(i+1)*time.Second).UTC(), h.Vehicle.DeviceTime.AsTime())
			require.Equal(t, 61*time.Second, h.at.Sub(h.Vehicle.DeviceTime.AsTime()))
			require.Equal(t, 61*time.Second, h.Playback.Age.AsDuration())
		}
		a.fixes()
		require.Zero(t, a.skipped())
		require.Zero(t, a.received()[300].Playback.BufferedFixes)
		require.EqualValues(t, 59, a.received()[1].Playback.BufferedFixes, "played a second after the upload that brought it")
		a.end()
	})
}

// TestPlaybackOfALateBatch: the next upload comes half a minute late. Nothing is
// left out; the play-out catches up at double pace.
func TestPlaybackOfALateBatch(t *testing.T) {
	inWatchWorld(t, func(t *testing.T, th *watchWorld) {
		th.upload(time.Now())
		a := th.watch(th.role, time.Minute, "")
		time.Sleep(time.Minute)
		th.upload(seconds(60, time.Now())...)
		time.Sleep(90 * time.Second)
		th.upload(seconds(90, time.Now())...)
		time.Sleep(61 * time.Second)
		synctest.Wait()
		require.Len(t, a.received(), 1+150)
		require.Zero(t, a.skipped())
		oldest := time.Duration(0)
		for i, h := range a.received()[2:] {
			before := a.received()[i+1]
			require.Equal(t, time.Second, h.Vehicle.DeviceTime.AsTime().Sub(before.Vehicle.DeviceTime.AsTime()))
			if gap := h.at.Sub(before.at); gap < 5*time.Second {
				require.GreaterOrEqual(t, gap, 500*time.Millisecond, "faster than double pace")
			}
			oldest = max(oldest, h.Playback.Age.AsDuration())
		}
		require.InDelta(t, 89.5, oldest.Seconds(), 1)
		require.Equal(t, time.Minute, a.received()[150].Playback.Age.AsDuration(), "it has caught up")
		a.end()
	})
}

// TestPlaybackWithTooShortADelay leaves out what would be older than twice the
// delay, and reports by how much.
func TestPlaybackWithTooShortADelay(t *testing.T) {
	inWatchWorld(t, func(t *testing.T, th *watchWorld) {
		th.upload(time.Now())
		a := th.watch(th.role, 10*time.Second, "")
		for range 3 {
			time.Sleep(time.Minute)
			th.upload(seconds(60, time.Now())...)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, 180, a.skipped()+len(a.received())-1)
		require.InDelta(t, 3*40, a.skipped(), 6)
		for _, h := range a.received() {
			require.LessOrEqual(t, h.Playback.Age.AsDuration(), 20*time.Second)
		}
		a.end()
	})
}

// TestPlaybackOnADevicesClock: it is an hour ahead, then is set right.
func TestPlaybackOnADevicesClock(t *testing.T) {
	inWatchWorld(t, func(t *testing.T, th *watchWorld) {
		ahead := time.Hour
		th.upload(time.Now().Add(ahead))
		a := th.watch(th.role, 5*time.Second, "")
		drive := func(n int) {
			for range n {
				time.Sleep(time.Second)
				th.upload(time.Now().Add(ahead))
			}
		}
		drive(20)
		last := a.received()[len(a.received())-1]
		require.Equal(t, time.Hour, last.Playback.DeviceClockAhead.AsDuration())
		require.Equal(t, 5*time.Second, last.Playback.Age.AsDuration())
		require.Equal(t, 5*time.Second, last.at.Add(ahead).Sub(last.Vehicle.DeviceTime.AsTime()))
		ahead = 0
		drive(20)
		last = a.received()[len(a.received())-1]
		require.Zero(t, last.Playback.DeviceClockAhead.AsDuration())
		require.Equal(t, 5*time.Second, last.at.Sub(last.Vehicle.DeviceTime.AsTime()))
		a.end()
	})
}

func TestPlaybackResumes(t *testing.T) {
	inWatchWorld(t, func(t *testing.T, th *watchWorld) {
		th.upload(time.Now())
		first := th.watch(th.role, 30*time.Second, "")
		drive := func(d time.Duration) {
			for range int(d / time.Second) {
				time.Sleep(time.Second)
				th.upload(time.Now())
			}
		}
		drive(time.Minute)
		token := first.end()
		received := first.fixes()
		drive(20 * time.Second)
		second := th.watch(th.role, 30*time.Second, token)
		require.True(t, second.received()[0].Resumed)
		require.Equal(t, received[len(received)-1], second.fixes()[0], "it stands where it stood")
		drive(time.Minute)
		require.False(t, second.received()[1].Resumed)
		received = append(received, second.fixes()[1:]...)
		for i := range received[1:] {
			require.Equal(t, time.Second, received[i+1].Sub(received[i]), "nothing is missing and nothing comes twice")
		}
		require.Equal(t, 30*time.Second, second.received()[len(second.received())-1].Playback.Age.AsDuration())

		// Another replica has no playout buffer, and a buffer does not wait for ever.
		token = second.end()
		other := th.run(t, matcher.DefaultConfig())
		third := th.watch(other, 30*time.Second, token)
		require.False(t, third.received()[0].Resumed)
		require.Equal(t, time.Now().UTC(), third.received()[0].Vehicle.DeviceTime.AsTime(), "the newest state")
		third.end()
		drive(61 * time.Second)
		fourth := th.watch(th.role, 30*time.Second, token)
		require.False(t, fourth.received()[0].Resumed)
		fourth.end()
	})
}

// TestPlaybackToASlowClient: one that takes nothing for half a minute is then
// sent what is due, not a queue.
func TestPlaybackToASlowClient(t *testing.T) {
	inWatchWorld(t, func(t *testing.T, th *watchWorld) {
		th.upload(time.Now())
		a := th.watch(th.role, 5*time.Second, "")
		a.away = make(chan struct{})
		for range 30 {
			time.Sleep(time.Second)
			th.upload(time.Now())
		}
		close(a.away)
		synctest.Wait()
		require.Len(t, a.received(), 3, "the one at the start and the newest")
		last := a.received()[2]
		require.LessOrEqual(t, last.Playback.Age.AsDuration(), 10*time.Second)
		require.Positive(t, last.Playback.SkippedFixes)
		a.end()
	})
}

// TestPlaybackOfASilentVehicle: it stays where its last fix was. What is no fix
// is sent at once.
func TestPlaybackOfASilentVehicle(t *testing.T) {
	inWatchWorld(t, func(t *testing.T, th *watchWorld) {
		a := th.watch(th.role, 10*time.Second, "")
		require.True(t, a.received()[0].Unknown)
		th.upload(seconds(5, time.Now())...)
		time.Sleep(time.Minute)
		synctest.Wait()
		a.forget(1)
		require.Len(t, a.fixes(), 5)
		require.Zero(t, a.skipped())
		require.Zero(t, a.received()[4].Playback.BufferedFixes)
		busy := th.at("a", 1, 1)
		busy.DeviceTimeMS, busy.Availability = a.fixes()[4].UnixMilli(), starlingv1.Availability_AVAILABILITY_ON_RIDE
		th.report(busy)
		synctest.Wait()
		require.Len(t, a.received(), 6)
		require.Equal(t, starlingv1.Availability_AVAILABILITY_ON_RIDE, a.received()[5].Vehicle.Availability)
		require.Equal(t, a.received()[4].Vehicle.Position.Latitude, a.received()[5].Vehicle.Position.Latitude)
		require.Equal(t, 70*time.Second-10*time.Second, a.received()[5].Playback.Age.AsDuration())
		due := th.next(partitionOf("a"))
		due.Fired = []wire.Fired{{VehicleID: "a", Forgotten: true}}
		th.append(partitionOf("a"), due)
		synctest.Wait()
		require.True(t, a.received()[6].Unknown)
		a.end()
	})
}

// TestPlaybackIsBounded: when there is no capacity for a vehicle's fixes its oldest
// go, and are counted.
func TestPlaybackIsBounded(t *testing.T) {
	inWatchWorld(t, func(t *testing.T, th *watchWorld) {
		th.upload(time.Now())
		a := th.watch(th.role, 15*time.Minute, "")
		start := time.Now()
		for range 14 {
			time.Sleep(time.Minute)
			var fixes []time.Time
			for at := time.Now().Add(-time.Minute + 250*time.Millisecond); !at.After(time.Now()); at = at.Add(250 * time.Millisecond) {
				fixes = append(fixes, at)
			}
			th.upload(fixes...)
		}
		time.Sleep(16 * time.Minute)
		synctest.Wait()
		const all = 14 * 240
		require.Equal(t, all-1000, a.skipped())
		require.Len(t, a.received(), 1+1000)
		require.Equal(t, start.Add(14*time.Minute).UTC(), a.fixes()[1000])
		a.end()
	}, func(c *matcher.Config) { c.MaxPlaybackFixes = 1000 })
}

// TestPlaybackKeepsItsPromises over random uploads: fixes in order, each sent or
// counted as skipped, none too old and none before its time.
func TestPlaybackKeepsItsPromises(t *testing.T) {
	for seed := range uint64(60) {
		inWatchWorld(t, func(t *testing.T, th *watchWorld) {
			rng := rand.New(rand.NewPCG(seed, 4))
			delay := time.Duration(1+rng.IntN(90)) * time.Second
			clock := time.Duration(rng.IntN(3)-1) * time.Duration(rng.IntN(100)) * time.Minute
			th.upload(time.Now().Add(clock))
			a := th.watch(th.role, delay, "")
			taken, next := 0, time.Now()
			var kept []time.Time // not uploaded yet
			for range 300 {
				time.Sleep(time.Duration(1+rng.IntN(3000)) * time.Millisecond)
				if time.Since(next) > 0 {
					kept, next = append(kept, time.Now().Add(clock)), time.Now().Add(time.Second)
					taken++
				}
				if len(kept) > 0 && rng.IntN(20) == 0 {
					// Some arrive in the wrong order, and all within the second.
					if n := len(kept); n > 3 && rng.IntN(3) == 0 {
						th.upload(kept[n/2:]...)
						kept = kept[:n/2]
					}
					r := kept
					kept = nil
					if last := th.lastLive("a"); len(r) > 0 && r[len(r)-1].UnixMilli() < last {
						th.uploadOld(last, r...)
						continue
					}
					th.upload(r...)
				}
			}
			time.Sleep(time.Millisecond)
			th.upload(append(kept, time.Now().Add(clock))...)
			taken++
			time.Sleep(2*delay + time.Minute)
			synctest.Wait()
			fixes := a.fixes()
			require.Equal(t, taken, a.skipped()+len(fixes)-1, "seed %d", seed)
			for i, h := range a.received()[1:] {
				require.True(t, fixes[i+1].After(fixes[i]), "seed %d: back in time", seed)
				age := h.Playback.Age.AsDuration()
				require.GreaterOrEqual(t, age, delay, "seed %d", seed)
				require.LessOrEqual(t, age, 2*delay+4*time.Second, "seed %d: fixes are at most 4 s apart", seed)
			}
			a.end()
		})
	}
}

// lastLive is the device time of a vehicle's newest fix.
func (th *watchWorld) lastLive(id string) int64 {
	v, err := th.role.GetVehicle(ctx, &starlingv1.GetVehicleRequest{Name: "vehicles/" + id})
	require.NoError(th.t, err)
	return v.DeviceTime.AsTime().UnixMilli()
}

// uploadOld reports fixes that do not move the live state.
func (th *watchWorld) uploadOld(liveMS int64, deviceTimes ...time.Time) {
	p := partitionOf("a")
	r := th.next(p)
	for _, at := range deviceTimes {
		r.Points = append(r.Points, wire.TrackPoint{Fix: wire.Fix{DeviceTimeMS: at.UnixMilli()}, Estimate: wire.Estimate{LatDeg: latitude(at), LonDeg: 16}})
	}
	r.HasLive, r.Live = true, th.at("a", latitude(time.UnixMilli(liveMS)), 16)
	r.Live.DeviceTimeMS, r.Live.Cell = liveMS, 0x891e15b70afffff
	th.append(p, r)
	synctest.Wait()
}

// TestWatchVehicleDoesNotGoBack: a matcher that is behind what the client knows
// waits, but not for ever.
func TestWatchVehicleDoesNotGoBack(t *testing.T) {
	inWatchWorld(t, func(t *testing.T, th *watchWorld) {
		th.upload(time.Now())
		a := th.watch(th.role, 0, "")
		time.Sleep(time.Second)
		th.upload(time.Now())
		token := a.end()
		require.Len(t, a.received(), 2)
		same := th.watch(th.role, 0, token)
		require.True(t, same.received()[0].Resumed)
		same.end()

		behind := newWorld(t) // a replica that has only the first report
		behind.clock = time.Now
		first := behind.at("a", 1, 1)
		first.SeenTimeMS -= 1000
		behind.report(first)
		replica := behind.run(t, matcher.DefaultConfig())
		waits := th.watch(replica, 0, token)
		require.Empty(t, waits.received())
		time.Sleep(time.Second)
		behind.report(behind.at("a", 2, 2))
		synctest.Wait()
		require.True(t, waits.received()[0].Resumed)
		require.Equal(t, 2.0, waits.received()[0].Vehicle.Position.Latitude)
		newest := waits.end()

		stays := newWorld(t)
		stays.clock = time.Now
		stays.report(first)
		gives := th.watch(stays.run(t, matcher.DefaultConfig()), 0, newest)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		require.False(t, gives.received()[0].Resumed)
		gives.end()
	})
}

func TestBadWatchVehicleRequests(t *testing.T) {
	w := newWorld(t)
	s := w.startReady()
	other, err := s.WatchVehicle(ctx, &starlingv1.WatchVehicleRequest{Name: "vehicles/b"})
	require.NoError(t, err)
	first, err := other.Recv()
	require.NoError(t, err)
	for field, req := range map[string]*starlingv1.WatchVehicleRequest{
		"playback_delay": {PlaybackDelay: durationpb.New(999 * time.Millisecond)},
		"resume_token":   {ResumeToken: first.ResumeToken},
	} {
		req.Name = "vehicles/a"
		requireFault(t, s, field, req)
	}
	requireFault(t, s, "playback_delay", &starlingv1.WatchVehicleRequest{Name: "vehicles/a", PlaybackDelay: durationpb.New(15*time.Minute + 1)})
	for i := range first.ResumeToken {
		requireFault(t, s, "resume_token", &starlingv1.WatchVehicleRequest{Name: "vehicles/a", ResumeToken: first.ResumeToken[:i+1]})
	}
	requireFault(t, s, "resume_token", &starlingv1.WatchVehicleRequest{Name: "vehicles/b", ResumeToken: fmt.Sprint(first.ResumeToken, "AAAA")})
}

func requireFault(t *testing.T, s *service, field string, req *starlingv1.WatchVehicleRequest) {
	t.Helper()
	stream, err := s.WatchVehicle(ctx, req)
	require.NoError(t, err)
	_, err = stream.Recv()
	require.Equal(t, codes.InvalidArgument, status.Code(err))
	require.Equal(t, field, detail[*errdetails.BadRequest](t, err).FieldViolations[0].Field)
}
