package tracker_test

import (
	"cmp"
	"math"
	"slices"

	"github.com/uber/h3-go/v4"

	"github.com/starling-fleet/starling/gpsfilter"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker"
)

// model is the step as one would write it with all the time and memory in the
// world: it keeps every fix, filters all of them anew for every record, keeps
// every sequence and sorts all vehicles to find who is due.
type model struct {
	s        tracker.Settings
	filter   *gpsfilter.Filter
	clock    int64
	offset   int64
	vehicles map[string]*modelVehicle
}

type modelVehicle struct {
	id                       string
	fixes                    []modelFix // of the present track, by time
	floor                    int64
	seen, told               int64
	sessions                 []*modelSession // newest first
	availability             starlingv1.Availability
	attributes               *wire.Attributes
	availabilitySeq, attrSeq int64
	counts                   wire.FixCounts
	behindSince, behindFirst int64
	last                     wire.Estimate
	newest                   int64
}

type modelFix struct {
	wire.Fix
	final bool
}

type modelSession struct {
	id             uint64
	seen           map[int64]bool
	highest, fence int64
}

func newModel(s tracker.Settings) *model {
	f, err := gpsfilter.New(s.Filter)
	if err != nil {
		panic(err)
	}
	return &model{s: s, filter: f, offset: -1, vehicles: map[string]*modelVehicle{}}
}

// step answers the track of one record that is a tick or a good report.
func (m *model) step(rec eventlog.Stored) wire.Track {
	var l wire.Location
	if err := l.Unmarshal(rec.Value); err != nil {
		panic(err)
	}
	m.clock = max(m.clock, rec.AppendTimeMS)
	t := wire.Track{Epoch: 1, SourceOffset: rec.Offset, PreviousSourceOffset: m.offset, ClockMS: m.clock}
	m.offset = rec.Offset
	if l.Kind == wire.KindVersionSwitch {
		s, err := tracker.DecodeSettings(l.Switch.Settings)
		if err != nil {
			panic(err)
		}
		m.s = s
	}
	if l.Kind == wire.KindReport {
		m.report(string(rec.Key), &l.Report, &t)
	}
	for len(t.Dues) < 64 {
		v := m.firstDue()
		if v == nil {
			break
		}
		t.Dues = append(t.Dues, m.settle(v))
	}
	return t
}

func (m *model) report(id string, r *wire.Report, t *wire.Track) {
	v := m.vehicles[id]
	if v == nil {
		v = &modelVehicle{id: id, seen: m.clock}
	}
	if m.clock-v.seen >= m.s.WindowMS {
		t.FinalPoints = append(t.FinalPoints, m.closeBefore(v, math.MaxInt64)...)
	}
	if m.clock-v.seen >= m.s.ForgetAfterMS {
		v = &modelVehicle{id: id}
	}
	m.vehicles[id] = v

	session, recognised, advances := v.take(r)
	fixes := slices.Clone(r.Fixes)
	slices.SortStableFunc(fixes, func(a, b wire.Fix) int { return cmp.Compare(a.DeviceTimeMS, b.DeviceTimeMS) })
	isNewest := session == v.sessions[0]
	if len(fixes) > 0 && isNewest && advances && v.newest > 0 {
		if m.jumped(v, fixes[len(fixes)-1].DeviceTimeMS) {
			t.FinalPoints = append(t.FinalPoints, m.closeBefore(v, math.MaxInt64)...)
			v.fixes, v.floor, v.newest, v.behindSince = nil, 0, 0, 0
			for _, s := range v.sessions {
				s.fence = s.highest
			}
			session.fence = r.Sequence - 1
		}
	}
	fenced := r.Sequence <= session.fence
	fresh := map[int64]bool{}
	for _, f := range fixes {
		switch known := v.find(f.DeviceTimeMS); {
		case known != nil && *known == f:
			t.Counts.Duplicate++
		case known != nil:
			t.Counts.Conflict++
		case f.DeviceTimeMS >= v.floor && !fenced:
			t.Counts.Accepted++
			fresh[f.DeviceTimeMS] = true
			v.fixes = append(v.fixes, modelFix{Fix: f})
			slices.SortFunc(v.fixes, func(a, b modelFix) int { return cmp.Compare(a.DeviceTimeMS, b.DeviceTimeMS) })
		case recognised:
			t.Counts.Duplicate++
		default:
			t.Counts.Late++
			t.LateFixes = append(t.LateFixes, f)
		}
	}
	if len(fresh) > 0 {
		for _, p := range m.filtered(v) {
			if fresh[p.Fix.DeviceTimeMS] {
				t.Points = append(t.Points, p)
			}
			v.last, v.newest = p.Estimate, p.Fix.DeviceTimeMS
		}
		floor := max(v.floor, v.newest-m.s.WindowMS)
		open := slices.DeleteFunc(slices.Clone(v.fixes), func(f modelFix) bool { return f.final })
		if n := len(open); n > m.s.WindowMaxFixes {
			floor = max(floor, open[n-m.s.WindowMaxFixes].DeviceTimeMS)
		}
		t.FinalPoints = append(t.FinalPoints, m.closeBefore(v, floor)...)
	}
	if isNewest && !recognised {
		if r.Availability != 0 && r.Sequence > v.availabilitySeq {
			v.availability, v.availabilitySeq = r.Availability, r.Sequence
		}
		if r.HasAttributes && r.Sequence > v.attrSeq {
			v.attributes, v.attrSeq = &r.Attributes, r.Sequence
		}
	}
	v.counts.Accepted += t.Counts.Accepted
	v.counts.Duplicate += t.Counts.Duplicate
	v.counts.Conflict += t.Counts.Conflict
	v.counts.Late += t.Counts.Late
	v.seen, v.told = m.clock, m.clock
	t.HasLive, t.Live = true, m.view(v)
}

