package step_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker/step"
)

const (
	free = starlingv1.Availability_AVAILABILITY_FREE
	busy = starlingv1.Availability_AVAILABILITY_BUSY
	none = starlingv1.Availability_AVAILABILITY_UNSPECIFIED
)

// road steps a partition. Times are seconds after noon; ticks fill silences, as
// an owner appends them.
type road struct {
	t      *testing.T
	p      *step.Partition
	offset int64
	atS    float64
	result step.Result
}

func newRoad(t *testing.T) *road { return &road{t: t, p: newPartition(t)} }

// phone is one device session of the vehicle v.
type phone struct {
	road     *road
	session  uint64
	sequence int64
}

func (r *road) phone(session uint64) *phone { return &phone{road: r, session: session} }

func ms(s float64) int64 { return noonMS + int64(math.Round(s*1000)) }

// stamped steps one record with any stamp.
func (r *road) stamped(atS float64, key string, l wire.Location) step.Result {
	r.t.Helper()
	result, err := r.p.Step(step.Record{Offset: r.offset, AppendTimeMS: ms(atS), Key: []byte(key), Value: l.Append(nil)})
	require.NoError(r.t, err)
	require.NoError(r.t, result.Poison)
	r.offset++
	return result
}

// wait ticks every second until a time, and calls fn with what each tick does.
func (r *road) wait(untilS float64, fn func(step.Result)) {
	r.t.Helper()
	for ; r.atS+1 < untilS; r.atS++ {
		result := r.stamped(r.atS+1, "", wire.Location{Kind: wire.KindTick})
		if fn != nil {
			fn(result)
		}
	}
	r.atS = untilS
}

// send steps a report with the next sequence, at a time.
func (p *phone) send(atS float64, a starlingv1.Availability, fixesS ...float64) *wire.Track {
	p.road.t.Helper()
	p.sequence++
	return p.resend(p.sequence, atS, a, fixesS...)
}

func (p *phone) resend(sequence int64, atS float64, a starlingv1.Availability, fixesS ...float64) *wire.Track {
	p.road.t.Helper()
	report := wire.Report{SessionID: p.session, Sequence: sequence, Availability: a}
	for _, s := range fixesS {
		report.Fixes = append(report.Fixes, fixAt(s))
	}
	return p.sendReport(atS, report)
}

func (p *phone) sendReport(atS float64, report wire.Report) *wire.Track {
	p.road.t.Helper()
	p.road.wait(atS, nil)
	result := p.road.stamped(atS, "v", wire.Location{Kind: wire.KindReport, Report: report})
	var copied wire.Track
	require.NoError(p.road.t, copied.Unmarshal(result.Track.Append(nil)))
	p.road.result = result
	return &copied
}

func fixAt(s float64) wire.Fix {
	return wire.Fix{DeviceTimeMS: ms(s), LatDeg: 48.2 + s*1e-5, LonDeg: 16.37}
}

func counts(accepted, duplicate, conflict, late, setAside int64) wire.FixCounts {
	return wire.FixCounts{Accepted: accepted, Duplicate: duplicate, Conflict: conflict, Late: late, SetAside: setAside}
}

func TestAFixCountsOnceWhateverItsDevicesClockDoes(t *testing.T) {
	v := newRoad(t).phone(1)
	v.send(0, none, 100)
	v.send(1, none, 1)
	last := v.send(2, none, 100)
	require.Equal(t, counts(2, 1, 0, 0, 0), last.Live.Counts, "the clock jumped ahead and came back")
	require.Equal(t, ms(1), last.Live.DeviceTimeMS)
}

