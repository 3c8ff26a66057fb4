package step_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/schemas/wire"
)

func TestOldFixesOfABacklogAreNoClockThatIsBehind(t *testing.T) {
	r := newRoad(t)
	v := r.phone(1)
	first := v.send(0, free, -100)
	require.Zero(t, first.Live.DeviceClockAheadMS, "the first report of a vehicle is 100 s old")
	require.False(t, first.Live.Dispatchable)
	for s := 1; s < 400; s++ {
		v.send(float64(s), none, float64(s))
	}
	// After a long silence the queue is sent in order, and the network breaks again.
	for s := range 3 {
		old := v.send(1100+float64(s), none, 1000+float64(s))
		require.Zero(t, old.Live.DeviceClockAheadMS)
		require.False(t, old.Live.Dispatchable, "its position is 100 s old")
	}
	require.Zero(t, v.send(1103, none, 1028).Live.DeviceClockAheadMS)
	for s := range 25 { // three times as fast as it was recorded
		old := v.send(1120+float64(s), none, 1030+3*float64(s))
		require.Zero(t, old.Live.DeviceClockAheadMS, s)
	}
	require.True(t, v.send(1150, none, 1150).Live.Dispatchable)
}

func TestAClockThatIsSteadilyBehindIsLearned(t *testing.T) {
	v := newRoad(t).phone(1)
	for s := range 10 {
		require.Zero(t, v.send(float64(s), free, float64(s)-90).Live.DeviceClockAheadMS, s)
	}
	settled := v.send(10, free, 10-90)
	require.Equal(t, int64(-90_000), settled.Live.DeviceClockAheadMS)
	require.True(t, settled.Live.Dispatchable)
	for s := 11; s < 1000; s += 10 {
		require.Equal(t, int64(-90_000), v.send(float64(s), free, float64(s)-90).Live.DeviceClockAheadMS, s)
	}
}

func TestAfterARebaseAFormerPhoneIsStillSetAside(t *testing.T) {
	r := newRoad(t)
	former, v := r.phone(2), r.phone(1)
	former.send(0, free, 0)
	v.send(1, free, 1)
	for s := 2; s < 400; s++ {
		v.send(float64(s), none, float64(s)-3600)
	}
	require.Equal(t, ms(400-3600), v.send(400, none, 400-3600).Live.DeviceTimeMS, "followed at its own time")
	other := former.send(410, none, 410-3600)
	require.Equal(t, counts(0, 0, 0, 0, 1), other.Counts, "it is no fix of before the takeover")
	require.True(t, other.Live.Conflicting)
}

func TestAResentQueueInANewSessionIsNoSecondPhone(t *testing.T) {
	r := newRoad(t)
	v := r.phone(1)
	for s := range 20 {
		v.send(float64(s), free, float64(s))
	}
	again := r.phone(2).send(20, free, 15, 16, 17, 18, 19)
	require.Equal(t, counts(0, 5, 0, 0, 0), again.Counts)
	require.False(t, again.Live.Conflicting)
	other := r.phone(3).sendReport(21, wire.Report{SessionID: 3, Sequence: 1, Fixes: []wire.Fix{{DeviceTimeMS: ms(19), LatDeg: 50, LonDeg: 16}}})
	require.Equal(t, counts(0, 0, 1, 0, 0), other.Counts)
	require.True(t, other.Live.Conflicting, "another place at the same time is another phone")
}

func TestStrangersThatOpenOneAfterAnotherDoNotHideTheConflict(t *testing.T) {
	r := newRoad(t)
	v := r.phone(1)
	for s := range 20 {
		v.send(float64(s), busy, float64(s))
	}
	for s := 20; s < 50; s++ {
		r.phone(uint64(s)).send(float64(s)+0.1, free, float64(s)+0.1)
		honest := v.send(float64(s)+0.5, none, float64(s)+0.5)
		require.Equal(t, s >= 25, honest.Live.Conflicting, s)
	}
	// What the first phone did not get through before it was handed over still counts.
	require.Equal(t, counts(1, 0, 0, 0, 0), v.send(50, none, 22.25).Counts)
	require.Equal(t, counts(0, 0, 0, 0, 1), v.send(51, none, 27.25).Counts)
}
