// Package slow is the tracker's step as one would write it with all the time
// and memory in the world. It keeps every fix, filters all of them anew for
// every record, keeps every sequence and sorts all vehicles to find who is due.
// It judges the real step in tests, and shares with it the filter, the codec of
// the records and the settings, but no rule.
package slow

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"

	"github.com/uber/h3-go/v4"

	"github.com/starling-fleet/starling/gpsfilter"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker/step"
)

// duesPerRecord is how many other vehicles one record settles at most.
const duesPerRecord = 64

// Model is one partition of `locations` and what came of it. It is not safe
// for concurrent use.
type Model struct {
	settings step.Settings
	filter   *gpsfilter.Filter
	epoch    int64
	clockMS  int64
	offset   int64
	vehicles map[string]*vehicle
	// quietUntilMS is a time before which no vehicle is due, 0 when it has to
	// be found anew.
	quietUntilMS int64
}

// New returns a model that has read nothing.
func New(s step.Settings, epoch int64) *Model {
	return &Model{settings: s, filter: newFilter(s), epoch: epoch, offset: -1, vehicles: map[string]*vehicle{}}
}

func newFilter(s step.Settings) *gpsfilter.Filter {
	f, err := gpsfilter.New(s.Filter)
	if err != nil {
		panic(err)
	}
	return f
}

// Step answers the track of the next record, and whether the record is
// poisoned. Version switches must be good ones.
func (m *Model) Step(rec eventlog.Stored) (t wire.Track, poison error) {
	m.clockMS = max(m.clockMS, rec.AppendTimeMS)
	t = wire.Track{Epoch: m.epoch, SourceOffset: rec.Offset, PreviousSourceOffset: m.offset, ClockMS: m.clockMS}
	m.offset = rec.Offset
	var l wire.Location
	poison = l.Unmarshal(rec.Value)
	switch {
	case poison != nil:
	case l.Kind == wire.KindTick:
	case l.Kind == wire.KindVersionSwitch:
		m.use(l.Switch)
	case l.Kind == wire.KindReport:
		if poison = faultOf(string(rec.Key), &l.Report); poison == nil {
			m.report(string(rec.Key), &l.Report, &t)
			m.quietUntilMS = min(m.quietUntilMS, m.due(m.vehicles[string(rec.Key)]))
		}
	default:
		poison = errors.New("no event")
	}
	m.settleDues(&t)
	return t, poison
}

func (m *Model) use(s wire.VersionSwitch) {
	settings, err := step.DecodeSettings(s.Settings)
	if err != nil {
		panic(err)
	}
	m.settings, m.filter, m.quietUntilMS = settings, newFilter(settings), 0
}

var vehicleID = regexp.MustCompile(`^[A-Za-z0-9._~-]{1,64}$`)

// faultOf says what makes a report one that ingest would never have written.
func faultOf(key string, r *wire.Report) error {
	switch {
	case !vehicleID.MatchString(key):
		return fmt.Errorf("vehicle id %q", key)
	case r.SessionID == 0, r.Sequence < 1, len(r.Fixes) > 4096:
		return errors.New("session, sequence or number of fixes")
	}
	for _, f := range r.Fixes {
		numbers := []float64{f.LatDeg, f.LonDeg, float64(f.AccuracyM), float64(f.SpeedMPS), float64(f.HeadingDeg), float64(f.AltitudeM)}
		isBad := func(x float64) bool { return math.IsNaN(x) || math.IsInf(x, 0) }
		if slices.ContainsFunc(numbers, isBad) || math.Abs(f.LatDeg) > 90 || math.Abs(f.LonDeg) > 180 ||
			f.DeviceTimeMS < 1 || f.DeviceTimeMS > 253_402_300_799_999 {
			return fmt.Errorf("fix %v", f)
		}
	}
	labels := append([]string{r.Attributes.Type}, r.Attributes.Tags...)
	if r.HasAttributes && (len(labels) > 65 || slices.ContainsFunc(labels, func(s string) bool { return len(s) > 256 })) {
		return errors.New("attributes")
	}
	return nil
}