func TestStoredFixesSentAgainAreDuplicatesUnderAnySequenceAndSession(t *testing.T) {
	r := newRoad(t)
	v := r.phone(1)
	for s := range 60 {
		v.send(float64(s), none, float64(s))
	}
	late := v.send(60, none, -100, -101, -102)
	require.Equal(t, counts(0, 0, 0, 3, 0), late.Counts)
	again := v.send(61, none, -100, -101, -102)
	require.Equal(t, counts(0, 3, 0, 0, 0), again.Counts, "late fixes are points already")
	closed := v.send(62, none, 5, 6, 7)
	require.Equal(t, counts(0, 3, 0, 0, 0), closed.Counts, "behind the window, a new sequence")
	other := r.phone(2).send(63, none, 5, 6, 7, 50)
	require.Equal(t, counts(0, 4, 0, 0, 0), other.Counts, "a new session")
}

func TestWhatWasThereBeforeARebaseIsRecognisedAfterIt(t *testing.T) {
	v := newRoad(t).phone(1)
	v.send(0, none, 118)
	require.Equal(t, ms(1), v.send(1, none, 1).Live.DeviceTimeMS)
	require.True(t, v.road.result.Rebased)
	require.Equal(t, counts(0, 1, 0, 0, 0), v.send(2, none, 118).Counts)
	moved := fixAt(118)
	moved.LatDeg++
	v.sequence++
	conflict := v.sendReport(3, wire.Report{SessionID: 1, Sequence: v.sequence, Fixes: []wire.Fix{moved}})
	require.Equal(t, counts(0, 0, 1, 0, 0), conflict.Counts)
}

func TestACopyFromTheFifthSessionBackDoesNotTakeOver(t *testing.T) {
	r := newRoad(t)
	for session := range 5 {
		r.phone(uint64(session+1)).send(float64(session), free, float64(session))
	}
	copied := r.phone(1).send(6, starlingv1.Availability_AVAILABILITY_OFFLINE, 0)
	require.Equal(t, counts(0, 1, 0, 0, 0), copied.Counts)
	require.Equal(t, free, copied.Live.Availability)
	require.False(t, copied.Live.Conflicting)
}

func TestARepeatedConflictIsADuplicate(t *testing.T) {
	v := newRoad(t).phone(1)
	v.send(0, none, 0)
	for i := range int64(3) {
		moved := fixAt(0)
		moved.LonDeg++
		got := v.sendReport(float64(i+1), wire.Report{SessionID: 1, Sequence: 2 + i, Fixes: []wire.Fix{moved}})
		if i == 0 {
			require.Equal(t, counts(0, 0, 1, 0, 0), got.Counts)
		} else {
			require.Equal(t, counts(0, 1, 0, 0, 0), got.Counts)
		}
	}
}

func TestAMarkAsMockedThatIsFalseIsNoConflict(t *testing.T) {
	v := newRoad(t).phone(1)
	v.send(0, none, 0)
	marked := fixAt(0)
	marked.Has = wire.HasMocked
	got := v.sendReport(1, wire.Report{SessionID: 1, Sequence: 2, Fixes: []wire.Fix{marked}})
	require.Equal(t, counts(0, 1, 0, 0, 0), got.Counts, "in the window")
	got = v.sendReport(60, wire.Report{SessionID: 1, Sequence: 3, Fixes: []wire.Fix{marked}})
	require.Equal(t, counts(0, 1, 0, 0, 0), got.Counts, "and behind it")
	marked.Mocked = true
	got = v.sendReport(61, wire.Report{SessionID: 1, Sequence: 4, Fixes: []wire.Fix{marked}})
	require.Equal(t, counts(0, 0, 1, 0, 0), got.Counts, "a true one is")
}

func TestRecognitionEndsBehindTheWindowAndTheRememberedFixes(t *testing.T) {
	v := newRoad(t).phone(1)
	remembered := step.DefaultSettings().RememberFixes
	n := 31 + remembered + 1 // the window holds 31 at 1 Hz
	for s := range n {
		v.send(float64(s), none, float64(s))
	}
	require.Equal(t, counts(0, 1, 0, 0, 0), v.resend(int64(n+1), float64(n), none, 1).Counts)
	require.Equal(t, counts(0, 0, 0, 1, 0), v.resend(int64(n+2), float64(n), none, 0).Counts, "the oldest is forgotten")
	require.Equal(t, counts(0, 1, 0, 0, 0), v.resend(int64(n), float64(n), none, 0.5).Counts, "its session and sequence are not")
}

