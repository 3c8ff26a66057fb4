package step

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// seedVehicle returns a vehicle with something in every field.
func seedVehicle(t testing.TB) *vehicle {
	p, err := NewPartition(DefaultSettings(), 1)
	require.NoError(t, err)
	l := wire.Location{Kind: wire.KindReport, Report: wire.Report{
		SessionID: 1 << 63, Sequence: 9, Availability: starlingv1.Availability_AVAILABILITY_FREE,
		HasAttributes: true, Attributes: wire.Attributes{Type: "van", Seats: 4, Tags: []string{"a", ""}},
		Fixes: []wire.Fix{
			{DeviceTimeMS: 1000, LatDeg: 30.27, LonDeg: -97.74},
			{DeviceTimeMS: 2000, LatDeg: math.Pi, LonDeg: math.Copysign(0, -1), Has: wire.HasAccuracy | wire.HasSpeed | wire.HasHeading | wire.HasAltitude | wire.HasMocked, AccuracyM: 3, SpeedMPS: 4, HeadingDeg: 5, AltitudeM: 6, Mocked: true},
		},
	}}
	rec := report(0, 3000, "v", 1)
	rec.Value = l.Append(nil)
	r, err := p.Step(rec)
	require.NoError(t, err)
	require.NoError(t, r.Poison)
	return p.vehicles["v"]
}

// state is v without what is not state.
func state(v *vehicle) vehicle {
	c := *v
	c.live, c.liveValid, c.lastDistance, c.dirty, c.timerSlot = c.base, false, 0, false, noSlot
	c.cell, c.savepoints = (&vehicle{}).cell, nil
	return c
}

func TestVehicleCodecKeepsEverything(t *testing.T) {
	v := seedVehicle(t)
	v.clock.prevSettled, v.clock.agreedMS, v.sessions[0].untilMS = true, -7, 2500
	encoded := appendVehicle(nil, v)
	decoded, err := decodeVehicle("v", encoded)
	require.NoError(t, err)
	require.Equal(t, state(v), state(decoded))
	require.Equal(t, encoded, appendVehicle(nil, decoded))
	require.True(t, math.Signbit(decoded.window.at(1).LonDeg))
	for n := range encoded {
		_, err := decodeVehicle("v", encoded[:n])
		require.Error(t, err, "cut off at %d", n)
	}
	_, err = decodeVehicle("v", append(encoded, 0))
	require.ErrorContains(t, err, "left over")
}

func TestFixCodecLosesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		coordinate := rapid.OneOf(rapid.Float64Range(-180, 180), rapid.Map(rapid.IntRange(-1_800_000_000, 1_800_000_000), func(e7 int) float64 { return float64(e7) / 1e7 }))
		var fixes []wire.Fix
		for range rapid.IntRange(0, 20).Draw(t, "fixes") {
			f := wire.Fix{
				DeviceTimeMS: rapid.Int64Range(1, maxDeviceTimeMS).Draw(t, "time"),
				LatDeg:       coordinate.Draw(t, "lat"), LonDeg: coordinate.Draw(t, "lon"),
				Has:    wire.Has(rapid.IntRange(0, 31).Draw(t, "has")),
				Mocked: rapid.Bool().Draw(t, "mocked"),
			}
			for i, value := range optional(&f) {
				if f.Has&(1<<i) != 0 {
					*value = rapid.Float32().Draw(t, "optional")
				}
			}
			fixes = append(fixes, f)
		}
		window := ordered(fixes)
		r := reader{rest: appendFixes(nil, &window)}
		require.Equal(t, fixes, append([]wire.Fix(nil), r.fixes()...))
		require.NoError(t, r.end())
	})
}

// A decoder answers any bytes with a vehicle that encodes and decodes to itself
// and that the step can bear, or with an error.
func FuzzDecodeVehicle(f *testing.F) {
	f.Add(appendVehicle(nil, seedVehicle(f)))
	f.Add([]byte{stateVersion})
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := decodeVehicle("v", b)
		if err != nil {
			return
		}
		again, err := decodeVehicle("v", appendVehicle(nil, v))
		require.NoError(t, err)
		require.Equal(t, appendVehicle(nil, v), appendVehicle(nil, again))
	})
}

func FuzzDecodeHeader(f *testing.F) {
	f.Add(appendHeader(nil, header{stepVersion: Newest, epoch: 1, streamMS: 2, offset: 3, settings: DefaultSettings().Encode()}))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeHeader(b)
		if err != nil {
			return
		}
		again, err := decodeHeader(appendHeader(nil, h))
		require.NoError(t, err)
		require.Equal(t, h, again)
	})
}

// The step takes any bytes as a record: a track or a dead letter, no panic.
func FuzzStep(f *testing.F) {
	f.Add(report(0, 1, "a", 1, 1, 2, 3).Value)
	f.Add(tickValue)
	f.Add((&wire.Location{Kind: wire.KindVersionSwitch, Switch: wire.VersionSwitch{StepVersion: 1, Settings: DefaultSettings().Encode()}}).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := NewPartition(DefaultSettings(), 1)
		require.NoError(t, err)
		for i := range int64(2) {
			rec := report(i, 1000+i, "a", 1)
			rec.Value = b
			r, err := p.Step(rec)
			if err != nil {
				require.ErrorAs(t, err, new(*UnknownVersionError))
				return
			}
			if r.Poison != nil {
				require.NotContains(t, r.Poison.Error(), "panicked")
			}
		}
	})
}
