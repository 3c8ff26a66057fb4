package matcher_test

import (
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/starling-fleet/starling/internal/alarmtest"
	"github.com/starling-fleet/starling/matcher"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

func nearest(s *service, f *starlingv1.VehicleFilter) []string {
	s.t.Helper()
	r, err := s.SearchNearest(ctx, &starlingv1.SearchNearestRequest{Place: &starlingv1.Place{Latitude: 1, Longitude: 1}, MaxResults: 100, Filter: f})
	require.NoError(s.t, err)
	return append([]string{}, names(r)...)
}

// A device whose clock is ahead must not make its fixes look fresh, nor drive
// its vehicle on for less time than has passed.
func TestAgeIsWithoutTheDevicesClock(t *testing.T) {
	w := newWorld(t)
	at := func(id string, takenAgoMS, aheadMS int64) {
		v := w.at(id, 1, 1)
		v.DeviceTimeMS = startMS - takenAgoMS + aheadMS
		v.DeviceClockAheadMS = aheadMS
		v.SpeedMPS, v.HasSpeed, v.HeadingDeg, v.HasHeading = 10, true, 90, true
		w.report(v)
	}
	at("ahead", 2000, 100_000)
	at("behind", 2000, -40_000)
	at("right", 2000, 0)
	s := w.startReady()
	w.pass(8 * time.Second)
	for id, ahead := range map[string]time.Duration{"ahead": 100 * time.Second, "behind": -40 * time.Second, "right": 0} {
		v, err := get(s, id)
		require.NoError(t, err)
		require.Equal(t, 10*time.Second, v.Age.AsDuration(), id)
		require.Equal(t, ahead, v.DeviceClockAhead.AsDuration(), id)
		require.Equal(t, ahead != 0, v.DeviceClockAhead != nil, id)
	}
	require.Len(t, nearest(s, &starlingv1.VehicleFilter{MaxAge: durationpb.New(10 * time.Second)}), 3)
	require.Empty(t, nearest(s, &starlingv1.VehicleFilter{MaxAge: durationpb.New(9999 * time.Millisecond)}))
	r, err := s.SearchNearest(ctx, &starlingv1.SearchNearestRequest{Place: &starlingv1.Place{Latitude: 1, Longitude: 1}, Predict: true})
	require.NoError(t, err)
	require.Len(t, r.Results, 3)
	for _, hit := range r.Results {
		require.InDelta(t, 100, hit.DistanceM, 1e-3, "10 m/s for 10 s: %s", hit.Vehicle.Name)
	}
}

// Before anything is learned of a device's clock, a fix stamped 50 s ahead is as
// old as the report that brought it.
func TestAgeOfAFixFromTheFuture(t *testing.T) {
	w := newWorld(t)
	v := w.at("a", 1, 1)
	v.DeviceTimeMS += 50_000
	w.report(v)
	s := w.startReady()
	for _, wait := range []time.Duration{0, 3 * time.Second, 90 * time.Second} {
		w.pass(wait)
		got, err := get(s, "a")
		require.NoError(t, err)
		require.Equal(t, time.Duration(w.nowMS.Load()-startMS)*time.Millisecond, got.Age.AsDuration())
		require.Equal(t, 50*time.Second, got.DeviceClockAhead.AsDuration())
	}
}

// A matcher whose clock is behind the log's stamps must not make vehicles
// younger; partitions with different stream times each have their own now.
func TestAgeByStreamTimeWhereTheWallClockIsBehind(t *testing.T) {
	w := newWorld(t)
	late, other := "a", stranger("a")
	p := partitionOf(late)
	w.report(w.at(late, 1, 1))
	w.report(w.at(other, 1, 1))
	tick := w.next(p)
	tick.ClockMS += 600_000
	w.append(p, tick)
	s := w.startReady()
	age := func(id string) time.Duration {
		v, err := get(s, id)
		require.NoError(t, err)
		return v.Age.AsDuration()
	}
	require.Equal(t, 10*time.Minute, age(late))
	require.Zero(t, age(other))
	require.Equal(t, []string{other}, nearest(s, &starlingv1.VehicleFilter{MaxAge: durationpb.New(time.Minute)}))
	require.Len(t, nearest(s, &starlingv1.VehicleFilter{MaxAge: durationpb.New(10 * time.Minute)}), 2)

	// Ahead by less than a second, it is that late for everybody.
	tick = w.next(p)
	tick.ClockMS += 700
	w.append(p, tick)
	s.eventually(func() bool { return age(late) == 700*time.Millisecond })
	require.Equal(t, 700*time.Millisecond, age(other))
	// And a stream time that has fallen behind the wall clock counts no more.
	w.tick(p)
	s.eventually(func() bool { return age(late) == 0 })
}

func dispatchable(v wire.View) wire.View { v.Dispatchable = true; return v }

// Dispatchable is the tracker's judgement as long as the newest fix is fresh
// for the reader too: a tracker that is behind publishes nothing new.
func TestDispatchable(t *testing.T) {
	w := newWorld(t)
	w.report(dispatchable(w.inCell(t, "yes", 1, 1, free)))
	w.report(w.inCell(t, "old", 1, 1, free))
	conflicting := w.inCell(t, "conflicting", 1, 1, free)
	conflicting.Conflicting = true
	w.report(conflicting)
	reserved := w.inCell(t, "reserved", 1, 1, free)
	reserved.DerivedAvailability = starlingv1.Availability_AVAILABILITY_RESERVED
	w.report(reserved)
	w.report(w.inCell(t, "busy", 1, 1, starlingv1.Availability_AVAILABILITY_BUSY))
	w.tickAll()
	s := w.startReady()

	only := &starlingv1.VehicleFilter{Dispatchable: true}
	require.Equal(t, []string{"yes"}, nearest(s, only))
	area, err := s.SearchArea(ctx, &starlingv1.SearchAreaRequest{Area: box(0, 0, 2, 2), Filter: only})
	require.NoError(t, err)
	require.Equal(t, []string{"yes"}, vehicleNames(area.Vehicles))
	require.Equal(t, []string{"reserved"}, nearest(s, &starlingv1.VehicleFilter{Availabilities: []starlingv1.Availability{starlingv1.Availability_AVAILABILITY_RESERVED}}))
	require.Equal(t, []string{"conflicting", "old", "yes"}, nearest(s, &starlingv1.VehicleFilter{Availabilities: []starlingv1.Availability{free}}))
	v, err := get(s, "conflicting")
	require.NoError(t, err)
	require.True(t, v.Conflicting)
	require.False(t, v.Dispatchable)
	v, err = get(s, "reserved")
	require.NoError(t, err)
	require.Equal(t, free, v.Availability)
	require.Equal(t, starlingv1.Availability_AVAILABILITY_RESERVED, v.DerivedAvailability)

	counted := func(choose *starlingv1.CellSelection) *starlingv1.CellCount {
		r, err := s.CountVehicles(ctx, &starlingv1.CountVehiclesRequest{Selection: choose})
		require.NoError(t, err)
		require.Len(t, r.Cells, 1)
		return r.Cells[0]
	}
	all := counted(&starlingv1.CellSelection{})
	require.Equal(t, []int32{5, 3, 1, 1, 1}, []int32{all.TotalCount, all.FreeCount, all.ReservedCount, all.BusyCount, all.DispatchableCount})
	some := counted(&starlingv1.CellSelection{Dispatchable: true})
	require.Equal(t, []int32{1, 1, 0, 0, 1}, []int32{some.TotalCount, some.FreeCount, some.ReservedCount, some.BusyCount, some.DispatchableCount})

	w.pass(time.Minute)
	require.Equal(t, []string{"yes"}, nearest(s, only))
	v, err = get(s, "yes")
	require.NoError(t, err)
	require.True(t, v.Dispatchable)
	w.pass(time.Millisecond)
	require.Empty(t, nearest(s, only))
	v, err = get(s, "yes")
	require.NoError(t, err)
	require.False(t, v.Dispatchable, "though the tracker has not published it")
	hits, err := s.SearchNearest(ctx, &starlingv1.SearchNearestRequest{Place: &starlingv1.Place{Latitude: 1, Longitude: 1}})
	require.NoError(t, err)
	for _, h := range hits.Results {
		require.False(t, h.Vehicle.Dispatchable, h.Vehicle.Name)
	}
}

// Calls that watch are sent that a vehicle is not dispatchable any more although
// no record reports it.
func TestWatchersSeeDispatchableEnd(t *testing.T) {
	inWatchWorld(t, func(t *testing.T, th *watchWorld) {
		area := th.areaClient(t, th.role, 50*time.Millisecond, "", func(r *starlingv1.WatchAreaRequest) {
			r.Filter = &starlingv1.VehicleFilter{Dispatchable: true}
		})
		th.report(dispatchable(th.at("a", 1, 1)))
		one := th.watch(th.role, 0, "")
		time.Sleep(59 * time.Second)
		received := one.received()
		require.True(t, received[len(received)-1].Vehicle.Dispatchable)
		time.Sleep(3 * time.Second)
		received = one.received()
		require.False(t, received[len(received)-1].Vehicle.Dispatchable)
		updates, _ := area.messages()
		require.Equal(t, []string{"vehicles/a"}, updates[len(updates)-1].Left)
		one.end()
		area.end()
	})
}

// What GetVehicle and ListVehicles alone return.
func TestWhatIsLearnedOfADevice(t *testing.T) {
	w := newWorld(t)
	v := w.at("a", 1, 1)
	v.DisplayLatDeg, v.DisplayLonDeg, v.OdometerM = 1.25, -2.5, 1234.5
	v.Counts.SetAside = 7
	v.Diagnosis = wire.Diagnosis{AccuracyScale: 4, HasAccuracyScale: true, VelocityCredibility: 1, HasVelocityCredibility: true, BiasM: 3.5, OutlierShare: 0}
	w.report(v)
	w.report(w.at("b", 1, 1))
	s := w.startReady()
	got, err := get(s, "a")
	require.NoError(t, err)
	require.Equal(t, []float64{1.25, -2.5, 1234.5}, []float64{got.DisplayPosition.Latitude, got.DisplayPosition.Longitude, got.GetOdometerM()})
	require.Equal(t, []float32{4, 1, 3.5, 0}, []float32{got.Diagnosis.GetAccuracyScale(), got.Diagnosis.GetVelocityCredibility(), got.Diagnosis.BiasM, got.Diagnosis.OutlierShare})
	require.EqualValues(t, 7, got.FixCounts.SetAside)
	list, err := s.ListVehicles(ctx, &starlingv1.ListVehiclesRequest{})
	require.NoError(t, err)
	require.Equal(t, 1234.5, list.Vehicles[0].GetOdometerM())
	require.NotNil(t, list.Vehicles[0].Diagnosis)
	require.Nil(t, list.Vehicles[1].Diagnosis)
	require.Nil(t, list.Vehicles[1].DisplayPosition)
}

// A stamp from the future shows nothing: one bad stamp of a broker must not
// hide that a tracker has stopped.
func TestStampsFromTheFutureDoNotHideStaleness(t *testing.T) {
	w := newWorld(t)
	w.report(w.at("a", 1, 1))
	p := partitionOf("a")
	s := w.startReady()
	stale := func() (behind []time.Duration) {
		r, err := s.SearchNearest(ctx, &starlingv1.SearchNearestRequest{Place: &starlingv1.Place{}})
		require.NoError(t, err)
		for _, one := range r.StalePartitions {
			require.Equal(t, p, one.Partition)
			behind = append(behind, one.Behind.AsDuration())
		}
		return behind
	}
	send := func(streamAhead, appendAhead time.Duration) {
		tick := w.next(p)
		tick.ClockMS += streamAhead.Milliseconds()
		tick.AppendTimeMS = w.nowMS.Load() + appendAhead.Milliseconds()
		w.append(p, tick)
		records := s.metric("records_total")
		s.eventually(func() bool {
			return s.metric("records_total") > records || s.metric("records_total") == float64(w.sources[p])
		})
	}
	const week = 8 * 24 * time.Hour
	send(0, week) // a bad stamp, not believed
	require.Empty(t, stale())
	w.pass(6 * time.Second)
	require.Equal(t, []time.Duration{6 * time.Second}, stale())
	send(week, week) // a jump that the tracker believes
	require.Equal(t, []time.Duration{0}, stale(), "how far it is behind is not known")
	send(0, 0)
	require.Empty(t, stale())
	// While a jump of all clocks is not yet believed the stream time stands
	// still, but records come with the right stamps.
	w.pass(5 * time.Minute)
	require.Len(t, stale(), 1)
	send(-5*time.Minute, 0)
	require.Empty(t, stale())
	send(-5*time.Minute, 3*time.Second)
	require.Empty(t, stale(), "clocks of machines differ by seconds")
}

// logLines is a logger's output, line by line.
type logLines struct {
	mu    sync.Mutex
	lines []string
}

func (l *logLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(b))
	return len(b), nil
}

