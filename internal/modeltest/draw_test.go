package modeltest

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
	trackerstep "github.com/starling-fleet/starling/tracker/step"
)

// drawFix draws what a device sees: mostly the present second, sometimes an
// earlier one, the same again, something else at the same time, or nonsense.
func (w *world) drawFix(d *device) wire.Fix {
	nowMS := time.Now().Add(d.skew).UnixMilli() / 200 * 200
	if d.lag > 0 && w.rng.IntN(6) > 0 {
		nowMS -= d.lag.Milliseconds()
	}
	f := wire.Fix{DeviceTimeMS: nowMS}
	if w.rng.IntN(3) == 0 {
		f.DeviceTimeMS -= int64(pick(w.rng, 200, 400, 1000, 2000, 3000, 5000, 6000, 30_000, 3_600_000))
	}
	d.lat += float64(w.rng.IntN(7)-2) * 1e-5
	d.lon += float64(w.rng.IntN(7)-3) * 1e-5
	d.lon = math.Remainder(d.lon, 360) // they drive about the date line
	f.LatDeg, f.LonDeg = d.lat, d.lon
	if w.rng.IntN(2) == 0 {
		f.Has = wire.HasAccuracy | wire.HasSpeed | wire.HasHeading | wire.HasMocked
		f.AccuracyM, f.SpeedMPS, f.HeadingDeg = float32(1+w.rng.IntN(30)), float32(w.rng.IntN(20)), float32(w.rng.IntN(360))
	}
	if n := len(d.taken); n > 0 {
		switch w.rng.IntN(12) {
		case 0: // the same again
			return d.taken[max(0, n-1-w.rng.IntN(8))]
		case 1: // something else at the same time
			f.DeviceTimeMS = d.taken[max(0, n-1-w.rng.IntN(8))].DeviceTimeMS
		}
	}
	switch w.rng.IntN(40) {
	case 0:
		f.LatDeg = 91
	case 1:
		f.LatDeg = math.NaN()
	case 2:
		f.DeviceTimeMS = -f.DeviceTimeMS
	case 3:
		f.DeviceTimeMS -= int64(31 * 24 * time.Hour / time.Millisecond)
	default:
		d.taken = append(d.taken, f)
	}
	return f
}

// drawState draws what a report holds besides fixes.
func (w *world) drawState(r *report) {
	if w.rng.IntN(3) == 0 {
		r.Availability = pick(w.rng, starlingv1.Availability_AVAILABILITY_OFFLINE, starlingv1.Availability_AVAILABILITY_FREE, starlingv1.Availability_AVAILABILITY_BUSY)
	}
	if w.rng.IntN(5) == 0 {
		r.HasAttributes = true
		r.Attributes = wire.Attributes{Type: pick(w.rng, "", "van", "bus"), Seats: int32(w.rng.IntN(9))}
		if w.rng.IntN(2) == 0 {
			r.Attributes.Tags = []string{"clean"}
		}
	}
}

// drawSwitch draws other settings, mostly of the step, sometimes of the filter.
func drawSwitch(rng *rand.Rand, s trackerstep.Settings) wire.Location {
	s.WindowMS = pick(rng, 0, int64(2000), int64(8000))
	s.RepeatIntervalMS = pick(rng, int64(2000), int64(7000))
	s.RepeatMaxIntervalMS = s.RepeatIntervalMS * pick(rng, int64(1), int64(3), int64(8))
	s.ForgetAfterMS = pick(rng, int64(17_000), int64(60_000))
	s.ForgetSingleAfterMS = pick(rng, int64(9_000), int64(100_000))
	s.WindowMaxFixes = pick(rng, 2, 1024)
	s.H3Resolution = 5 + rng.IntN(8)
	s.RememberFixes = pick(rng, 0, 5, 64)
	s.ClockJumpMS = pick(rng, int64(3000), int64(12_000))
	s.SessionSilenceMS = pick(rng, int64(2000), int64(9000))
	s.DispatchMaxAgeMS = pick(rng, int64(1500), int64(9000))
	s.Filter.MinAccuracyM = pick(rng, 0.5, 20)
	s.Filter.DefaultAccuracyM = pick(rng, 2.0, 40)
	return wire.Location{Kind: wire.KindVersionSwitch, Switch: wire.VersionSwitch{StepVersion: trackerstep.Newest, Settings: s.Encode()}}
}

// drawPoison draws a record that no tracker can process.
func (w *world) drawPoison() eventlog.Record {
	d := w.devices[w.rng.IntN(len(w.devices))]
	bad := func(change func(*wire.Report)) []byte {
		r := wire.Report{SessionID: d.session, Sequence: d.sequence + 1, Fixes: []wire.Fix{{DeviceTimeMS: time.Now().UnixMilli(), LatDeg: 1, LonDeg: 1}}}
		change(&r)
		return (&wire.Location{Kind: wire.KindReport, Report: r}).Append(nil)
	}
	key := []byte(d.id)
	switch w.rng.IntN(6) {
	case 0:
		return eventlog.Record{Key: key, Value: []byte("\xffgarbage")}
	case 1:
		return eventlog.Record{Key: key, Value: bad(func(r *wire.Report) { r.SessionID = 0 })}
	case 2:
		return eventlog.Record{Key: key, Value: bad(func(r *wire.Report) { r.Fixes[0].LatDeg = 91 })}
	case 3:
		return eventlog.Record{Key: key, Value: bad(func(r *wire.Report) { r.Fixes[0].DeviceTimeMS = 0 })}
	case 4:
		return eventlog.Record{Key: []byte("a b"), Value: bad(func(*wire.Report) {})}
	}
	return eventlog.Record{Key: key} // no event
}
