// Package slow is the tracker's step as one would write it with all the time
// and memory in the world. It keeps every fix, filters all of them anew for
// every record, keeps every sequence and sorts all vehicles to find whose timer
// has run out. It judges the real step in tests, and shares with it the filter,
// the codec of the records and the settings, but no rule.
package slow

import (
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

// Model is one partition of `locations` and what came of it. It is not safe
// for concurrent use.
type Model struct {
	settings step.Settings
	filter   *gpsfilter.Filter
	epoch    int64
	offset   int64
	stream   stream
	vehicles map[string]*vehicle
	// quietUntilMS is a time before which no timer runs out, 0 when it has to
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
	var l wire.Location
	poison = l.Unmarshal(rec.Value)
	if poison == nil && l.Kind == wire.KindVersionSwitch {
		m.use(l.Switch)
	}
	m.moveStream(rec.AppendTimeMS)
	t = wire.Track{Epoch: m.epoch, SourceOffset: rec.Offset, PreviousSourceOffset: m.offset, ClockMS: m.stream.ms}
	if rec.AppendTimeMS != m.stream.ms {
		t.AppendTimeMS = rec.AppendTimeMS
	}
	m.offset = rec.Offset
	switch {
	case poison != nil, l.Kind == wire.KindTick, l.Kind == wire.KindVersionSwitch:
	case l.Kind == wire.KindReport:
		if poison = faultOf(string(rec.Key), &l.Report); poison == nil {
			m.report(string(rec.Key), &l.Report, &t)
			if v := m.vehicles[string(rec.Key)]; v != nil {
				m.quietUntilMS = min(m.quietUntilMS, m.timer(v))
			}
		}
	default:
		poison = errors.New("no event")
	}
	m.settleOthers(&t)
	return t, poison
}

func (m *Model) use(s wire.VersionSwitch) {
	settings, err := step.DecodeSettings(s.Settings)
	if err != nil {
		panic(err)
	}
	differs := settings != m.settings
	m.settings, m.filter, m.quietUntilMS = settings, newFilter(settings), 0
	for _, v := range m.vehicles {
		if differs {
			v.publishedMS = v.changedMS
		}
		v.memory.keep(settings.RememberFixes)
	}
}

var vehicleID = regexp.MustCompile(`^[A-Za-z0-9._~-]{1,64}$`)

// faultOf states what makes a report one that ingest would never have written.
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

// filtered filters all fixes of the present track from its start. A fix that
// was final before the settings changed stays what it was. It also answers what
// the filter has learned of the device in the end.
func (m *Model) filtered(v *vehicle) ([]wire.TrackPoint, gpsfilter.State) {
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
			Verdict:       starlingv1.Verdict(e.Verdict),
			DisplayLatDeg: e.DisplayLatDeg, DisplayLonDeg: e.DisplayLonDeg,
		}})
	}
	return points, s
}

// diagnosisOf is what is published of what the filter has learned.
func diagnosisOf(s *gpsfilter.State) wire.Diagnosis {
	d := s.Diagnosis()
	return wire.Diagnosis{
		HasAccuracyScale: d.AccuracyScale != 0, AccuracyScale: float32(d.AccuracyScale),
		HasVelocityCredibility: d.HasVelocity, VelocityCredibility: float32(d.VelocityCredibility),
		BiasM: float32(d.BiasM), OutlierShare: float32(d.OutlierShare),
	}
}

func (m *Model) view(v *vehicle) wire.View {
	w := wire.View{
		VehicleID: v.id, DeviceTimeMS: v.newestMS, SeenTimeMS: v.seenMS, Estimate: v.last, Counts: v.counts,
		Availability: v.availability, Dispatchable: m.isDispatchable(v, m.stream.ms), Conflicting: m.stream.ms < v.conflictUntilMS,
		DeviceClockAheadMS: v.device.learnedMS(), OdometerM: v.metresGivenUp + v.metres, Diagnosis: v.diagnosis,
	}
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