func (l *logLines) with(text string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// A clock that disagrees with the log's stamps is an alarm, not a line for each
// record.
func TestASkewedClockIsAnAlarm(t *testing.T) {
	w := newWorld(t)
	w.tickAll()
	var out logLines
	behind := func() time.Time { return w.now().Add(-7 * time.Second) }
	w.logger = slog.New(slog.NewTextHandler(&out, nil))
	s := w.startWith(func(d *matcher.Deps) { d.Now = behind })
	for range 20 {
		w.tickAll()
	}
	s.eventually(func() bool { return s.metric("records_total") == 84 })
	require.InDelta(t, -7, s.metric("clock_skew_seconds"), 0.001)
	alarmtest.Raised(t, s.registry, "starling_matcher_clock_skew_seconds")
	require.EqualValues(t, 4, s.metric("stale_partitions"), "nothing shows that they are current")
	require.Equal(t, 1, out.with("stamps are in the future"))
}

// What the trackers publish late, or as dispatchable by another age than the
// matcher's, is an alarm.
func TestLateRecordsAndAnotherAgeOfDispatchAreAlarms(t *testing.T) {
	w := newWorld(t)
	w.tickAll()
	s := w.startWith(func(d *matcher.Deps) { d.Now = func() time.Time { return w.now().Add(4 * time.Second) } })
	v := dispatchable(w.at("v", 1, 1))
	v.DeviceTimeMS -= time.Hour.Milliseconds()
	v.SeenTimeMS = v.DeviceTimeMS
	w.report(v)
	s.seen("v", v.DeviceTimeMS)
	alarmtest.RaisedTo(t, s.registry, "starling_matcher_apply_lag_seconds", func(seconds float64) bool { return seconds >= 4 })
	alarmtest.Raised(t, s.registry, "starling_matcher_dispatch_age_disagreements_total")
}

// Where the stream time has jumped forward, vehicles that reported while the
// jump was not yet believed are refreshed only long after it: the start lies
// before them.
func TestRebuildStartsBeforeAJump(t *testing.T) {
	w := newWorld(t)
	p := partitionOf("a")
	const records = 9000 // more than are rather read than searched
	for range records {
		w.pass(100 * time.Millisecond)
		w.tick(p)
	}
	w.report(w.at("a", 1, 1)) // reports while the jump is pending
	for range records {
		tick := w.next(p)
		w.append(p, tick)
	}
	w.pass(24 * time.Hour)
	for range records {
		w.pass(time.Millisecond)
		w.tick(p)
	}
	s := w.startReady()
	_, err := get(s, "a")
	require.NoError(t, err)
	read := s.metric("records_total")
	require.Less(t, read, 2*records+5000.0, "the log was not read whole")
}
