package step

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/gpsfilter"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
)

// trap is a filter that panics at one device time.
type trap struct {
	Filter
	atMS int64
}

func (f trap) Step(s *gpsfilter.State, fix gpsfilter.Fix) gpsfilter.Estimate {
	if fix.TimeMS == f.atMS {
		panic("sprung")
	}
	return f.Filter.Step(s, fix)
}

func report(offset, streamMS int64, vehicle string, sequence int64, timesMS ...int64) Record {
	r := wire.Report{SessionID: 1, Sequence: sequence}
	for _, ms := range timesMS {
		r.Fixes = append(r.Fixes, wire.Fix{
			DeviceTimeMS: ms, LatDeg: 30, LonDeg: -97, AccuracyM: 5, SpeedMPS: 1, HeadingDeg: 90, AltitudeM: 200, Mocked: true,
			Has: wire.HasAccuracy | wire.HasSpeed | wire.HasHeading | wire.HasAltitude | wire.HasMocked,
		})
	}
	return Record{Offset: offset, AppendTimeMS: streamMS, Key: []byte(vehicle), Value: (&wire.Location{Kind: wire.KindReport, Report: r}).Append(nil)}
}

var tickValue = (&wire.Location{Kind: wire.KindTick}).Append(nil)

func newTestPartition(t *testing.T) *Partition {
	p, err := NewPartition(DefaultSettings(), 1)
	require.NoError(t, err)
	return p
}

// A record that makes the step panic leaves its vehicle as it was, wherever in
// the step that happens: the partition goes on as if the record had been a tick.
func TestPanicLeavesTheVehicleAsItWas(t *testing.T) {
	good := []Record{
		report(0, 100_000, "a", 1, 91_000, 92_000, 93_000),
		report(1, 101_000, "a", 2, 94_000),
	}
	for name, bad := range map[string]Record{
		"in order":     report(2, 102_000, "a", 3, 95_000, 99_000),
		"out of order": report(2, 102_000, "a", 3, 93_500, 99_000),
		"known before": report(2, 102_000, "b", 1, 98_000, 99_000),
	} {
		t.Run(name, func(t *testing.T) {
			hurt, whole := newTestPartition(t), newTestPartition(t)
			hurt.filter = trap{hurt.filter, 99_000}
			for _, rec := range good {
				_, err := hurt.Step(rec)
				require.NoError(t, err)
				_, err = whole.Step(rec)
				require.NoError(t, err)
			}
			r, err := hurt.Step(bad)
			require.NoError(t, err)
			require.ErrorContains(t, r.Poison, "offset 2: step of vehicle")
			require.ErrorContains(t, r.Poison, "sprung")
			require.Equal(t, &wire.Track{Epoch: 1, SourceOffset: 2, PreviousSourceOffset: 1, ClockMS: 102_000,
				Points: r.Track.Points[:0], FinalPoints: r.Track.FinalPoints[:0], LateFixes: r.Track.LateFixes[:0], Live: r.Track.Live}, r.Track)

			tick := Record{Offset: 2, AppendTimeMS: 102_000, Value: tickValue}
			_, err = whole.Step(tick)
			require.NoError(t, err)
			next := report(3, 103_000, "a", 3, 96_000)
			after, err := hurt.Step(next)
			require.NoError(t, err)
			want, err := whole.Step(next)
			require.NoError(t, err)
			require.Equal(t, want.Track.Append(nil), after.Track.Append(nil))
			require.Equal(t, whole.Snapshot(nil, nil).Changes, hurt.Snapshot(nil, nil).Changes)
		})
	}
}

// fuse is a filter that panics once, after so many steps. One that is late returns
// from then on what is no position, at which the step panics when all is inserted.
type fuse struct {
	Filter
	left int
	late bool
}