func TestAStampOfEightDaysForSixSecondsDoesNothing(t *testing.T) {
	r := newRoad(t)
	v := r.phone(1)
	const days = 8 * 24 * 3600
	v.send(0, free, 0)
	for s := range 6 {
		s := float64(s)
		v.sequence++
		got := r.stamped(days+s, "v", wire.Location{Kind: wire.KindReport, Report: wire.Report{SessionID: 1, Sequence: v.sequence, Fixes: []wire.Fix{fixAt(1 + s)}}})
		require.True(t, got.JumpPending)
		require.Equal(t, ms(0), got.Track.ClockMS)
		require.Equal(t, ms(days+s), got.Track.AppendTimeMS)
		require.Equal(t, counts(1, 0, 0, 0, 0), got.Track.Counts)
		require.Empty(t, got.Track.FinalPoints)
	}
	after := v.send(7, none, 7)
	require.False(t, r.result.JumpPending)
	require.Equal(t, counts(8, 0, 0, 0, 0), after.Live.Counts)
	require.Empty(t, after.FinalPoints)
	require.True(t, after.Live.Dispatchable)
	require.Zero(t, after.Live.DeviceClockAheadMS, "nothing was learned of the device meanwhile")
}

func TestABrokenStampThreeHoursBackDoesNothing(t *testing.T) {
	r := newRoad(t)
	v := r.phone(1)
	v.send(0, free, 0)
	v.sequence++
	got := r.stamped(-3*3600, "v", wire.Location{Kind: wire.KindReport, Report: wire.Report{SessionID: 1, Sequence: v.sequence, Fixes: []wire.Fix{fixAt(1)}}})
	require.Equal(t, ms(0), got.Track.ClockMS)
	require.Equal(t, counts(1, 0, 0, 0, 0), got.Track.Counts)
	require.Equal(t, counts(1, 0, 0, 0, 0), v.send(2, none, 2).Counts)
}

func TestStampsThatStayAreBelievedInBothDirections(t *testing.T) {
	for name, jumpS := range map[string]float64{"forward": 3 * 3600, "back": -3 * 3600} {
		t.Run(name, func(t *testing.T) {
			r := newRoad(t)
			v := r.phone(1)
			v.send(0, free, 0)
			believed := 0
			for s := 1.0; s <= 31; s++ {
				v.sequence++
				got := r.stamped(jumpS+s, "v", wire.Location{Kind: wire.KindReport, Report: wire.Report{SessionID: 1, Sequence: v.sequence, Fixes: []wire.Fix{fixAt(s)}}})
				require.Equal(t, counts(1, 0, 0, 0, 0), got.Track.Counts, "second %v", s)
				if got.BelievedMS != 0 {
					believed++
					require.Equal(t, ms(jumpS+31), got.Track.ClockMS)
					require.Equal(t, ms(jumpS+31), got.Track.Live.SeenTimeMS)
				}
			}
			require.Equal(t, 1, believed)
			r.atS = jumpS + 31
			ended := 0
			r.wait(jumpS+31+29, func(got step.Result) { ended += len(got.Track.Fired) })
			require.Zero(t, ended, "its window is open for as long as after any report")
			r.wait(jumpS+31+32, func(got step.Result) { ended += len(got.Track.Fired) })
			require.Equal(t, 1, ended)
		})
	}
}

func TestOneReportDoesNotFreezeAVehicle(t *testing.T) {
	r := newRoad(t)
	honest, stranger := r.phone(1), r.phone(2)
	honest.send(0, free, 0)
	for s := 1.0; s < 300; s++ {
		if int(s)%30 == 5 {
			got := stranger.send(s, busy, s+119)
			require.Equal(t, counts(0, 0, 0, 0, 1), got.Counts)
			require.Equal(t, []wire.Fix{fixAt(s + 119)}, got.SetAsideFixes)
		}
		got := honest.send(s, none, s)
		require.Equal(t, counts(1, 0, 0, 0, 0), got.Counts)
		require.Equal(t, ms(s), got.Live.DeviceTimeMS)
		require.Equal(t, free, got.Live.Availability)
	}
}

