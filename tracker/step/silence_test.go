package step_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker/step"
)

// A silent vehicle is stored when its window has closed and when it is no longer
// dispatchable; that its view is published again stores nothing.
func TestASilentVehicleIsNotStoredAgain(t *testing.T) {
	r := newRoad(t)
	p := r.phone(1)
	p.send(0, free, 0)
	p.send(1, none, 1)
	stored, published := 0, 0
	r.wait(4*3600, func(result step.Result) {
		published += len(result.Track.Fired)
		if r.offset%10 == 0 {
			stored += len(r.p.Snapshot(nil, nil).Changes) - 1 // one is the partition's own
		}
	})
	require.Equal(t, 3, stored, "its reports; its window; that it is too old to be dispatched")
	// After 30 s and then every 60 s; and when it is too old.
	require.Equal(t, 1+(4*3600-30)/60+1, published)
}

// Between two publications of a silent vehicle lies at most repeat_max_interval,
// whatever happens to the partition: a matcher reads so much and a little more.
func TestASilentVehicleIsPublishedInTime(t *testing.T) {
	r := newRoad(t)
	cab := r.phone(1)
	cab.send(0, busy, 0)
	cab.send(1, none, 1)
	kept, last := map[string][]byte{}, 1.0
	most := float64(step.DefaultSettings().RepeatMaxIntervalMS) / 1000
	r.wait(5000, func(result step.Result) {
		for _, d := range result.Track.Fired {
			if d.HasLive {
				require.LessOrEqual(t, r.atS+1-last, most)
				last = r.atS + 1
			}
		}
		if r.offset%7 == 0 {
			r.p = restartPartition(t, r.p, kept)
		}
	})
	require.InDelta(t, 5000, last, most)
}

// A switch to other settings may make other views of the same vehicles, so silent
// ones are published again at once.
func TestASwitchPublishesSilentVehiclesAgain(t *testing.T) {
	r := newRoad(t)
	cab := r.phone(1)
	cab.send(0, busy, 0)
	cab.send(1, none, 1)
	r.wait(1000, nil)
	settings := step.DefaultSettings()
	settings.H3Resolution = 7
	l, err := step.NewVersionSwitch(step.Newest, settings)
	require.NoError(t, err)
	result := r.stamped(1000, "", l)
	require.Len(t, result.Track.Fired, 1)
	require.True(t, result.Track.Fired[0].HasLive)
	require.Empty(t, r.stamped(1001, "", l).Track.Fired, "a repetition changes nothing")
}

// 5 strangers a second for an hour neither drive out a vehicle that is known
// nor keep it from reporting, and the partition never knows more than it may.
func TestStrangersDoNotDriveOutAVehicle(t *testing.T) {
	settings := step.DefaultSettings()
	settings.MaxVehicles = 500
	p, err := step.NewPartition(settings, 1)
	require.NoError(t, err)
	r := &road{t: t, p: p}
	cab := r.phone(1)
	var refused, taken int
	for s := range 3600 {
		track := cab.send(float64(s), free, float64(s))
		require.Equal(t, counts(1, 0, 0, 0, 0), track.Counts)
		require.EqualValues(t, s+1, track.Live.Counts.Accepted, "it was never forgotten")
		for i := range 5 {
			report := wire.Report{SessionID: 9, Sequence: 1, Fixes: []wire.Fix{fixAt(float64(s))}}
			result := r.stamped(float64(s), fmt.Sprint("x-", s, "-", i), wire.Location{Kind: wire.KindReport, Report: report})
			switch result.Track.Refusal {
			case starlingv1.Refusal_REFUSAL_PARTITION_FULL:
				refused++
				require.False(t, result.Track.HasLive)
				require.Equal(t, wire.FixCounts{Refused: 1}, result.Track.Counts)
			default:
				taken++
			}
		}
		require.LessOrEqual(t, p.Vehicles(), settings.MaxVehicles)
	}
	require.Equal(t, 18_000, refused+taken)
	require.InDelta(t, 499*6, taken, 499, "a place is free again after 10 minutes")
}