func (f *fuse) Step(s *gpsfilter.State, fix gpsfilter.Fix) gpsfilter.Estimate {
	if f.left--; f.left == 0 && !f.late {
		panic("blown")
	}
	e := f.Filter.Step(s, fix)
	if f.late && f.left <= 0 {
		e.LatDeg = math.NaN()
	}
	return e
}

// The same wherever the window is: closing, growing or merged into.
func TestPanicsAnywhereLeaveTheVehicleAsItWas(t *testing.T) {
	const streamMS = 1_000_000
	tick := Record{AppendTimeMS: streamMS, Value: tickValue}
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		s := DefaultSettings()
		s.WindowMS, s.WindowMaxFixes, s.RememberFixes = 10_000, 5+rng.IntN(50), rng.IntN(20)
		hurt, err := NewPartition(s, 1)
		require.NoError(t, err)
		whole, err := NewPartition(s, 1)
		require.NoError(t, err)
		blown := &fuse{Filter: hurt.filter, late: seed%2 == 1}
		hurt.filter = blown
		panics, clock := 0, int64(streamMS-110_000)
		for i := int64(0); clock < streamMS; i++ {
			clock += int64(rng.IntN(3)) * 500
			var times []int64
			for range 1 + rng.IntN(8) {
				times = append(times, clock-int64(rng.IntN(2)*rng.IntN(40))*250)
			}
			rec := report(i, streamMS, "a", i+1, times...)
			blown.left = 1 + rng.IntN(25)
			r, err := hurt.Step(rec)
			require.NoError(t, err)
			same := rec
			if r.Poison != nil {
				panics++
				same = tick
				same.Offset = i
			}
			want := requireStep(t, whole, same)
			if r.Poison == nil {
				require.Equal(t, want.Track.Append(nil), r.Track.Append(nil), "seed %d, record %d", seed, i)
			}
			if v := whole.vehicles["a"]; v != nil {
				require.Equal(t, appendVehicle(nil, v), appendVehicle(nil, hurt.vehicles["a"]), "seed %d, record %d", seed, i)
			}
		}
		require.Greater(t, panics, 10, "seed %d", seed)
	}
}

// A vehicle whose window can't be closed loses its track and nothing else, and
// its timer does not come back.
func TestPanicInATimerDropsTheTrack(t *testing.T) {
	p := newTestPartition(t)
	_, err := p.Step(report(0, 100_000, "a", 1, 98_500, 99_000))
	require.NoError(t, err)
	_, err = p.Step(report(1, 100_000, "b", 1, 98_000))
	require.NoError(t, err)
	p.filter = trap{p.filter, 98_500}
	r, err := p.Step(Record{Offset: 2, AppendTimeMS: 130_000, Value: tickValue})
	require.NoError(t, err)
	require.ErrorContains(t, r.Poison, "fire the timer of vehicle a: sprung")
	require.Len(t, r.Track.Fired, 2)
	require.Zero(t, r.Track.Fired[0].Live.DeviceTimeMS, "a has no position any more")
	require.Equal(t, int64(2), r.Track.Fired[0].Live.Counts.Accepted)
	require.Len(t, r.Track.Fired[1].FinalPoints, 1, "b is fired as usual")
	r, err = p.Step(Record{Offset: 3, AppendTimeMS: 131_000, Value: tickValue})
	require.NoError(t, err)
	require.NoError(t, r.Poison)
	require.Empty(t, r.Track.Fired)
}