func TestWhileTwoPhonesReportTheVehicleIsConflicting(t *testing.T) {
	r := newRoad(t)
	former, newer := r.phone(1), r.phone(2)
	former.send(0, free, 0)
	got := newer.send(1, none, 1)
	require.False(t, got.Live.Conflicting, "a phone that takes over is no conflict")
	require.True(t, got.Live.Dispatchable)
	got = former.send(2, none, 2)
	require.Equal(t, counts(1, 0, 0, 0, 0), got.Counts, "still of the time of the change")
	for s := 7.0; s < 60; s++ {
		got = former.send(s, busy, s)
		require.Equal(t, counts(0, 0, 0, 0, 1), got.Counts, "second %v", s)
		require.True(t, got.Live.Conflicting)
		require.False(t, got.Live.Dispatchable)
		got = newer.send(s, none, s+0.5)
		require.Equal(t, counts(1, 0, 0, 0, 0), got.Counts)
		require.Equal(t, ms(s+0.5), got.Live.DeviceTimeMS)
		require.Equal(t, free, got.Live.Availability)
	}
	ended := false
	r.wait(92, func(got step.Result) {
		for _, d := range got.Track.Fired {
			ended = ended || d.HasLive && !d.Live.Conflicting
		}
	})
	require.True(t, ended, "the end of the conflict is published")
}

func TestAvailabilityReturnsOnlyByANewChange(t *testing.T) {
	r := newRoad(t)
	former, newer := r.phone(1), r.phone(2)
	former.send(0, free, 0)
	newer.send(1, busy, 1)
	got := former.send(32, none, 32)
	require.Equal(t, counts(1, 0, 0, 0, 0), got.Counts, "the newer one is silent")
	require.Equal(t, none, got.Live.Availability)
	require.False(t, got.Live.Dispatchable)
	got = former.send(33, free, 33)
	require.Equal(t, free, got.Live.Availability)
	require.True(t, got.Live.Dispatchable)
}

func TestAPhoneThatStampsAheadGivesWayToTheFormerOne(t *testing.T) {
	r := newRoad(t)
	former, newer := r.phone(1), r.phone(2)
	former.send(0, free, 0)
	newer.send(1, none, 1)
	newer.send(2, none, 62)
	got := former.send(3, none, 3)
	require.Equal(t, counts(1, 0, 0, 0, 0), got.Counts)
	got = newer.send(4, none, 64)
	require.Equal(t, counts(0, 0, 0, 0, 1), got.Counts)
	require.True(t, got.Live.Conflicting)
	require.Equal(t, ms(3), got.Live.DeviceTimeMS)
}

func TestAFixStampedAheadHoldsTheVehicleForFiveSecondsAtMost(t *testing.T) {
	for _, ahead := range []float64{4, 5, 6, 50, 119, 3600} {
		v := newRoad(t).phone(1)
		v.send(0, none, 0)
		for s := 1.0; s < 60; s++ {
			fix := s
			if s == 10 {
				fix = s + ahead + 0.25
			}
			got := v.send(s, none, fix)
			if s > 15 {
				require.Equal(t, ms(s), got.Live.DeviceTimeMS, "%v s ahead, second %v", ahead, s)
			}
			require.Less(t, got.Live.DeviceTimeMS, ms(s+5.5))
		}
	}
}

func TestADeviceWhoseClockIsAheadIsFollowedAndItsAgeIsHonest(t *testing.T) {
	v := newRoad(t).phone(1)
	v.send(0, free, 0)
	var got *wire.Track
	for s := 1.0; s < 20; s++ {
		got = v.send(s, none, s+40)
		if s >= 3 {
			require.Equal(t, counts(1, 0, 0, 0, 0), got.Counts, "three in a row are believed")
		}
	}
	require.Equal(t, int64(40_000), got.Live.DeviceClockAheadMS)
	require.True(t, got.Live.Dispatchable)
	stale := math.Inf(1)
	v.road.wait(100, func(r step.Result) {
		for _, d := range r.Track.Fired {
			if d.HasLive && !d.Live.Dispatchable {
				stale = min(stale, float64(r.Track.ClockMS-noonMS)/1000)
			}
		}
	})
	require.Equal(t, 19.0+61, stale, "60 s after the last report, in the second of its timer")
}

