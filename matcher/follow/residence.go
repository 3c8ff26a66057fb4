package follow

import (
	"slices"
	"strings"
	"time"

	"github.com/starling-fleet/starling/fanout/region"
	"github.com/starling-fleet/starling/internal/geo"
	"github.com/starling-fleet/starling/internal/h3"
	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/schemas/wire"
)

// A matcher that is limited to a region reads all of `tracks` and keeps
//
//   - the vehicles whose newest view lies in its region or has no position;
//   - those that have left it, in their newest view wherever that lies, until
//     the partition's clock has moved on by the grace since they left.
//
// What it keeps is thus a function of what it has read. Whoever asks several of
// them finds a vehicle that crosses a border with at least one, although one may
// have read further than the other, because the grace is longer than a matcher
// can be behind without naming the partition as stale; package fanout has the
// argument.

// Residence decides which vehicles a matcher keeps. A nil Residence keeps all.
type Residence struct {
	Regions *region.Map
	Own     int // the number of the region
	Grace   time.Duration
}

// departures are the vehicles of one partition that have left the region and are
// still kept. They belong to Run.
type departures struct {
	left  map[string]int64 // the stream time when a vehicle left
	queue []departure      // by stream time; some have come back since
}

type departure struct {
	id     string
	leftMS int64
}

// wants reports whether a view is to be put into the index, and whether it lies in
// the region.
func (f *Follower) wants(p *partition, v *wire.View) (wanted, here bool) {
	r := f.resident
	if r == nil || v.DeviceTimeMS == 0 || r.Regions.Of(h3.Cell(v.Cell), v.LatDeg, v.LonDeg) == r.Own {
		return true, true
	}
	if _, leaving := p.departures.left[v.VehicleID]; leaving {
		return true, false
	}
	return f.index.Has(v.VehicleID), false
}

// note remembers that a vehicle has left or come back.
func (d *departures) note(id string, here bool, clockMS int64) {
	_, leaving := d.left[id]
	switch {
	case here && leaving:
		delete(d.left, id)
	case !here && !leaving:
		one := departure{strings.Clone(id), clockMS}
		if d.left == nil {
			d.left = map[string]int64{}
		}
		d.left[one.id] = one.leftMS
		d.queue = append(d.queue, one)
	}
}

// shift moves all times when the stream time has jumped back.
func (d *departures) shift(ms int64) {
	for id := range d.left {
		d.left[id] += ms
	}
	for i := range d.queue {
		d.queue[i].leftMS += ms
	}
}

// dropDeparted forgets the vehicles whose grace is over.
func (f *Follower) dropDeparted(p *partition) {
	d, n := &p.departures, 0
	for ; n < len(d.queue) && d.queue[n].leftMS+f.resident.Grace.Milliseconds() <= p.streamMS.Load(); n++ {
		one := d.queue[n]
		if leftMS, leaving := d.left[one.id]; leaving && leftMS == one.leftMS {
			delete(d.left, one.id)
			f.index.Remove(one.id)
		}
	}
	if n > 0 {
		d.queue = slices.Delete(d.queue, 0, n)
	}
}

// Residents is a change as it counts for the region: who is elsewhere does not.
func (r *Residence) Residents(c *liveindex.Change) *liveindex.Change {
	if r == nil {
		return c
	}
	here := func(at geo.Vec, cell h3.Cell) bool {
		if at == (geo.Vec{}) {
			return false
		}
		lat, lon := at.Degrees()
		return r.Regions.Of(cell, lat, lon) == r.Own
	}
	out := *c
	if !here(c.From, c.Old.Cell) {
		out.From, out.Old = geo.Vec{}, liveindex.Standing{}
	}
	if !here(c.To, c.New.Cell) {
		out.To, out.New = geo.Vec{}, liveindex.Standing{}
	}
	return &out
}