// Whatever reports and timers do, a record of `tracks` stays within its limit.
func TestRecordsStayWithinTheLimit(t *testing.T) {
	const vehicles, noonMS = 100, 1_767_268_800_000
	tracks, _ := topics.ByName(topics.Tracks)
	p := newTestPartition(t)
	times := func(from int64, n int) []int64 {
		ms := make([]int64, n)
		for i := range ms {
			ms[i] = noonMS + from + int64(i)
		}
		return ms
	}
	var offset int64
	for i := range int64(vehicles) {
		_, err := p.Step(report(offset, noonMS, fmt.Sprintf("v-%d", i), 1, times(-10_000, 1024)...))
		require.NoError(t, err)
		offset++
	}
	// The largest report pushes its whole window out while all other timers expire.
	fired, records := 0, 0
	_, err := p.Step(Record{Offset: offset, AppendTimeMS: noonMS + 6*3_600_000 - p.settings.ClockSettleMS, Value: tickValue})
	require.NoError(t, err)
	offset++
	for fired < vehicles-1 {
		rec := Record{Offset: offset, AppendTimeMS: noonMS + 6*3_600_000, Value: tickValue}
		if records == 0 { // by which the jump is believed
			rec = report(offset, noonMS+6*3_600_000, "v-0", 2, times(6*3_600_000, maxReportFixes)...)
		}
		r, err := p.Step(rec)
		require.NoError(t, err)
		require.NoError(t, r.Poison)
		require.Less(t, len(r.Track.Append(nil)), tracks.MaxRecordBytes)
		for _, d := range r.Track.Fired {
			require.Len(t, d.FinalPoints, 1024)
			fired++
		}
		offset++
		records++
		require.Less(t, records, vehicles, "it comes to an end")
	}
	require.Greater(t, records, vehicles/maxFired+1, "it takes more records than the number of timers alone asks for")
}

// What ingest would never write is refused as a whole, with the rule.
func TestStepRefusesWhatItCouldNotBear(t *testing.T) {
	fix := func(change func(*wire.Fix)) wire.Report {
		f := wire.Fix{DeviceTimeMS: 1000, LatDeg: 1, LonDeg: 1}
		change(&f)
		return wire.Report{SessionID: 1, Sequence: 1, Fixes: []wire.Fix{f}}
	}
	many := make([]string, maxTags+1)
	for want, r := range map[string]wire.Report{
		"session_id is 0":                    {Sequence: 1},
		"sequence is 0":                      {SessionID: 1},
		"4097 fixes":                         {SessionID: 1, Sequence: 1, Fixes: make([]wire.Fix, maxReportFixes+1)},
		"fix 0: device_time_ms is 0":         fix(func(f *wire.Fix) { f.DeviceTimeMS = 0 }),
		"device_time_ms is 253402300800000":  fix(func(f *wire.Fix) { f.DeviceTimeMS = maxDeviceTimeMS + 1 }),
		"(90.5, 1) is no coordinate":         fix(func(f *wire.Fix) { f.LatDeg = 90.5 }),
		"(NaN, 1) is no coordinate":          fix(func(f *wire.Fix) { f.LatDeg = math.NaN() }),
		"(1, -180.5) is no coordinate":       fix(func(f *wire.Fix) { f.LonDeg = -180.5 }),
		"altitude is not finite":             fix(func(f *wire.Fix) { f.Has, f.AltitudeM = wire.HasAltitude, float32(math.Inf(1)) }),
		"65 tags":                            {SessionID: 1, Sequence: 1, HasAttributes: true, Attributes: wire.Attributes{Tags: many}},
		"a text of 257 bytes, must have at ": {SessionID: 1, Sequence: 1, HasAttributes: true, Attributes: wire.Attributes{Type: strings.Repeat("x", 257)}},
	} {
		p := newTestPartition(t)
		rec := Record{AppendTimeMS: 1000, Key: []byte("a"), Value: (&wire.Location{Kind: wire.KindReport, Report: r}).Append(nil)}
		result, err := p.Step(rec)
		require.NoError(t, err)
		require.ErrorContains(t, result.Poison, want)
		require.Zero(t, p.Vehicles())
	}
	for _, key := range []string{"", headerKey, "a b", strings.Repeat("x", 65)} {
		p := newTestPartition(t)
		rec := report(0, 1000, key, 1, 1000)
		result, err := p.Step(rec)
		require.NoError(t, err)
		require.ErrorContains(t, result.Poison, "key: a vehicle id")
	}
}