func (m *Model) report(id string, r *wire.Report, t *wire.Track) {
	v := m.vehicles[id]
	if v == nil {
		v = &vehicle{id: id, seenMS: m.clockMS}
	}
	if m.clockMS-v.seenMS >= m.settings.WindowMS {
		t.FinalPoints = append(t.FinalPoints, m.closeBefore(v, math.MaxInt64)...)
	}
	if m.clockMS-v.seenMS >= m.settings.ForgetAfterMS {
		v = &vehicle{id: id}
	}
	m.vehicles[id] = v

	p := v.take(r)
	fixes := slices.Clone(r.Fixes)
	slices.SortStableFunc(fixes, byTime)
	if len(fixes) > 0 && p.isNewest && p.advances && v.newestMS > 0 && m.jumped(v, fixes[len(fixes)-1].DeviceTimeMS) {
		t.FinalPoints = append(t.FinalPoints, m.closeBefore(v, math.MaxInt64)...)
		v.startAnew(p.session, r.Sequence)
	}
	m.take(v, fixes, p, r.Sequence, t)
	if p.isNewest && !p.recognised {
		v.describe(r)
	}
	v.counts.Accepted += t.Counts.Accepted
	v.counts.Duplicate += t.Counts.Duplicate
	v.counts.Conflict += t.Counts.Conflict
	v.counts.Late += t.Counts.Late
	v.seenMS, v.toldMS = m.clockMS, m.clockMS
	t.HasLive, t.Live = true, m.view(v)
}

// take judges a report's fixes, by time, and filters those that are new.
func (m *Model) take(v *vehicle, fixes []wire.Fix, p place, sequence int64, t *wire.Track) {
	fresh := map[int64]bool{}
	for _, f := range fixes {
		switch known := v.find(f.DeviceTimeMS); {
		case known != nil && *known == f:
			t.Counts.Duplicate++
		case known != nil:
			t.Counts.Conflict++
		case f.DeviceTimeMS >= v.floorMS && sequence > p.session.fence:
			t.Counts.Accepted++
			fresh[f.DeviceTimeMS] = true
			v.fixes = append(v.fixes, knownFix{Fix: f})
			slices.SortFunc(v.fixes, func(a, b knownFix) int { return byTime(a.Fix, b.Fix) })
		case p.recognised:
			t.Counts.Duplicate++
		default:
			t.Counts.Late++
			t.LateFixes = append(t.LateFixes, f)
		}
	}
	if len(fresh) == 0 {
		return
	}
	for _, point := range m.filtered(v) {
		if fresh[point.Fix.DeviceTimeMS] {
			t.Points = append(t.Points, point)
		}
		v.last, v.newestMS = point.Estimate, point.Fix.DeviceTimeMS
	}
	floor := max(v.floorMS, v.newestMS-m.settings.WindowMS)
	open := slices.DeleteFunc(slices.Clone(v.fixes), knownFix.isFinal)
	if n := len(open); n > m.settings.WindowMaxFixes {
		floor = max(floor, open[n-m.settings.WindowMaxFixes].DeviceTimeMS)
	}
	t.FinalPoints = append(t.FinalPoints, m.closeBefore(v, floor)...)
}

// jumped says whether the report, whose newest fix is given, shows that the
// device's clock has jumped.
func (m *Model) jumped(v *vehicle, newestMS int64) bool {
	if newestMS >= v.floorMS {
		v.behindSinceMS = 0
		return false
	}
	latest := m.clockMS + m.settings.MaxAheadMS
	if v.newestMS > latest && newestMS <= latest {
		return true
	}
	patience := m.settings.RebaseAfterMS
	elapsed, advance := m.clockMS-v.behindSinceMS, newestMS-v.behindFirstMS
	samePace := math.Abs(float64(advance-elapsed)) <= float64((elapsed+patience)/2)
	if v.behindSinceMS == 0 || !samePace {
		v.behindSinceMS, v.behindFirstMS = m.clockMS, newestMS
		return false
	}
	return elapsed >= patience && v.floorMS-newestMS > patience
}

// closeBefore makes the fixes before a time final and answers their points.
func (m *Model) closeBefore(v *vehicle, floorMS int64) []wire.TrackPoint {
	var points []wire.TrackPoint
	for i, p := range m.filtered(v) {
		if f := &v.fixes[i]; !f.isFinal() && f.DeviceTimeMS < floorMS {
			f.finalBy = m.filter
			points = append(points, p)
		}
	}
	v.floorMS = max(v.floorMS, min(floorMS, v.newestMS+1))
	return points
}

