package lake

import (
	"context"
	"iter"
	"maps"
	"slices"

	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/history/store"
)

// visitsAtOnce bounds the vehicles that are gathered in one pass over the files.
const visitsAtOnce = 10_000

// Visits implements store.Store. It reads every file of the hours asked for, once for
// every 10,000 vehicles that were in the area.
func (r *Reader) Visits(ctx context.Context, q store.VisitQuery) iter.Seq2[store.Visit, error] {
	return r.visits(ctx, q, visitsAtOnce)
}

func (r *Reader) visits(ctx context.Context, q store.VisitQuery, atOnce int) iter.Seq2[store.Visit, error] {
	return func(yield func(store.Visit, error) bool) {
		in := newArea(q.Area)
		for after := q.After; ; {
			found, err := r.firstVisits(ctx, q, in, after, atOnce)
			if err != nil {
				yield(store.Visit{}, err)
				return
			}
			for _, vehicle := range slices.Sorted(maps.Keys(found)) {
				if !yield(*found[vehicle], nil) {
					return
				}
				after = vehicle
			}
			if len(found) < atOnce {
				return
			}
		}
	}
}

// firstVisits returns the visits of the first vehicles behind one, at most so many.
func (r *Reader) firstVisits(ctx context.Context, q store.VisitQuery, in *area, after string, most int) (map[string]*store.Visit, error) {
	hours, err := r.hours(ctx, q.FromMS, q.ToMS)
	if err != nil {
		return nil, err
	}
	found := map[string]*store.Visit{}
	last := "" // the last vehicle of found once it is full; those behind it wait
	for _, dir := range hours {
		for fix, err := range r.scan(ctx, dir) {
			switch {
			case err != nil:
				return nil, err
			case fix.Vehicle <= after, len(found) == most && fix.Vehicle > last,
				fix.DeviceTimeMS < q.FromMS, fix.DeviceTimeMS >= q.ToMS, !in.has(fix.Shown()):
				continue
			}
			v := found[fix.Vehicle]
			if v == nil {
				if len(found) == most {
					delete(found, last)
				}
				v = &store.Visit{Vehicle: fix.Vehicle, FirstMS: fix.DeviceTimeMS}
				found[fix.Vehicle] = v
				if len(found) == most {
					last = slices.Max(slices.Collect(maps.Keys(found)))
				}
			}
			v.FirstMS, v.LastMS = min(v.FirstMS, fix.DeviceTimeMS), max(v.LastMS, fix.DeviceTimeMS)
			v.Fixes++
		}
	}
	return found, nil
}

// area answers whether positions are in a store.Area.
type area struct {
	cells   *cellSet
	corners []row.Position
	lo, hi  row.Position // around the corners
}

func newArea(a store.Area) *area {
	if len(a.Polygon) == 0 {
		return &area{cells: newCellSet(a.Cells)}
	}
	lo, hi := a.Bounds()
	return &area{corners: a.Polygon, lo: lo, hi: hi}
}

func (a *area) has(p row.Position) bool {
	if a.cells != nil {
		// A position near a border may be in a cell and not in its parent.
		for _, resolution := range a.cells.resolutions {
			if cell, err := cellOf(p, resolution); err == nil && a.cells.cells[cell] {
				return true
			}
		}
		return false
	}
	if p.LatE7 < a.lo.LatE7 || p.LatE7 > a.hi.LatE7 || p.LonE7 < a.lo.LonE7 || p.LonE7 > a.hi.LonE7 {
		return false
	}
	return inPolygon(a.corners, p)
}

// inPolygon counts the edges that a line from p to the east crosses, in whole numbers
// (a product of two differences is below 2^63), so that nothing is rounded.
func inPolygon(corners []row.Position, p row.Position) bool {
	in := false
	from := corners[len(corners)-1]
	for _, to := range corners {
		if (from.LatE7 > p.LatE7) != (to.LatE7 > p.LatE7) {
			up := int64(to.LatE7) - int64(from.LatE7)
			left := (int64(p.LonE7) - int64(from.LonE7)) * up
			right := (int64(to.LonE7) - int64(from.LonE7)) * (int64(p.LatE7) - int64(from.LatE7))
			if up > 0 && left < right || up < 0 && left > right {
				in = !in
			}
		}
		from = to
	}
	return in
}
