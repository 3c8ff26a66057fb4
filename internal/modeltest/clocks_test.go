package modeltest

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/ingest"
	"github.com/starling-fleet/starling/matcher"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker"
)

// shipped is the configuration that Starling ships with.
func shipped() config {
	return config{ingest: ingest.DefaultConfig(), tracker: tracker.DefaultConfig()}
}

// drill runs in a bubble of its own over a world without disturbances, which
// is judged at the end.
func drill(t *testing.T, cfg config, do func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := emptyWorld(t, rand.New(rand.NewPCG(1, 1)), cfg)
		defer w.close()
		do(w)
		w.settle()
		w.judge()
		require.Empty(t, w.failed())
	})
}

// The clock of ingest only states which fixes are refused. Whatever the devices
// do, with ingest an hour ahead the log has the same records at the same times,
// and so has everything that follows from it.
func TestAnIngestAnHourAheadChangesNothing(t *testing.T) {
	for seed := uint64(1); seed <= 20; seed++ {
		set := func(ahead time.Duration) func(*world) {
			return func(w *world) {
				w.calm, w.ingestSkew = true, ahead
				w.cfg.ingest.Validation.MaxAhead = 2 * time.Hour
				// A clock in doubt keeps reports back, which changes their times.
				w.cfg.ingest.Validation.ClockTolerance = 2 * time.Hour
			}
		}
		require.Equal(t, live(t, seed, set(0)).digest(), live(t, seed, set(time.Hour)).digest(), "seed %d", seed)
	}
}

// car is a device that reports every second, and what is served of it.
type car struct {
	*device
	phone *phone
}

func (w *world) newCar(id string) *car {
	d := &device{id: id, session: 1, lat: 30, lon: 10}
	p := &phone{world: w, vehicles: []*device{d}}
	w.devices, w.phones = append(w.devices, d), append(w.phones, p)
	return &car{d, p}
}

// drive reports every second until the time has passed, or until is true.
func (c *car) drive(w *world, d time.Duration, until func() bool) (took time.Duration) {
	start := time.Now()
	for time.Since(start) < d {
		c.sequence++
		c.lat += 1e-4
		fix := wire.Fix{DeviceTimeMS: time.Now().Add(c.skew).UnixMilli(), LatDeg: c.lat, LonDeg: c.lon}
		c.phone.send(&report{Report: wire.Report{VehicleID: c.id, SessionID: c.session, Sequence: c.sequence, Fixes: []wire.Fix{fix},
			Availability: starlingv1.Availability_AVAILABILITY_FREE}})
		synctest.Wait()
		if until != nil && until() {
			break
		}
		time.Sleep(time.Second)
	}
	return time.Since(start)
}

// isFollowed reports whether the car's newest fix is what is served.
func (c *car) isFollowed(w *world, m *matcher.Matcher) bool {
	v, err := m.GetVehicle(w.t.Context(), &starlingv1.GetVehicleRequest{Name: "vehicles/" + c.id})
	require.NoError(w.t, err)
	return v.DeviceTime != nil && v.DeviceTime.AsTime().UnixMilli() == time.Now().Add(c.skew).UnixMilli()
}

// A device whose clock jumps is followed all the same: ahead within max_ahead
// with the third report, back to the right time with the second, set back by an hour
// after rebase_after. One an hour ahead is not, even where ingest takes its
// fixes: they are set aside until its clock is right.
func TestADeviceWhoseClockJumps(t *testing.T) {
	const most, never = 6 * time.Minute, 6 * time.Minute
	for name, test := range map[string]struct {
		jumps []time.Duration
		want  []time.Duration // until the car is followed after each jump
	}{
		"20 s ahead and back":    {[]time.Duration{20_017 * time.Millisecond, 0}, []time.Duration{2 * time.Second, time.Second}},
		"an hour ahead and back": {[]time.Duration{time.Hour, 0}, []time.Duration{never, 0}},
		"an hour behind":         {[]time.Duration{-time.Hour}, []time.Duration{5 * time.Minute}},
		"behind and back":        {[]time.Duration{-time.Hour, 0}, []time.Duration{5 * time.Minute, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := shipped()
			cfg.ingest.Validation.MaxAhead = 2 * time.Hour
			drill(t, cfg, func(w *world) {
				n := w.start(roles{true, true, true}, 0)
				c := w.newCar("car")
				steadily := func() bool { require.True(t, c.isFollowed(w, n.matcher)); return false }
				c.drive(w, time.Minute, steadily)
				for i, skew := range test.jumps {
					c.skew = skew
					took := c.drive(w, most, func() bool { return c.isFollowed(w, n.matcher) })
					t.Logf("jump to %v: followed after %v", skew, took)
					require.Equal(t, test.want[i], took)
					if took < never {
						time.Sleep(time.Second)
						c.drive(w, time.Minute, steadily)
					}
				}
			})
		})
	}
}

// With the bounds that Starling ships with, the fixes of a device an hour ahead
// are refused with the reason; what else it reports counts.
func TestADeviceAnHourAheadIsTold(t *testing.T) {
	drill(t, shipped(), func(w *world) {
		n := w.start(roles{true, true, true}, 0)
		c := w.newCar("car")
		c.skew = time.Hour
		c.drive(w, 3*time.Second, nil) // the phone holds the refusals to the rule
		v, err := n.matcher.GetVehicle(t.Context(), &starlingv1.GetVehicleRequest{Name: "vehicles/car"})
		require.NoError(t, err)
		require.Nil(t, v.Position)
		require.Equal(t, starlingv1.Availability_AVAILABILITY_FREE, v.Availability)
		require.Zero(t, v.FixCounts.GetAccepted())
	})
}