// filtered filters all fixes of the present track from its start. A fix that
// was final before the settings changed stays what it was.
func (m *Model) filtered(v *vehicle) []wire.TrackPoint {
	var s gpsfilter.State
	var points []wire.TrackPoint
	for _, f := range v.fixes {
		filter := m.filter
		if f.isFinal() {
			filter = f.finalBy
		}
		e := filter.Step(&s, gpsfilter.Fix{
			TimeMS: f.DeviceTimeMS, LatDeg: f.LatDeg, LonDeg: f.LonDeg,
			AccuracyM: f.AccuracyM, SpeedMPS: f.SpeedMPS, HeadingDeg: f.HeadingDeg, Has: gpsfilter.Fields(f.Has & 7),
		})
		points = append(points, wire.TrackPoint{Fix: f.Fix, NormalisedDistance: float32(e.NormalisedDistance), Estimate: wire.Estimate{
			LatDeg: e.LatDeg, LonDeg: e.LonDeg,
			SpeedMPS: float32(e.SpeedMPS), HeadingDeg: float32(math.Mod(float64(float32(e.HeadingDeg)), 360)),
			HasSpeed: e.HasSpeed, HasHeading: e.HasHeading,
			VarEastM2: float32(e.VarEastM2), CovEastNorthM2: float32(e.CovEastNorthM2), VarNorthM2: float32(e.VarNorthM2),
			Verdict: starlingv1.Verdict(e.Verdict),
		}})
	}
	return points
}

func (m *Model) view(v *vehicle) wire.View {
	w := wire.View{VehicleID: v.id, DeviceTimeMS: v.newestMS, SeenTimeMS: v.seenMS, Estimate: v.last, Availability: v.availability, Counts: v.counts}
	if v.newestMS > 0 {
		cell, err := h3.LatLngToCell(h3.LatLng{Lat: v.last.LatDeg, Lng: v.last.LonDeg}, m.settings.H3Resolution)
		if err != nil {
			panic(err)
		}
		w.Cell = uint64(cell)
	}
	if v.attributes != nil {
		w.HasAttributes, w.Attributes = true, *v.attributes
	}
	return w
}

// Views returns every vehicle's view as it would be told now, by id.
func (m *Model) Views() []wire.View {
	var views []wire.View
	for _, v := range m.vehicles {
		views = append(views, m.view(v))
	}
	slices.SortFunc(views, func(a, b wire.View) int { return cmp.Compare(a.VehicleID, b.VehicleID) })
	return views
}

// Vehicles is how many vehicles the model knows.
func (m *Model) Vehicles() int { return len(m.vehicles) }

func (m *Model) settleDues(t *wire.Track) {
	if m.clockMS < m.quietUntilMS {
		return
	}
	type dueVehicle struct {
		ms int64
		*vehicle
	}
	var due []dueVehicle
	m.quietUntilMS = math.MaxInt64
	for _, v := range m.vehicles {
		ms := m.due(v)
		m.quietUntilMS = min(m.quietUntilMS, ms)
		if ms <= m.clockMS {
			due = append(due, dueVehicle{ms, v})
		}
	}
	if len(due) == 0 {
		return
	}
	m.quietUntilMS = 0
	slices.SortFunc(due, func(a, b dueVehicle) int { return cmp.Or(cmp.Compare(a.ms, b.ms), cmp.Compare(a.id, b.id)) })
	for _, v := range due[:min(duesPerRecord, len(due))] {
		t.Dues = append(t.Dues, m.settle(v.vehicle))
	}
}

func (m *Model) due(v *vehicle) int64 {
	due := min(v.toldMS+m.settings.RepeatIntervalMS, v.seenMS+m.settings.ForgetAfterMS)
	if slices.ContainsFunc(v.fixes, func(f knownFix) bool { return !f.isFinal() }) {
		due = min(due, v.seenMS+m.settings.WindowMS)
	}
	return due
}

func (m *Model) settle(v *vehicle) wire.Due {
	d := wire.Due{VehicleID: v.id}
	if m.clockMS-v.seenMS >= m.settings.WindowMS {
		d.FinalPoints = m.closeBefore(v, math.MaxInt64)
	}
	switch {
	case m.clockMS-v.seenMS >= m.settings.ForgetAfterMS:
		d.Forgotten = true
		d.FinalPoints = append(d.FinalPoints, m.closeBefore(v, math.MaxInt64)...)
		delete(m.vehicles, v.id)
	case m.clockMS-v.toldMS >= m.settings.RepeatIntervalMS:
		d.HasLive, d.Live = true, m.view(v)
		v.toldMS = m.clockMS
	}
	return d
}