// take finds or opens the report's session.
func (v *modelVehicle) take(r *wire.Report) (s *modelSession, recognised, advances bool) {
	for _, s := range v.sessions {
		if s.id == r.SessionID {
			recognised = s.seen[r.Sequence] || r.Sequence < s.highest-64
			advances = r.Sequence > s.highest
			s.seen[r.Sequence] = true
			s.highest = max(s.highest, r.Sequence)
			return s, recognised, advances
		}
	}
	s = &modelSession{id: r.SessionID, seen: map[int64]bool{r.Sequence: true}, highest: r.Sequence}
	v.sessions = append([]*modelSession{s}, v.sessions...)
	v.sessions = v.sessions[:min(4, len(v.sessions))]
	v.availabilitySeq, v.attrSeq = 0, 0
	return s, false, true
}

// jumped says whether the report, whose newest fix is given, shows that the
// device's clock has jumped.
func (m *model) jumped(v *modelVehicle, newest int64) bool {
	if newest >= v.floor {
		v.behindSince = 0
		return false
	}
	if v.newest > m.clock+m.s.MaxAheadMS && newest <= m.clock+m.s.MaxAheadMS {
		return true
	}
	elapsed, advance := m.clock-v.behindSince, newest-v.behindFirst
	samePace := math.Abs(float64(advance-elapsed)) <= float64((elapsed+m.s.RebaseAfterMS)/2)
	if v.behindSince == 0 || !samePace {
		v.behindSince, v.behindFirst = m.clock, newest
		return false
	}
	return elapsed >= m.s.RebaseAfterMS && v.floor-newest > m.s.RebaseAfterMS
}

// find answers the fix of a time among the open ones and the newest.
func (v *modelVehicle) find(ms int64) *wire.Fix {
	for i := range v.fixes {
		if f := &v.fixes[i]; f.DeviceTimeMS == ms && (!f.final || i == len(v.fixes)-1) {
			return &f.Fix
		}
	}
	return nil
}

// closeBefore makes the fixes before a time final and answers their points.
func (m *model) closeBefore(v *modelVehicle, floor int64) []wire.TrackPoint {
	var points []wire.TrackPoint
	for i, p := range m.filtered(v) {
		if f := &v.fixes[i]; !f.final && f.DeviceTimeMS < floor {
			f.final = true
			points = append(points, p)
		}
	}
	v.floor = max(v.floor, min(floor, v.newest+1))
	return points
}

// filtered filters all fixes of the present track from its start.
func (m *model) filtered(v *modelVehicle) []wire.TrackPoint {
	var s gpsfilter.State
	var points []wire.TrackPoint
	for _, f := range v.fixes {
		e := m.filter.Step(&s, gpsfilter.Fix{
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

func (m *model) view(v *modelVehicle) wire.View {
	w := wire.View{VehicleID: v.id, DeviceTimeMS: v.newest, SeenTimeMS: v.seen, Estimate: v.last, Availability: v.availability, Counts: v.counts}
	if v.newest > 0 {
		cell, err := h3.LatLngToCell(h3.LatLng{Lat: v.last.LatDeg, Lng: v.last.LonDeg}, m.s.H3Resolution)
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

func (m *model) due(v *modelVehicle) int64 {
	due := min(v.told+m.s.RepeatIntervalMS, v.seen+m.s.ForgetAfterMS)
	if slices.ContainsFunc(v.fixes, func(f modelFix) bool { return !f.final }) {
		due = min(due, v.seen+m.s.WindowMS)
	}
	return due
}

func (m *model) firstDue() *modelVehicle {
	var first *modelVehicle
	for _, v := range m.vehicles {
		if m.due(v) > m.clock {
			continue
		}
		if first == nil || cmp.Or(cmp.Compare(m.due(v), m.due(first)), cmp.Compare(v.id, first.id)) < 0 {
			first = v
		}
	}
	return first
}

func (m *model) settle(v *modelVehicle) wire.Due {
	d := wire.Due{VehicleID: v.id}
	if m.clock-v.seen >= m.s.WindowMS {
		d.FinalPoints = m.closeBefore(v, math.MaxInt64)
	}
	switch {
	case m.clock-v.seen >= m.s.ForgetAfterMS:
		d.Forgotten = true
		delete(m.vehicles, v.id)
	case m.clock-v.told >= m.s.RepeatIntervalMS:
		d.HasLive, d.Live = true, m.view(v)
		v.told = m.clock
	}
	return d
}