const silence = 6 * time.Hour

// report lets n vehicles of one partition report three fixes each.
func (w *world) reportAll(n int) {
	p := &phone{world: w}
	w.phones = append(w.phones, p)
	nowMS := time.Now().UnixMilli()
	for i := 0; n > 0; i++ {
		id := fmt.Sprintf("v-%d", i)
		if partitionOf(id) != 0 {
			continue
		}
		n--
		r := &report{Report: wire.Report{VehicleID: id, SessionID: 1, Sequence: 1}}
		for k := range int64(3) {
			r.Fixes = append(r.Fixes, wire.Fix{DeviceTimeMS: nowMS - 2000 + k*1000, LatDeg: 30 + float64(i)*1e-4, LonDeg: 10})
		}
		p.send(r)
		if i%256 == 0 {
			synctest.Wait()
		}
	}
	synctest.Wait()
	p.disconnect()
}

// settling is what timers did to a partition from an offset of `tracks` on.
type settling struct {
	records, mostFired, mostBytes int
	forgotten, refreshed          map[string]int
	finalPoints                   int
	lasted                        time.Duration // on the partition's clock, from the first timer to the last
}

func (w *world) settling(from int) settling {
	s := settling{forgotten: map[string]int{}, refreshed: map[string]int{}}
	first := int64(0)
	for _, rec := range w.store.Records(topics.Tracks, 0)[from:] {
		var t wire.Track
		require.NoError(w.t, t.Unmarshal(rec.Value))
		if len(t.Fired) == 0 {
			continue
		}
		if first == 0 {
			first = t.ClockMS
		}
		s.records++
		s.mostFired, s.mostBytes = max(s.mostFired, len(t.Fired)), max(s.mostBytes, len(rec.Value))
		s.lasted = time.Duration(t.ClockMS-first) * time.Millisecond
		for _, d := range t.Fired {
			s.finalPoints += len(d.FinalPoints)
			if d.Forgotten {
				s.forgotten[d.VehicleID]++
			} else {
				s.refreshed[d.VehicleID]++
			}
		}
	}
	return s
}

// A partition on which nothing happens for six hours, because no tracker runs,
// jumps by as much once the next tracker's ticks are believed: everything is due
// at once. Nothing is lost, whether the vehicles are to be published again or
// forgotten.
func TestAPartitionThatWasSilentForSixHours(t *testing.T) {
	limit, _ := topics.ByName(topics.Tracks)
	for name, forgetAfter := range map[string]time.Duration{"published again": 24 * time.Hour, "forgotten": 5 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			cfg := shipped()
			cfg.tracker.ForgetAfter, cfg.tracker.ForgetSingleAfter = forgetAfter, forgetAfter
			drill(t, cfg, func(w *world) {
				w.start(roles{ingest: true, matcher: true}, 0)
				n := w.start(roles{tracker: true}, 0)
				w.reportAll(silentVehicles)
				n.kill() // with every window open
				before := len(w.store.Records(topics.Tracks, 0))
				require.Equal(t, silentVehicles, before)
				time.Sleep(silence)
				started := time.Now()
				w.start(roles{tracker: true}, 0)
				time.Sleep(cfg.tracker.ClockSettle + 2*cfg.tracker.TickInterval) // until the ticks' stamps are believed
				s := w.settling(before)
				t.Logf("%d timers in %d records, %v after the start at most, %v from the first to the last; at most %d timers and %d bytes a record",
					len(s.forgotten)+len(s.refreshed), s.records, time.Since(started), s.lasted, s.mostFired, s.mostBytes)
				require.Equal(t, (silentVehicles+63)/64, s.records)
				require.Equal(t, 64, s.mostFired)
				require.Less(t, s.mostBytes, limit.MaxRecordBytes)
				require.Equal(t, 3*silentVehicles, s.finalPoints, "every window is closed")
				require.Len(t, s.forgotten, map[bool]int{true: silentVehicles}[forgetAfter < silence])
				require.Len(t, s.refreshed, map[bool]int{true: silentVehicles}[forgetAfter > silence])
			})
		})
	}
}

// A partition of silent vehicles whose tracker runs: its ticks publish all of them
// again once an hour and forget them in time.
func TestAPartitionOfSilentVehicles(t *testing.T) {
	cfg := shipped()
	cfg.tracker.ForgetAfter, cfg.tracker.RepeatInterval, cfg.tracker.TickInterval = 5*time.Hour, time.Hour, 10*time.Second
	cfg.tracker.RepeatMaxInterval, cfg.tracker.ForgetSingleAfter = time.Hour, 5*time.Hour
	drill(t, cfg, func(w *world) {
		w.start(roles{true, true, true}, 0)
		w.reportAll(silentVehicles)
		before := len(w.store.Records(topics.Tracks, 0))
		time.Sleep(silence)
		s := w.settling(before)
		t.Logf("%d records with timers, at most %d timers and %d bytes a record", s.records, s.mostFired, s.mostBytes)
		require.Equal(t, 64, s.mostFired)
		require.Equal(t, 3*silentVehicles, s.finalPoints)
		require.Len(t, s.forgotten, silentVehicles)
		require.Len(t, s.refreshed, silentVehicles)
		for id, n := range s.refreshed {
			require.Equal(t, 5, n, "%s: its window closes, and it is published again four times", id)
		}
	})
}
