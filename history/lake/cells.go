package lake

import (
	"cmp"
	"context"
	"iter"
	"slices"

	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/history/store"
	"github.com/starling-fleet/starling/internal/h3"
)

// CellStats implements store.Store. It reads every file of the hours asked for, and
// holds the cells of one hour in memory.
func (r *Reader) CellStats(ctx context.Context, q store.CellQuery) iter.Seq2[store.CellStat, error] {
	return func(yield func(store.CellStat, error) bool) {
		length := q.Period.Duration().Milliseconds()
		// Periods that begin within the range end behind it.
		from := row.Period(q.FromMS+length-1, length) * length
		to := row.Period(q.ToMS+length-1, length) * length
		hours, err := r.hours(ctx, from, to)
		if err != nil {
			yield(store.CellStat{}, err)
			return
		}
		in := newCellSet(q.Cells)
		for _, dir := range hours {
			groups := map[group]*counted{}
			for fix, err := range r.scan(ctx, dir) {
				if err != nil {
					yield(store.CellStat{}, err)
					return
				}
				if fix.Has&row.HasEstimate == 0 || fix.DeviceTimeMS < from || fix.DeviceTimeMS >= to {
					continue
				}
				cell, err := cellOf(fix.Corrected, q.Period.Resolution())
				if err != nil || !in.has(cell) {
					continue // no fix is where no cell is
				}
				g := group{row.Period(fix.DeviceTimeMS, length) * length, cell}
				c := groups[g]
				if c == nil {
					c = &counted{}
					groups[g] = c
				}
				c.add(&fix)
			}
			keys := make([]group, 0, len(groups))
			for g := range groups {
				keys = append(keys, g)
			}
			slices.SortFunc(keys, func(a, b group) int { return cmp.Or(cmp.Compare(a.startMS, b.startMS), cmp.Compare(a.cell, b.cell)) })
			for _, g := range keys {
				if !yield(groups[g].stat(g), nil) {
					return
				}
			}
		}
	}
}

// group is a cell during a period.
type group struct {
	startMS int64
	cell    h3.Cell
}

// counted gathers what a group had. The fixes of a vehicle come one after the other.
type counted struct {
	fixes, vehicles int64
	vehicle         string
	speeds          speeds
}

func (c *counted) add(f *row.Fix) {
	c.fixes++
	if c.vehicles == 0 || c.vehicle != f.Vehicle {
		c.vehicle = f.Vehicle
		c.vehicles++
	}
	if f.Has&row.HasSpeed != 0 {
		c.speeds.add(f.SpeedCMPS)
	}
}

func (c *counted) stat(g group) store.CellStat {
	s := store.CellStat{Cell: g.cell, StartMS: g.startMS, Fixes: c.fixes, Vehicles: c.vehicles, Speeds: c.speeds.n}
	if s.Speeds > 0 {
		s.MeanSpeedCMPS = float64(c.speeds.sum) / float64(c.speeds.n)
		at := c.speeds.percentiles(0.5, 0.85, 0.95)
		s.P50, s.P85, s.P95 = at[0], at[1], at[2]
	}
	return s
}

// speeds counts speeds exactly; it holds each different speed once.
type speeds struct {
	n, sum int64
	counts map[int32]int64
}

func (s *speeds) add(cmPerS int32) {
	if s.counts == nil {
		s.counts = map[int32]int64{}
	}
	s.n++
	s.sum += int64(cmPerS)
	s.counts[cmPerS]++
}

// percentiles returns the values that shares are below, as store.Percentile has them;
// the shares ascend.
func (s *speeds) percentiles(shares ...float64) []int32 {
	values := make([]int32, 0, len(s.counts))
	for v := range s.counts {
		values = append(values, v)
	}
	slices.Sort(values)
	out, seen, at := make([]int32, 0, len(shares)), int64(0), 0
	for _, share := range shares {
		index := store.PercentileIndex(s.n, share)
		for seen+s.counts[values[at]] <= index {
			seen += s.counts[values[at]]
			at++
		}
		out = append(out, values[at])
	}
	return out
}

// cellSet is a set of cells of any resolutions; empty has all.
type cellSet struct {
	cells       map[h3.Cell]bool
	resolutions []int
}

func newCellSet(cells []h3.Cell) *cellSet {
	s := &cellSet{cells: map[h3.Cell]bool{}}
	for _, c := range cells {
		s.cells[c] = true
		if res := c.Resolution(); !slices.Contains(s.resolutions, res) {
			s.resolutions = append(s.resolutions, res)
		}
	}
	return s
}

// has returns whether a cell is one of the set's, or lies within one.
func (s *cellSet) has(c h3.Cell) bool {
	if len(s.cells) == 0 {
		return true
	}
	for _, res := range s.resolutions {
		if res <= c.Resolution() && s.cells[c.Parent(res)] {
			return true
		}
	}
	return false
}

func cellOf(p row.Position, resolution int) (h3.Cell, error) {
	return h3.At(float64(p.LatE7)/1e7, float64(p.LonE7)/1e7, resolution)
}