func TestADeviceWhoseClockIsBehindIsNotTooOld(t *testing.T) {
	v := newRoad(t).phone(1)
	var got *wire.Track
	for s := 0.0; s <= 30; s++ {
		got = v.send(s, free, s-100)
	}
	require.Equal(t, int64(-100_000), got.Live.DeviceClockAheadMS)
	require.True(t, got.Live.Dispatchable)
}

func TestABacklogAtItsRecordedPaceIsNoClockSetBack(t *testing.T) {
	v := newRoad(t).phone(1)
	v.send(0, none, 0)
	for s := 600.0; s < 890; s++ {
		fixes := []float64{s - 590}
		if int(s)%20 == 0 {
			fixes = append(fixes, s) // a live one now and then
		}
		got := v.send(s, none, fixes...)
		require.False(t, v.road.result.Rebased)
		require.GreaterOrEqual(t, got.Live.DeviceTimeMS, ms(math.Floor(s/20)*20))
	}
}

func TestAClockThatWasSetBackIsFollowed(t *testing.T) {
	v := newRoad(t).phone(1)
	v.send(0, none, 0)
	followed := math.Inf(1)
	for s := 1.0; s < 400; s++ {
		if got := v.send(s, none, s-3600); got.Counts.Accepted > 0 {
			followed = min(followed, s)
		}
	}
	require.Equal(t, 301.0, followed)
}

func TestWhatIsDerivedIsNotReported(t *testing.T) {
	v := newRoad(t).phone(1)
	for i, a := range []starlingv1.Availability{starlingv1.Availability_AVAILABILITY_RESERVED, starlingv1.Availability_AVAILABILITY_ON_RIDE} {
		got := v.send(float64(i), a, float64(i))
		require.Equal(t, busy, got.Live.Availability)
		require.Equal(t, none, got.Live.DerivedAvailability)
		require.False(t, got.Live.Dispatchable)
	}
	require.True(t, v.send(3, free).Live.Dispatchable)
}

func TestWithoutAPositionNothingIsDispatchable(t *testing.T) {
	require.False(t, newRoad(t).phone(1).send(0, free).Live.Dispatchable)
}

func TestSetAsideTimesOfAStrangerAreNotTakenFromTheHonestPhone(t *testing.T) {
	r := newRoad(t)
	honest, stranger := r.phone(1), r.phone(2)
	honest.send(0, none, 0)
	var future []float64
	for s := 10.0; s < 70; s++ {
		future = append(future, s+0.0)
	}
	for i := range future {
		f := fixAt(future[i])
		f.LonDeg = 20
		stranger.sequence++
		stranger.sendReport(1, wire.Report{SessionID: 2, Sequence: stranger.sequence, Fixes: []wire.Fix{f}})
	}
	for s := 2.0; s < 70; s++ {
		require.Equal(t, counts(1, 0, 0, 0, 0), honest.send(s, none, s).Counts, "second %v", s)
	}
}

func TestCountsOfNotableVehiclesFollowTheVehicles(t *testing.T) {
	r := newRoad(t)
	former, newer := r.phone(1), r.phone(2)
	former.send(0, free, 100)
	require.Equal(t, 1, r.p.ClocksOff())
	newer.send(1, none, 1)
	require.Equal(t, 0, r.p.ClocksOff())
	require.Equal(t, 0, r.p.ConflictingVehicles())
	former.send(8, none, 8)
	require.Equal(t, 1, r.p.ConflictingVehicles())
	r.wait(60, nil)
	require.Equal(t, 0, r.p.ConflictingVehicles())
}
