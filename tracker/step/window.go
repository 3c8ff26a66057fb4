package step

import (
	"cmp"
	"slices"
	"sort"

	"github.com/starling-fleet/starling/gpsfilter"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// maxIdleWindow is how many fixes a closed window keeps capacity for.
const maxIdleWindow = 64

// track is what a vehicle's fixes have made so far. Fixes at or after the low
// watermark are open: a fix may still come between them. Closed fixes are gone; base is
// what they left.
type track struct {
	// base is the filter after the newest closed fix.
	base gpsfilter.State
	// live is base stepped through the open fixes. It is not part of the
	// state: with liveValid false it is made again when it is needed.
	live      gpsfilter.State
	liveValid bool
	// lastDistance is the normalised distance that belongs to last, if liveValid
	// and a fix is open; no part of the state either.
	lastDistance float32
	// savepoints lets live be made again from within the window; nil for most
	// vehicles, and not part of the state.
	savepoints *savepoints
	// window holds the open fixes by device time.
	window openFixes
	// newestMS is the device time of the newest fix, 0 for none.
	newestMS int64
	// lowWatermarkMS is the low watermark: the oldest device time that is still
	// open.
	lowWatermarkMS int64
	// last is the estimate at the newest fix, odometerM the track's length and
	// diagnosis what the filter knew of the device there.
	last      wire.Estimate
	odometerM float64
	diagnosis wire.Diagnosis
}

// insert adds new fixes, by device time and none before the low watermark, closes
// what leaves the window and writes the points of both to out.
func (p *Partition) insert(v *vehicle, fixes []wire.Fix, out *wire.Track) {
	if len(fixes) == 0 {
		return
	}
	t := &v.track
	newest := max(t.newestMS, fixes[len(fixes)-1].DeviceTimeMS)
	watermark := max(t.lowWatermarkMS, newest-p.settings.WindowMS)
	if most := p.settings.WindowMaxFixes; t.window.len()+len(fixes) > most {
		watermark = max(watermark, nthNewest(&t.window, fixes, most))
	}
	if t.liveValid && fixes[0].DeviceTimeMS > t.newestMS {
		p.append(v, fixes, watermark, out)
	} else {
		p.merge(v, fixes, watermark, out)
	}
	t.newestMS, t.lowWatermarkMS = newest, watermark
	t.odometerM, t.diagnosis = t.live.OdometerM(), diagnosisOf(&t.live)
}

// append is insert for fixes that are all newer than what came before. Every
// fix is stepped once into live, and a second time into base when it closes,
// unless it closes at once, or when it is the newest: keeping what the filter was
// after each open fix instead would cost ten times the memory of the fix.
func (p *Partition) append(v *vehicle, fixes []wire.Fix, watermark int64, out *wire.Track) {
	t := &v.track
	out.FinalPoints = p.close(v, t.window.countBefore(watermark), out.FinalPoints)
	closed := countBefore(fixes, watermark)
	for i := range fixes {
		point := extend(&out.Points)
		p.step(&t.live, &fixes[i], point)
		if i < closed {
			*extend(&out.FinalPoints) = *point
			p.remember(v, &fixes[i], 0)
		}
		if i == closed-1 {
			t.base = t.live
		}
		if i >= closed {
			t.savepoints.passed(fixes[i].DeviceTimeMS, &t.live, t.window.len()+len(fixes)-closed)
		}
	}
	newest := &out.Points[len(out.Points)-1]
	t.last, t.lastDistance = newest.Estimate, newest.NormalisedDistance
	t.window.push(fixes[closed:])
}

// merge is insert for fixes of which some come before the newest: the filter
// goes through the window again, from the latest savepoint that still holds.
func (p *Partition) merge(v *vehicle, fixes []wire.Fix, watermark int64, out *wire.Track) {
	t := &v.track
	outOfOrder := t.liveValid
	if !outOfOrder {
		t.savepoints = nil
	}
	if fixes[0].DeviceTimeMS >= watermark {
		out.FinalPoints = p.close(v, t.window.countBefore(watermark), out.FinalPoints)
	} else {
		t.savepoints.rewind(0) // all that closes needs its final point
	}
	p.undo.willMerge(v)
	t.window.merge(fixes)
	if outOfOrder && t.savepoints == nil && t.window.len() > minSavepointFixes {
		p.keepSavepoints(v)
	}
	closed := t.window.countBefore(watermark)
	var point wire.TrackPoint
	for i := t.rewind(fixes[0].DeviceTimeMS); i < t.window.len(); i++ {
		fix := t.window.at(i)
		p.step(&t.live, fix, &point)
		if len(fixes) > 0 && fixes[0].DeviceTimeMS == fix.DeviceTimeMS {
			*extend(&out.Points) = point
			fixes = fixes[1:]
		}
		switch {
		case i < closed:
			*extend(&out.FinalPoints) = point
			p.remember(v, fix, 0)
		default:
			t.savepoints.passed(fix.DeviceTimeMS, &t.live, t.window.len()-closed)
		}
		if i == closed-1 {
			t.base = t.live
		}
	}
	t.last, t.lastDistance = point.Estimate, point.NormalisedDistance
	t.window.drop(closed)
}

// rewind makes live what it was before a fix of the device time, or earlier, and
// returns the index of the open fix with which it goes on.
func (t *track) rewind(deviceTimeMS int64) int {
	t.liveValid = true
	if s := t.savepoints.rewind(deviceTimeMS); s != nil {
		t.live = s.state
		return t.window.countBefore(s.timeMS + 1)
	}
	t.live = t.base
	return 0
}

// close closes the first n open fixes and adds their final points. The newest of
// all has been stepped into what live still is, from the same state by the same
// fixes: nothing remains to be computed.
func (p *Partition) close(v *vehicle, n int, final []wire.TrackPoint) []wire.TrackPoint {
	for i := range n {
		fix := v.window.at(i)
		p.undo.closed = append(p.undo.closed, *fix)
		if i == v.window.len()-1 && v.liveValid {
			*extend(&final) = wire.TrackPoint{Fix: *fix, Estimate: v.last, NormalisedDistance: v.lastDistance}
			v.base = v.live
		} else {
			p.step(&v.base, fix, extend(&final))
		}
		p.remember(v, fix, 0)
	}
	if n > 0 {
		v.savepoints.closed(v.window.at(n - 1).DeviceTimeMS)
	}
	v.window.drop(n)
	return final
}

// closeAll closes the whole window, as time does, and adds the final points.
func (p *Partition) closeAll(v *vehicle, final []wire.TrackPoint) []wire.TrackPoint {
	if v.window.len() == 0 {
		return final
	}
	final = p.close(v, v.window.len(), final)
	if len(v.window.ring) > maxIdleWindow {
		v.window = openFixes{}
	}
	v.live, v.liveValid = v.base, true
	v.lowWatermarkMS = v.newestMS + 1
	return final
}

// step steps the filter and describes what it made of the fix.
func (p *Partition) step(s *gpsfilter.State, fix *wire.Fix, out *wire.TrackPoint) {
	e := p.filter.Step(s, gpsfilter.Fix{
		TimeMS:     fix.DeviceTimeMS,
		LatDeg:     fix.LatDeg,
		LonDeg:     fix.LonDeg,
		AccuracyM:  fix.AccuracyM,
		SpeedMPS:   fix.SpeedMPS,
		HeadingDeg: fix.HeadingDeg,
		Has:        filterFields(fix.Has),
	})
	out.Fix = *fix
	out.Estimate = wire.Estimate{
		LatDeg:         e.LatDeg,
		LonDeg:         e.LonDeg,
		SpeedMPS:       float32(e.SpeedMPS),
		HeadingDeg:     headingDeg(e.HeadingDeg),
		HasSpeed:       e.HasSpeed,
		HasHeading:     e.HasHeading,
		VarEastM2:      float32(e.VarEastM2),
		CovEastNorthM2: float32(e.CovEastNorthM2),
		VarNorthM2:     float32(e.VarNorthM2),
		Verdict:        starlingv1.Verdict(e.Verdict),
		DisplayLatDeg:  e.DisplayLatDeg,
		DisplayLonDeg:  e.DisplayLonDeg,
	}
	out.NormalisedDistance = float32(e.NormalisedDistance)
}

// diagnosisOf is what the filter has learned of the device.
func diagnosisOf(s *gpsfilter.State) wire.Diagnosis {
	d := s.Diagnosis()
	out := wire.Diagnosis{
		AccuracyScale: float32(d.AccuracyScale), HasAccuracyScale: d.AccuracyScale != 0,
		BiasM: float32(d.BiasM), OutlierShare: float32(d.OutlierShare),
	}
	if d.HasVelocity {
		out.VelocityCredibility, out.HasVelocityCredibility = float32(d.VelocityCredibility), true
	}
	return out
}

// headingDeg keeps a heading below 360 when rounding would lift it there.
func headingDeg(deg float64) float32 {
	if h := float32(deg); h < 360 {
		return h
	}
	return 0
}

func filterFields(has wire.Has) gpsfilter.Fields {
	var f gpsfilter.Fields
	if has&wire.HasAccuracy != 0 {
		f |= gpsfilter.FieldAccuracy
	}
	if has&wire.HasSpeed != 0 {
		f |= gpsfilter.FieldSpeed
	}
	if has&wire.HasHeading != 0 {
		f |= gpsfilter.FieldHeading
	}
	return f
}

// countBefore is how many of the fixes, by device time, are before a time.
func countBefore(fixes []wire.Fix, deviceTimeMS int64) int {
	n := 0
	for n < len(fixes) && fixes[n].DeviceTimeMS < deviceTimeMS {
		n++
	}
	return n
}

// extend adds one element, keeping what the slice's memory held there.
func extend[T any](s *[]T) *T {
	if len(*s) < cap(*s) {
		*s = (*s)[:len(*s)+1]
	} else {
		var zero T
		*s = append(*s, zero)
	}
	return &(*s)[len(*s)-1]
}

func sortByTime(fixes []wire.Fix) {
	slices.SortStableFunc(fixes, func(a, b wire.Fix) int { return cmp.Compare(a.DeviceTimeMS, b.DeviceTimeMS) })
}

// A fix that comes out of order changes what the filter makes of every fix after
// it. So that the filter need not go through those before it again, a vehicle
// that sends such fixes keeps the filter's state behind some fixes of its window.
//
// Savepoints are a cache: they stand in no checkpoint, and without them the
// filter goes through the whole window and comes to the same bits. A partition
// keeps them for at most maxSavepointVehicles vehicles, maxSavepoints each and
// less than half a KiB apiece: 3.5 MiB at most.
const (
	maxSavepoints        = 16
	maxSavepointVehicles = 512
	// minSavepointFixes is how many fixes there are from one savepoint to the next
	// in a small window; in a large one the savepoints share it evenly.
	minSavepointFixes = 8
)

// savepoint is the filter's state after the open fix of a device time.
type savepoint struct {
	timeMS int64
	state  gpsfilter.State
}

// savepoints are those of one vehicle, by time.
type savepoints struct {
	vehicle *vehicle
	list    []savepoint
	// since is how many fixes the filter has gone through since the last one.
	since int
}

// keepSavepoints gives v savepoints, if need be those of the vehicle that has had
// them for longest.
func (p *Partition) keepSavepoints(v *vehicle) {
	var s *savepoints
	if len(p.savepoints) < maxSavepointVehicles {
		s = &savepoints{}
		p.savepoints = append(p.savepoints, s)
	} else {
		s = p.savepoints[p.nextSavepoints]
		if s.vehicle.savepoints == s {
			s.vehicle.savepoints = nil
		}
		p.nextSavepoints = (p.nextSavepoints + 1) % maxSavepointVehicles
	}
	*s = savepoints{vehicle: v, list: s.list[:0]}
	v.savepoints = s
}

// rewind drops what a fix of the device time makes untrue and returns the latest
// savepoint before it, or nil if there is none.
func (s *savepoints) rewind(deviceTimeMS int64) *savepoint {
	if s == nil {
		return nil
	}
	n := sort.Search(len(s.list), func(i int) bool { return s.list[i].timeMS >= deviceTimeMS })
	s.list, s.since = s.list[:n], 0
	if n == 0 {
		return nil
	}
	return &s.list[n-1]
}

// passed adds a savepoint after the fix that live was just stepped through, if
// the last one is far enough behind it. open is the size of the window.
func (s *savepoints) passed(deviceTimeMS int64, live *gpsfilter.State, open int) {
	if s == nil {
		return
	}
	if s.since++; s.since < max(minSavepointFixes, (open+maxSavepoints-1)/maxSavepoints) {
		return
	}
	if len(s.list) == maxSavepoints {
		s.list = slices.Delete(s.list, 0, 1)
	}
	s.list = append(s.list, savepoint{deviceTimeMS, *live})
	s.since = 0
}

// closed drops the savepoints that are not after the newest closed fix.
func (s *savepoints) closed(deviceTimeMS int64) {
	if s == nil {
		return
	}
	n := sort.Search(len(s.list), func(i int) bool { return s.list[i].timeMS > deviceTimeMS })
	s.list = slices.Delete(s.list, 0, n)
}

// openFixes are the open fixes of a vehicle by device time, in a ring: the oldest
// goes and the newest comes with nearly every report, and of a large fleet's memory
// a step should touch no more than these.
type openFixes struct {
	ring []wire.Fix // all of its length may be used
	head int32      // where the oldest stands
	n    int32
}

// ordered makes a ring of fixes by device time, which it keeps.
func ordered(fixes []wire.Fix) openFixes {
	return openFixes{ring: fixes[:cap(fixes)], n: int32(len(fixes))}
}

func (o *openFixes) len() int { return int(o.n) }

// at returns the ith oldest.
func (o *openFixes) at(i int) *wire.Fix {
	if i += int(o.head); i >= len(o.ring) {
		i -= len(o.ring)
	}
	return &o.ring[i]
}

// newest returns the newest of at least one.
func (o *openFixes) newest() *wire.Fix { return o.at(o.len() - 1) }

// runs returns all of them, in two runs.
func (o *openFixes) runs() (older, newer []wire.Fix) {
	end := o.head + o.n
	if over := end - int32(len(o.ring)); over > 0 {
		return o.ring[o.head:], o.ring[:over]
	}
	return o.ring[o.head:end], nil
}

// countBefore is how many are before a time. Most calls ask for very few or none.
func (o *openFixes) countBefore(deviceTimeMS int64) int {
	const few = 4
	for i := range min(few, o.len()) {
		if o.at(i).DeviceTimeMS >= deviceTimeMS {
			return i
		}
	}
	return sort.Search(o.len(), func(i int) bool { return o.at(i).DeviceTimeMS >= deviceTimeMS })
}

// find returns the fix of a device time.
func (o *openFixes) find(deviceTimeMS int64) (*wire.Fix, bool) {
	i := sort.Search(o.len(), func(i int) bool { return o.at(i).DeviceTimeMS >= deviceTimeMS })
	if i < o.len() && o.at(i).DeviceTimeMS == deviceTimeMS {
		return o.at(i), true
	}
	return nil, false
}

// drop takes the n oldest out.
func (o *openFixes) drop(n int) {
	if o.n -= int32(n); o.n == 0 {
		o.head = 0
		return
	}
	if o.head += int32(n); int(o.head) >= len(o.ring) {
		o.head -= int32(len(o.ring))
	}
}

// clear takes all out.
func (o *openFixes) clear() { o.drop(o.len()) }

// push adds fixes that are newer than all.
func (o *openFixes) push(fixes []wire.Fix) {
	o.grow(len(fixes))
	for i := range fixes {
		o.n++
		*o.newest() = fixes[i]
	}
}

// merge adds fixes by device time.
func (o *openFixes) merge(fixes []wire.Fix) {
	o.grow(len(fixes))
	i, j := o.len()-1, len(fixes)-1
	o.n += int32(len(fixes))
	for k := o.len() - 1; j >= 0; k-- {
		if i >= 0 && o.at(i).DeviceTimeMS > fixes[j].DeviceTimeMS {
			*o.at(k), i = *o.at(i), i-1
		} else {
			*o.at(k), j = fixes[j], j-1
		}
	}
}

// grow adds capacity for n more. A window lives long and there is one per vehicle,
// so it grows in small steps: by four fixes, or a sixteenth.
func (o *openFixes) grow(n int) {
	need := o.len() + n
	if need <= len(o.ring) {
		return
	}
	size := max(need, len(o.ring)+len(o.ring)/16)
	ring := make([]wire.Fix, (size+3)/4*4)
	older, newer := o.runs()
	copy(ring[copy(ring, older):], newer)
	o.ring, o.head = ring, 0
}

// appendTo appends all to fixes.
func (o *openFixes) appendTo(fixes []wire.Fix) []wire.Fix {
	older, newer := o.runs()
	return append(append(fixes, older...), newer...)
}

// put writes fixes over those from the ith on.
func (o *openFixes) put(i int, fixes []wire.Fix) {
	for j := range fixes {
		*o.at(i + j) = fixes[j]
	}
}

// nthNewest is the device time of the nth newest of two runs of fixes by device
// time that hold at least n together.
func nthNewest(a *openFixes, b []wire.Fix, n int) int64 {
	var t int64
	i := a.len()
	for range n {
		if len(b) == 0 || i > 0 && a.at(i-1).DeviceTimeMS > b[len(b)-1].DeviceTimeMS {
			i--
			t = a.at(i).DeviceTimeMS
		} else {
			t, b = b[len(b)-1].DeviceTimeMS, b[:len(b)-1]
		}
	}
	return t
}
